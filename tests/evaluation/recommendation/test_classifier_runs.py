"""How a training of a process of its own is begun."""

import os
import subprocess
import sys

import pytest

from evaluation.recommendation import classifier_runs


@pytest.mark.parametrize("own_project", [False, True])
def test_the_script_is_found_from_any_folder(tmp_path, monkeypatch, own_project):
    """A checkout is not on the path of a project of one's own, wherever that lies."""
    if own_project:
        monkeypatch.setattr(classifier_runs, "PROJECT_ROOT", tmp_path)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *classifier_runs.training_script(), "--version"], cwd=tmp_path, env=environment, text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith("menagerie "), done
