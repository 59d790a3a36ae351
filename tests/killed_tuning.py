"""Runs a task to its end by processes that are killed at random instants; the program is imported once, and forked.

    python killed_tuning.py FOLDER KILLS SEED

It prints a JSON object: how often a process was killed while which node was at work.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agents import commands
from agents.events import Events


def end_trainer(folder: Path) -> bool:
    """Kill the process that a run has begun, where there is one."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"WORKFLOW_EVENTS={folder}/".encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)
                return True
        except OSError:
            continue
    return False


def main() -> None:
    """Run the task to its end."""
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    draw, killed = random.Random(seed), Counter()
    child = begin(folder)
    while True:
        # Mostly soon, at times late: a process that always dies in its first second would never reach the others.
        until = time.monotonic() + draw.choice((0.4, 0.8, 2.0)) * draw.random()
        done = 0
        while not done and (killed.total() >= kills or time.monotonic() < until):
            done, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.002)
        if done:
            print(json.dumps({"code": os.waitstatus_to_exitcode(status), "killed": killed}))
            return
        if draw.random() < 0.3 and end_trainer(folder):  # it alone: the run begins it again
            killed["trainer"] += 1
            continue
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told = [one.node for one in Events(folder / ".tune" / "events.jsonl").last(50)[0] if one.node]
        killed[told[-1] if told else "beginning"] += 1
        child = begin(folder)


def begin(folder: Path) -> int:
    """Begin a run in a process of its own, and return its number."""
    child = os.fork()
    os.setpgid(child, child)  # by both, so that neither need wait for the other; 0 is oneself
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(commands.main(["run", str(folder), "--yes"]))
    return child


if __name__ == "__main__":
    main()
