"""The tables of bench/speed.py: medians over rounds, ratios within them, and their place in docs/speed.md."""

import importlib.metadata
import os
import platform
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("torch", "lightning", "numpy")
_COLUMNS = (
    "contestant", "steps/s", "min..max", "vs bare", "vs lightning", "first epoch s", "again s", "fit s", "start s",
    "form", "steps", "final train loss", "noisy",
)  # fmt: skip
_TITLES = {
    "A": "A: tiny MLP autoencoder",
    "B": "B: weights autoencoder",
    "C": "C: ranker",
    "B-large": "B-large: weights autoencoder, large batches",
    "C-large": "C-large: large ranker",
}


@dataclass
class Row:
    """A contestant's figures, of all rounds.

    Attributes:
        rates: steps a second, each round's.
        ratios: by whom it is compared with, each round's.
        results: each round's, as the runs left them; of a contestant that failed `error` says why.
    """

    name: str
    rates: list[float]
    ratios: dict[str, list[float]]
    results: list[dict[str, Any]]
    error: str = ""

    def median(self, key: str, rounds: slice = slice(None)) -> float | None:
        """Return the median of a figure over rounds; None where there is none."""
        values = [result[key] for result in self.results[rounds] if key in result]
        return statistics.median(values) if values else None


def summary(contestants: list[str], rounds: list[dict[str, dict[str, Any]]]) -> list[Row]:
    """Return a row for each contestant, the fastest first and what failed last."""
    rows = []
    for name in contestants:
        results = [found[name] for found in rounds]
        errors = [result["error"] for result in results if "error" in result]
        good = [] if errors else results
        ratios: dict[str, list[float]] = {}
        for other in ("bare", "lightning"):
            pairs = [(found[name], found.get(other, {})) for found in rounds]
            ratios[other] = [mine["rate"] / its["rate"] for mine, its in pairs if "rate" in mine and "rate" in its]
        rows.append(Row(name, [result["rate"] for result in good], ratios, good, errors[0] if errors else ""))
    return sorted(rows, key=lambda row: -statistics.median(row.rates) if row.rates else 0.0)


def failures(rows: list[Row]) -> list[str]:
    """Say what must not be: contestants that failed, and that not all made the same number of optimizer steps."""
    failed = [f"{row.name} failed: {row.error}" for row in rows if row.error]
    made = {row.name: sorted({result["steps"] for result in row.results if "steps" in result}) for row in rows}
    counts = {count for steps in made.values() for count in steps}
    return failed + ([f"not all made the same number of steps: {made}"] if len(counts) > 1 else [])


def table_lines(workload: str, rows: list[Row]) -> list[str]:
    """Return a workload's table as lines of Markdown."""
    lines = [f"### {_TITLES[workload]}", "", _line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
    lines += [_line(_cells(row)) for row in rows]
    if any(result.get("noisy") for row in rows for result in row.results):
        lines += ["", "Noisy runs are in these figures; their ratios say little. Measure again on a quiet machine."]
    for row in rows:
        counts = [result["floor"] for result in row.results if "floor" in result]
        if counts:
            middle = {key: statistics.median(count[key] for count in counts) for key in counts[0]}
            lines += [
                "",
                f"Floor of a step: {middle['bytes'] / 1e6:,.1f} MB at {middle['bandwidth'] / 1e9:,.1f} GB/s, "
                f"{middle['flops'] / 1e9:,.2f} GFLOP at {middle['rate'] / 1e12:,.2f} TFLOP/s; the longer of the two.",
            ]
    return lines


def _cells(row: Row) -> list[str]:
    if row.error:
        return [row.name, f"failed: {row.error.replace('|', '/')[:160]}", *[""] * (len(_COLUMNS) - 2)]
    forms = sorted({result["form"] for result in row.results if result.get("form")})
    noisy = sum(result.get("noisy", False) for result in row.results)
    loss, steps = row.median("loss"), row.median("steps")
    return [
        row.name,
        _number(statistics.median(row.rates)),
        f"{_number(min(row.rates))}..{_number(max(row.rates))}",
        *(
            f"{statistics.median(row.ratios[other]):.2f}" if row.ratios[other] else ""
            for other in ("bare", "lightning")
        ),
        _seconds(row.median("first", slice(1))),
        _seconds(row.median("first", slice(1, None))),
        _seconds(row.median("fit")),
        _seconds(row.median("start")),
        "/".join(forms),
        "" if steps is None else f"{steps:.0f}",
        "" if loss is None else f"{loss:.4f}",
        f"{noisy} of {len(row.results)}",
    ]


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def head_lines(device: str, words: list[str]) -> list[str]:
    """Return what the figures were measured on, with and when."""
    versions = [f"Python {platform.python_version()}", *_versions()]
    return [
        f"Machine: {_machine(device)}.",
        f"Versions: {', '.join(versions)}; Menagerie {_commit()}.",
        f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by `{shlex.join(['python', 'bench/speed.py', *words])}`.",
    ]


def _versions() -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _machine(device: str) -> str:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    threads = os.environ.get("OMP_NUM_THREADS")
    limit = f", OMP_NUM_THREADS={threads}" if threads else ""
    machine = f"{os.cpu_count()} cores of {cpu}{limit}, {platform.system()}"
    return f"{_gpu()}; {machine}" if device == "cuda" else f"{machine}; CPU only"


def _gpu() -> str:
    asked = "import torch; print(torch.cuda.get_device_name(), 'CUDA', torch.version.cuda)"
    # In a process of its own: this one must not hold the device while others are measured.
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    if said.returncode:
        raise SystemExit("there is no CUDA device that torch can use here; --device cpu measures on the CPU.")
    return said.stdout.strip()


def _commit() -> str:
    def git(*words: str) -> str:
        # Without optional locks git only reads: a measurement must not touch the index of somebody at work.
        command = ["git", "--no-optional-locks", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    try:
        commit, changed = git("rev-parse", "--short", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    except OSError:  # there is no git
        return "of unknown commit"
    return (commit or "of unknown commit") + (" with changes" if changed else "")


def rewrite(path: Path, device: str, lines: list[str] | None) -> None:
    """Put lines between the markers of a device's figures; the text around them stays.

    Args:
        path: the file.
        device: whose figures; `cuda` has markers of its own.
        lines: None only looks whether the markers are there.

    Raises:
        SystemExit: there is no such file, or it has not exactly these two markers.
    """
    kind = "figures" if device == "cpu" else f"{device} figures"
    begin, end = f"<!-- {kind}: begin -->", f"<!-- {kind}: end -->"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{path} needs the lines {begin} and {end}; the tables go between them. Or use --no-write.")
    if lines is not None:
        path.write_text(before + "\n".join([begin, *lines, end]) + after, encoding="utf-8")
