"""Measure the training loop against loops written by hand and, where it is installed, Lightning.

    python bench/speed.py                          # all on the CPU, and write docs/speed.md
    python bench/speed.py --quick --no-write       # tiny sizes, to try it out
    python bench/speed.py --device cuda            # with the sizes that fill a GPU, and the floor

Each run is a process of its own; rounds run every contestant once, in a new random order; a ratio is one of runs in the
same round. docs/speed.md says what is measured.
"""

import argparse
import fcntl
import importlib.util
import json
import os
import pty
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speed_table import failures, head_lines, rewrite, summary, table_lines

ROOT = Path(__file__).resolve().parent.parent
BUSY = 0.10  # share of the machine that others may take during a run
_AGAIN = 2  # times that a noisy run is done again
_CONTESTANTS = {
    "cpu": [
        "bare", "tuned", "menagerie", "menagerie eager", "menagerie compiled", "menagerie epoch", "lightning",
        "lightning lean",
    ],
    "cuda": ["bare", "tuned", "menagerie", "menagerie graph", "menagerie compiled", "floor"],
}  # fmt: skip
_KNOWN = [*_CONTESTANTS["cpu"], "menagerie graph", "floor"]
_WORKLOADS = {"cpu": ["A", "B", "C"], "cuda": ["A", "B", "C", "B-large", "C-large"]}


