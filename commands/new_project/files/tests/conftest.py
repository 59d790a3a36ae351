"""The project's command line, for its tests."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Project:
    """This project, with a folder of its own for runs, so that tests leave nothing in artifacts/."""

    artifacts: Path

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess:
        """Run `menagerie train WORDS` in a new process; returns the CompletedProcess with text output."""
        command = [sys.executable, "-m", "menagerie", "train", *words, f"artifacts_dir={self.artifacts}"]
        variables = {**os.environ, **environment}
        return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=600)

    def runs(self, model_name: str) -> list[Path]:
        """Return the run folders of a trainer, `Digits` for DigitsTrainer, oldest first."""
        return sorted((self.artifacts / "models" / model_name / "runs").glob("*"))


@pytest.fixture(scope="module")
def users_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project, for the tests of one module."""
    return Project(tmp_path_factory.mktemp("artifacts"))
