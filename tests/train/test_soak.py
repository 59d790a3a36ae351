"""The quick part of tests/suites/soak.py: nothing is left of a trainer, and runs at once don't touch each other."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "suites"))

import soak


@pytest.mark.slow
def test_trainers_leave_no_descriptor_and_no_thread_behind(project):
    found = soak.soak_trainers(project, 4)
    assert found["code"] == 0
    assert found["left"] <= 1, "the last one may be alive still"
    assert len(found["files"]) == len(found["threads"]) == 1, "the same after each of the last two"


@pytest.mark.slow
def test_long_runs_keep_their_descriptors_and_threads(project):
    found = soak.soak_steps(project, 1000, ("loader=made", "num_workers=2"))
    assert found["code"] == 0
    assert max(found["threads"]) <= min(found["threads"]) + 1, "one writes checkpoints now and then"
    assert max(found["files"]) < 25, "batches that workers have sent are not kept"


@pytest.mark.slow
def test_runs_that_start_at_once_are_each_like_one_alone(project):
    assert soak.soak_side_by_side(project)["fine"]
