"""Workflows of a few cheap scripts, written into a folder and run by the real command line."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def begin(folder: Path, *words: str, **variables: str) -> "subprocess.Popen[str]":
    """Begin `python workflow.py` in a folder, with these environment variables beside those that tests have."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TINKER_")}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "workflow.py"), *words], cwd=folder, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**kept, **variables},
    )  # fmt: skip


def call(folder: Path, *words: str, **variables: str) -> tuple[int, str, str]:
    """Run `python workflow.py`; returns its exit code, what it wrote and what it told."""
    process = begin(folder, *words, **variables)
    out, err = process.communicate()
    return process.returncode, out, err


def events(folder: Path) -> list[dict[str, object]]:
    """Return the journal of a workflow."""
    return [json.loads(line) for line in (folder / ".workflow" / "journal.jsonl").read_text().splitlines()]


def until(condition) -> None:
    """Wait for what another process does; a test that waits in vain is stopped from outside."""
    while not condition():
        time.sleep(0.02)
