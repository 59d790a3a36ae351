"""The training loss by step: what is kept of it, in the lists and through the command line."""

import json

import pytest

from train.loop.record import RunRecord
from train.loop.step_losses import StepLosses


def test_a_step_is_kept_once():
    readings = StepLosses()
    for step, of_epoch in ((5, 5), (8, 8), (8, 8), (13, 5), (16, 8)):
        if readings.is_new(step):
            readings.add(step, of_epoch, {"train_loss": 1.0 / step})
    assert readings.content() == {
        "step": [5, 8, 13, 16], "step_of_epoch": [5, 8, 5, 8], "train_loss": [1 / 5, 1 / 8, 1 / 13, 1 / 16],
    }  # fmt: skip


def test_ten_thousand_are_thinned_out_and_a_waiting_checkpoint_keeps_its_own():
    readings = StepLosses()
    for step in range(1, 10_000):
        readings.add(step, step, {"train_loss": float(step)})
    waiting = readings.frozen()
    for step in range(10_000, 50_000):
        readings.add(step, step, {"train_loss": float(step)})
        assert len(readings.content()["step"]) < 10_000
    kept = readings.content()
    assert waiting()["step"] == list(range(1, 10_000)), "as they were when it was taken"
    assert kept["train_loss"] == [float(step) for step in kept["step"]]
    assert kept["step"] == list(range(8, 50_000, 8)), "the same distance everywhere"


def test_a_record_that_goes_on_has_the_readings_of_one_that_was_never_stopped():
    """At every number of readings around the one at which they are thinned out; through JSON, as a checkpoint is."""
    whole, parts = RunRecord(), {}
    for step in range(1, 10_021):
        whole.step_losses.add(step, step, {"train_loss": 1.0 / step})
        if 9_998 <= step <= 10_002:
            parts[step] = json.loads(json.dumps(whole.frozen()()))
    for stopped, state in parts.items():
        record = RunRecord()
        record.load_state_dict(state)
        for step in range(stopped + 1, 10_021):
            record.step_losses.add(step, step, {"train_loss": 1.0 / step})
        assert record.step_losses.content() == whole.step_losses.content(), stopped


def test_a_checkpoint_of_an_earlier_version_is_gone_on_with():
    record = RunRecord()
    state = record.frozen()()
    del state["readings"]
    record.load_state_dict(state)
    record.step_losses.add(7, 7, {"train_loss": 0.5})
    assert record.step_losses.content()["step"] == [7]


@pytest.fixture(scope="module")
def run(shared_project):
    """14 steps an epoch; a checkpoint every third step looks at the loss too, but keeps no reading."""
    done = shared_project.run("Resumable", "log_every_n_steps=4", "checkpoint_every_n_steps=3", "epochs=2")
    assert done.returncode == 0, done.stderr
    return shared_project.runs("Resumable")[-1]


def test_the_loss_is_read_every_so_many_steps_of_an_epoch_and_at_its_end(run):
    content = json.loads((run / "metrics.json").read_text())
    readings = content["readings"]
    assert content["schema_version"] == 1
    assert readings["step_of_epoch"] == [4, 8, 12, 14] * 2
    assert readings["step"] == [4, 8, 12, 14, 18, 22, 26, 28]
    assert [readings["train_loss"][place] for place in (3, 7)] == content["history"]["train_loss"]


@pytest.mark.slow
def test_two_runs_that_part_inside_an_epoch_are_told_apart_by_step(run, shared_project):
    """The learning rate shows from step 2 on; of the first run every fourth step was read."""
    assert shared_project.run("Resumable", "log_every_n_steps=1", "learning_rate=0.02", "epochs=1").returncode == 0
    other = shared_project.runs("Resumable")[-1]
    done = shared_project.run(run, other, "--out", shared_project.path / "both.png", script="plot.py")
    assert done.returncode == 0, done.stderr
    assert "\ntraining loss by step: first differs in steps 1 to 4: " in done.stdout
    one, two = (json.loads((folder / "metrics.json").read_text())["readings"] for folder in (run, other))
    assert two["step"] == list(range(1, 15)) and one["train_loss"][0] != two["train_loss"][3]
