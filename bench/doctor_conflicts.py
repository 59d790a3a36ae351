"""Real conflicts: does the doctor see them, in the environment alone and with what failed, and does it mend them?

    python bench/doctor_conflicts.py [R1 R5 ...] [--folder DIR] [--no-proof]

Each set of tests/doctor/conflicts.py is installed by uv (network, or its cache), fails, and is diagnosed through the
command line; with --proof always its first change is tried. torch is a wheel for processors, from UV_FIND_LINKS.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "doctor")]

from conflicts import CONFLICTS, FAULTS, Conflict, build, fail  # noqa: E402  # beside the tests, which use it too

from doctor.knowledge.metadata import Metadata  # noqa: E402

_METADATA = Metadata()


@dataclass
class Row:
    """What came of one conflict; None where it was not asked."""

    key: str
    alone: str | None = None
    failed: str | None = None
    first: bool | None = None
    proof: str | None = None
    seconds: float | None = None
    change: str = ""
    small: bool | None = None
    said: str = ""


def right(change: dict[str, object], conflict: Conflict) -> bool:
    """Return whether a change moves a distribution into a range that mends the conflict.

    Args:
        change: as the command's JSON has it.
        conflict: the conflict.
    """
    moved = {canonicalize_name(one.name): one.specifier for one in map(Requirement, change["requirements"])}
    return any(all(_within(moved, Requirement(one)) for one in way) for way in conflict.mended)


def _within(moved: dict[str, SpecifierSet], wanted: Requirement) -> bool:
    asked = moved.get(canonicalize_name(wanted.name))
    if asked is None:
        return False
    released = [one.version for one in _METADATA.releases(wanted.name) if not one.version.is_prerelease]
    chosen = [version for version in released if version in asked]
    exact = [part.version for part in asked if part.operator == "=="]
    if exact or not chosen:
        return bool(exact) and exact[0] in wanted.specifier
    return chosen[-1] in wanted.specifier


def explains(finding: dict[str, object], conflict: Conflict) -> bool:
    """Return whether a finding is the conflict's cause: one of its changes mends it, or its branch says so."""
    if conflict.branches:
        return finding["branch"] in conflict.branches
    return any(right(change, conflict) for change in finding["changes"])


def doctor(conflict: Conflict, folder: Path, *options: str) -> tuple[dict[str, object], float]:
    """Ask the command, and return its answer with the seconds that it took."""
    settings = {name: value.format(folder=folder) for name, value in conflict.variables.items() if name != "PATH"}
    command = [sys.executable, str(ROOT / "doctor.py"), "--python", str(folder / "venv"), "--folder", str(folder),
               "--json", "--memory", str(folder / "memory"), *options]  # fmt: skip
    begun = time.perf_counter()
    answer = subprocess.run(command, cwd=folder, env={**os.environ, **settings}, capture_output=True, text=True)
    took = time.perf_counter() - begun
    try:
        return json.loads(answer.stdout), took
    except ValueError:
        return {"findings": [], "fault": answer.stderr[-400:]}, took


def judge(conflict: Conflict, folder: Path, proof: bool) -> Row:
    """Diagnose one conflict in both ways, and prove its change.

    Args:
        conflict: the conflict.
        folder: where it is, or is to be, built.
        proof: whether its change is tried.
    """
    row = Row(conflict.key)
    output = folder / "traceback.txt"
    if not output.exists():
        made = build(conflict, folder)
        ran = fail(conflict, folder) if conflict.installs else made
        output.write_text(ran.stdout + ran.stderr)
    if conflict.expected not in output.read_text():
        row.said = "it did not fail as expected"
        return row
    if conflict.visible:
        answer, _ = doctor(conflict, folder, "--proof", "never")
        told = [one for one in answer["findings"] if one["level"] != "note"]
        place = next((place for place, one in enumerate(told) if explains(one, conflict)), None)
        row.alone = "not seen" if place is None else "first" if place == 0 else f"as {place + 1} of {len(told)}"
    mode = "always" if proof and conflict.mended else "never"
    answer, row.seconds = doctor(conflict, folder, "--traceback", str(output), "--proof", mode)
    told = answer["findings"]
    place = next((place for place, one in enumerate(told) if explains(one, conflict)), None)
    row.failed = "not seen" if place is None else "first" if place == 0 else f"as {place + 1} of {len(told)}"
    row.said = told[0]["verdict"] if told else str(answer.get("fault", "no finding"))
    for change in [change for one in told for change in one["changes"]]:
        if change["proof"] and (row.proof is None or change["proof"]["result"] == "proved"):
            row.proof = change["proof"]["result"]
            row.change = " ".join(change["requirements"])
            row.small = row.proof == "proved" and len(change["requirements"]) <= len(conflict.known)
            if row.proof == "proved":
                break
    return row


def main() -> None:
    """Judge the conflicts that are named, or all, and print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("keys", nargs="*", metavar="KEY", help="R1 to R17, E1 to E4 (all)")
    options.add_argument("--folder", type=Path, help="keeps the environments, and uses those that are there")
    options.add_argument("--no-proof", action="store_true", help="only diagnose")
    given = options.parse_args()
    wanted = [one for one in (*CONFLICTS, *FAULTS) if not given.keys or one.key in given.keys]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for one in wanted:
            row = judge(one, (given.folder or Path(scratch)).resolve() / one.key, not given.no_proof)
            rows.append(row)
            took = f"{row.seconds:.0f} s" if row.seconds is not None else ""
            print(f"{row.key:4} alone: {row.alone or '-':12} with failure: {row.failed or '-':12} "
                  f"proof: {row.proof or '-':14} {took:>6}  {row.change:32} {row.said[:100]}", flush=True)  # fmt: skip
    _summary([row for row, one in zip(rows, wanted, strict=True) if one.mended and one.key != "R17"])


def _summary(rows: list[Row]) -> None:
    """Print the figures over the conflicts with a proved fix."""
    seen = [row for row in rows if row.alone is not None]
    print(f"\nof {len(rows)} conflicts with a known fix:")
    print(f"  seen in the environment alone: {sum(row.alone != 'not seen' for row in seen)}")
    print(f"  seen with the failure: {sum(row.failed not in (None, 'not seen') for row in rows)}; "
          f"as the first cause: {sum(row.failed == 'first' for row in rows)}")  # fmt: skip
    proved = [row for row in rows if row.proof == "proved"]
    slowest = max((row.seconds or 0 for row in rows), default=0)
    print(f"  mended and proved: {len(proved)}; the slowest in {slowest:.0f} s")
    print(f"  change no larger than the known one: {sum(bool(row.small) for row in rows)}")


if __name__ == "__main__":
    main()
