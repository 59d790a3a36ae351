"""The doctor's command line, as a user calls it: in this process for speed, or in one of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from doctor.command_line import main

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Answered:
    """What the command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)

    @property
    def ids(self) -> list[str]:
        return [one["id"] for one in self.json["findings"]]


def here(capfd, *words: object) -> Answered:
    """Run it in this process."""
    capfd.readouterr()
    try:
        code = main([str(word) for word in words])
    except SystemExit as left:  # argparse's own
        code = left.code
    sys.stdout.flush()
    told = capfd.readouterr()
    return Answered(code, told.out, told.err)


def apart(*words: object, cwd: Path, stdin: str | None = None, **variables: str) -> Answered:
    """Run it in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "doctor.py"), *map(str, words)],
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=60,
        env={**os.environ, **variables},
        input=stdin or "",
    )
    return Answered(done.returncode, done.stdout, done.stderr)