def main() -> int:
    """Run the command line; returns the exit code."""
    arguments = _arguments()
    if arguments.child:
        _child(arguments)
        return 0
    contestants, skipped = _available(arguments.contestants)
    for name, reason in skipped.items():
        print(f"left out: {name}, {reason}", file=sys.stderr)
    target = None if arguments.no_write or arguments.quick else arguments.write
    if target is not None:
        rewrite(target, arguments.device, None)  # says now that a marker is missing, not after an hour
    lines = head_lines(arguments.device, sys.argv[1:])
    problems: list[str] = []
    for workload in arguments.workloads:
        rows = summary(contestants, _measure(arguments, workload, contestants))
        lines += ["", *table_lines(workload, rows)]
        problems += [f"{workload}: {problem}" for problem in failures(rows)]
    if skipped:
        lines += ["", "Left out: " + "; ".join(f"{name} ({reason})" for name, reason in skipped.items()) + "."]
    print("\n".join(lines))
    if problems:
        print("\n".join(["", *problems]), file=sys.stderr)
        return 1
    if target is not None:
        rewrite(target, arguments.device, lines)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(_CONTESTANTS), default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workloads", type=_words, help="such as A,C; a CPU's default is A,B,C")
    parser.add_argument("--contestants", type=_words, help=f"some of: {', '.join(_KNOWN)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try it out; writes nothing")
    parser.add_argument("--write", type=Path, metavar="FILE", default=ROOT / "docs" / "speed.md")
    parser.add_argument("--no-write", action="store_true", help="print the tables only")
    for hidden in ("--child", "--out"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.workloads = arguments.workloads or _WORKLOADS[arguments.device]
    arguments.contestants = arguments.contestants or _CONTESTANTS[arguments.device]
    for what, given, known in (
        ("workload", arguments.workloads, _WORKLOADS["cuda"]),
        ("contestant", arguments.contestants, _KNOWN),
    ):
        for word in given:
            if word not in known:
                parser.error(f"unknown {what} {word!r}; there are: {', '.join(known)}")
    if arguments.rounds < 1:
        parser.error(f"--rounds is {arguments.rounds}; it must be at least 1")
    return arguments


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _available(wanted: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the contestants that can run here, and why others can't."""
    skipped = {}
    forms = _forms()
    for name in wanted:
        kind, _, form = name.partition(" ")
        if kind == "lightning" and importlib.util.find_spec("lightning") is None:
            skipped[name] = "not installed"
        elif kind == "menagerie" and form and form not in forms:
            skipped[name] = f"BaseTrainerConfig has no step = {form}"
    return [name for name in wanted if name not in skipped], skipped


def _forms() -> tuple[str, ...]:
    """Return the values of the config key `step`; none where there is no such key."""
    from typing import get_args, get_type_hints

    sys.path.append(str(ROOT))
    from config.base_trainer_config import BaseTrainerConfig

    return get_args(get_type_hints(BaseTrainerConfig).get("step")) if hasattr(BaseTrainerConfig, "step") else ()


# ------------------------------------------------------------------------------------------------------------- one run


def _child(arguments: argparse.Namespace) -> None:
    """Be one run of one contestant; leave the result as JSON."""
    started = float(os.environ["SPEED_STARTED"])
    sys.path.insert(1, str(ROOT))
    import torch
    from speed_work import Clock, Work, machine_seconds

    device, folder = torch.device(arguments.device), Path(arguments.out).parent
    before = time.monotonic()
    work = Work(arguments.workloads[0], arguments.quick)
    drawing = time.monotonic() - before
    if arguments.child == "floor":
        from speed_floor import floor

        used, own, began = machine_seconds(), time.process_time(), time.monotonic()
        least = floor(work, device, arguments.quick)
        taken = machine_seconds() - used - (time.process_time() - own)
        others = max(0.0, taken) / ((time.monotonic() - began) * (os.cpu_count() or 1))
        result: dict[str, Any] = {"floor": vars(least), "rate": 1 / least.seconds, "others": others}
    else:
        clock = Clock(folder / "metrics.jsonl", device)
        outcome = _contestant(arguments.child)(work, clock, device, folder)
        epochs = clock.epoch_seconds()
        if len(epochs) != work.size.epochs:
            raise SystemExit(f"{arguments.child} trained for {len(epochs)} epochs, not {work.size.epochs}")
        usual = statistics.median(epochs[1:])
        result = {
            "rate": work.steps_per_epoch / usual,
            "first": max(0.0, epochs[0] - usual),
            "fit": clock.end - clock.marks[0],
            "start": clock.marks[0] - started - drawing,
            "others": clock.others(),
            "loss": work.train_loss(outcome.net, device),
            "steps": outcome.steps,
            "form": outcome.form,
        }
    Path(arguments.out).write_text(json.dumps(result), encoding="utf-8")


def _contestant(name: str) -> Callable[..., Any]:
    from functools import partial

    import speed_loops

    kind, _, form = name.partition(" ")
    if kind == "menagerie":
        return partial(speed_loops.menagerie, form or None)
    if kind == "lightning":
        return partial(speed_loops.lightning, form == "lean")
    return getattr(speed_loops, kind)


# ---------------------------------------------------------------------------------------------------------- all of them


def _measure(arguments: argparse.Namespace, workload: str, contestants: list[str]) -> list[dict[str, dict[str, Any]]]:
    """Return each round's results by contestant."""
    rounds = []
    with tempfile.TemporaryDirectory() as caches:
        for number in range(arguments.rounds):
            order = random.Random(number).sample(contestants, len(contestants))
            rounds.append({})
            for name in order:
                if rounds[0].get(name, {}).get("error"):  # it won't work the next time either
                    rounds[-1][name] = rounds[0][name]
                    continue
                # One folder of compiled code for each: its first round compiles, as a researcher's first run does.
                result = _quiet_run(arguments, workload, name, Path(caches) / name.replace(" ", "_"))
                rounds[-1][name] = result
                said = result.get("error") or f"{result['rate']:.1f} steps/s, others {result.get('others', 0):.0%}"
                print(f"{workload} round {number + 1} {name}: {said}", file=sys.stderr, flush=True)
    return rounds


def _quiet_run(arguments: argparse.Namespace, workload: str, name: str, cache: Path) -> dict[str, Any]:
    """Run a contestant; where others disturbed it, again. What compiling took is that of the first time."""
    cold = not cache.exists()
    first = result = _run(arguments, workload, name, cache)
    cold = cold and cache.exists()  # it compiled, and a second run finds the code there
    for _ in range(_AGAIN):
        if result.get("error") or result.get("others", 0.0) <= BUSY:
            break
        result = _run(arguments, workload, name, cache)
    if cold and "first" in first and "first" in result:
        result["first"] = first["first"]
    return result | {"noisy": result.get("others", 0.0) > BUSY}


def _run(arguments: argparse.Namespace, workload: str, name: str, cache: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        words = [sys.executable, __file__, "--child", name, "--out", str(out), "--workloads", workload]
        words += ["--device", arguments.device, *(["--quick"] if arguments.quick else [])]
        said, code = _at_a_terminal(words, {"TORCHINDUCTOR_CACHE_DIR": str(cache)})
        if code or not out.exists():
            lines = [line.strip() for line in said.replace("\r", "\n").splitlines() if line.strip()]
            return {"error": lines[-1] if lines else f"exit code {code}"}
        return json.loads(out.read_text(encoding="utf-8"))


def _at_a_terminal(words: list[str], environment: dict[str, str]) -> tuple[str, int]:
    """Run a command at a terminal that nobody looks at: progress bars are shown as a researcher sees them.

    Returns:
        The end of what it said, and its exit code.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    tail = bytearray()

    def read() -> None:
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # how Linux says that the other end is closed
                return
            if not piece:
                return
            tail.extend(piece)
            del tail[:-4000]

    started = {"SPEED_STARTED": repr(time.monotonic())}  # one clock for all processes of a machine
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, **environment, **started},
    )
    os.close(theirs)
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    code = process.wait()
    reader.join(timeout=5)
    os.close(ours)
    return tail.decode("utf-8", "replace"), code


if __name__ == "__main__":
    sys.exit(main())
