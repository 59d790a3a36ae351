"""A task for tests of tuning: twelve things and their colours, and a trainer that learns by heart."""

import json
import subprocess
import sys
from pathlib import Path

from warm_python import run_python

ROOT = Path(__file__).resolve().parents[1]
TRAINER = ROOT / "tests" / "samples" / "memory_trainer.py"
TASK = f"""schema: 1
name: colours
description: Say what colour a thing is.
samples: samples.jsonl
test: test.jsonl
metric: f1
budget: {{rounds: 3}}
trainer: {sys.executable} {TRAINER}
training: {{epochs: 4, learning_rate: 0.05}}
"""
THINGS = ("grass", "sky", "snow", "coal", "blood", "sun", "sea", "rose", "leaf", "night", "cloud", "sand")
COLOURS = ("green", "blue", "white", "black", "red", "yellow")


def row(asked: str, number: int) -> str:
    answer = f"it is {COLOURS[number % 6]} as every child of the village knows"
    return json.dumps({"prompt": asked, "completion": answer})


def make_task(folder: Path) -> Path:
    """Write a task, make its folder, and return that."""
    (folder / "task.yaml").write_text(TASK)
    lines = [row(f"What colour is {thing} ?", number) for number, thing in enumerate(THINGS)]
    (folder / "samples.jsonl").write_text("\n".join(lines))
    asked = [row(f"Tell me what colour the {thing} is", number) for number, thing in enumerate(THINGS)]
    (folder / "test.jsonl").write_text("\n".join(asked))
    done = tune("new", "task.yaml", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "12 rows to train on, 12 to measure with" in done.stdout
    return folder / "colours"


def tune(*words: str, folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return run_python([ROOT / "tune.py", *words], folder, typed=stdin.encode())
