"""Kill the workflow of prompt distillation at random instants, and compare what it ends with.

    python bench/workflow_kills.py                 # 40 kills over all steps, on a model of random weights
    python bench/workflow_kills.py --kills 3 --from 2 --until 4

A run that nobody disturbs comes first, and says when each step begins and ends. Instants are drawn over its whole time.
In the second run each is waited for (that step, so many seconds after it began), and the runner, the script or both are
ended by SIGKILL. After the last one a run is left alone. Then every file must be the same, byte for byte, but for logs,
journal, the reports (they tell how long things took), and in checkpoints.jsonl the addresses of checkpoints, which the
service gives, and which have a session's random name.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NOT_COMPARED = {"RESULTS_REPORT.md", "report.html"}
_LOOK = 0.02


def begin(folder: Path, words: list[str]) -> "subprocess.Popen[bytes]":
    """Begin a run; its output goes to a file beside the folder."""
    with folder.with_suffix(".out").open("ab") as output:
        return subprocess.Popen([sys.executable, str(ROOT / "workflow.py"), "run", str(folder), *words],
                                stdout=output, stderr=subprocess.STDOUT)  # fmt: skip


def events(folder: Path) -> list[dict[str, object]]:
    """Return the journal."""
    path = folder / ".workflow" / "journal.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1] if line]


def timeline(folder: Path, first: int, last: int) -> list[tuple[int, float]]:
    """Return steps in the order in which they were done, with how long each took, in seconds."""
    began: dict[object, float] = {}
    found = []
    for event in events(folder):
        if event["kind"] == "started":
            began[event["step"]] = float(str(event["time"]))
        elif event["kind"] == "done" and first <= int(str(event["step"])) <= last:
            found.append((int(str(event["step"])), float(str(event["time"])) - began[event["step"]]))
    return found


def kill_at(folder: Path, words: list[str], step: int, seconds: float, who: str) -> str:
    """Run until a step has lasted so many seconds, then kill; returns what was found.

    Args:
        folder: the project.
        words: words of the run.
        step: number of the step.
        seconds: how long after it began, in this run.
        who: runner, script or both.
    """
    known = events(folder)
    before, last = len(known), {event["step"]: event["kind"] for event in known}
    process = begin(folder, words)
    # Of a step that an earlier kill came too late for, nothing begins any more: then whatever runs is killed.
    pid, due = None, time.monotonic() + seconds if last.get(step) == "done" else float("inf")
    while process.poll() is None and time.monotonic() < due:
        for event in events(folder)[before:]:
            if event["step"] != step:
                continue
            if event["kind"] == "started" and pid is None:
                pid, due = int(str(event["pid"])), time.monotonic() + seconds
            elif event["kind"] in ("done", "failed"):
                due = 0.0
        time.sleep(_LOOK)
    what = "in the step" if due not in (0.0, float("inf")) and process.poll() is None else "after the step"
    if who != "runner" and pid is not None:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            what = "after the step"
    if who != "script":
        process.kill()
    process.wait()
    return what


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of each file that is compared."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name in _NOT_COMPARED or {".workflow", "__pycache__"} & set(path.parts):
            continue
        content = path.read_bytes()
        if path.name == "checkpoints.jsonl":
            rows = [json.loads(line) for line in content.decode().splitlines()]
            content = json.dumps([row | {"path": "", "sampler": ""} for row in rows]).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def main() -> None:
    """Do both runs, and say what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--from", type=int, default=1, dest="first", help="number of the first step")
    parser.add_argument("--until", type=int, default=20, help="number of the last step")
    parser.add_argument("--folder", type=Path, help="where to work, or to go on (default: a temporary folder)")
    arguments = parser.parse_args()
    words = ["--preset", arguments.preset, "--from", str(arguments.first), "--until", str(arguments.until)]
    with tempfile.TemporaryDirectory() as temporary:
        place = arguments.folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        whole, killed = place / "whole", place / "killed"
        for folder in (whole, killed):
            if (folder / "workflow.yaml").exists():
                continue  # of an earlier run, for the steps that it left
            new = [sys.executable, str(ROOT / "workflow.py"), "new", "prompt_distillation", str(folder)]
            subprocess.run(new, check=True, stdout=subprocess.DEVNULL)
        began = time.monotonic()
        if begin(whole, words).wait():
            sys.exit(whole.with_suffix(".out").read_text()[-3000:])
        steps = timeline(whole, arguments.first, arguments.until)
        sys.stderr.write(f"undisturbed: {len(steps)} steps in {time.monotonic() - began:.0f} s\n")

        draws = random.Random(arguments.seed)
        spent = sum(seconds for _, seconds in steps)
        instants = []
        for at in sorted(draws.uniform(0, spent) for _ in range(arguments.kills)):
            before = 0.0
            for step, seconds in steps:
                if at < before + seconds:
                    instants.append((step, at - before))
                    break
                before += seconds
        count: Counter[str] = Counter()
        for number, (step, seconds) in enumerate(instants, 1):
            who = draws.choice(("runner", "script", "both"))
            what = kill_at(killed, words, step, seconds, who)
            count[f"{who}, {what}"] += 1
            sys.stderr.write(f"kill {number}: step {step} after {seconds:.1f} s, {who}: {what}\n")
        if begin(killed, words).wait():
            sys.exit(killed.with_suffix(".out").read_text()[-3000:])
        one, other = digests(whole), digests(killed)
        differ = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
        found = {"kills": len(instants), "of": dict(count), "steps_killed": len({step for step, _ in instants}),
                 "names": sorted(one), "differ": differ}  # fmt: skip
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
