"""Finding and reading saved runs."""

import json
import math
from pathlib import Path

import pytest

from storage.saved_run import Readings, RunDamagedError, RunNotFoundError, find_run, load_run


def make_run(artifacts: Path, model: str, run_id: str, **changes) -> Path:
    folder = artifacts / "models" / model / "runs" / run_id
    folder.mkdir(parents=True)
    content = {
        "schema_version": 1, "trainer": f"{model}Trainer", "run_id": run_id, "state": "finished",
        "best": {"epoch": 2, "val_loss": 0.5}, "summary": {"seconds": 3.2},
        "history": {"train_loss": [3, 2, 1], "val_loss": [1.0, None], "val_epoch": [2, 3], "learning_rate": [0.1] * 3},
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(content | changes))
    return folder


@pytest.fixture
def artifacts(tmp_path):
    make_run(tmp_path, "Alpha", "20260101-000000")
    make_run(tmp_path, "Alpha", "20260101-000000-10")
    make_run(tmp_path, "Alpha", "20260101-000000-9")
    make_run(tmp_path, "Beta", "20260102-000000")
    make_run(tmp_path, "Beta", "20260101-000000")
    return tmp_path


def test_find_by_every_name(artifacts):
    runs = artifacts / "models/Alpha/runs"
    assert find_run("latest", artifacts).name == "20260102-000000"
    assert find_run("AlphaTrainer", artifacts) == runs / "20260101-000000-10", "-10 is newer than -9"
    assert find_run("alpha", artifacts) == runs / "20260101-000000-10"
    assert find_run("20260101-000000-9", artifacts) == runs / "20260101-000000-9"
    assert find_run(str(runs / "20260101-000000"), artifacts) == runs / "20260101-000000"
    assert find_run(str(runs / "20260101-000000" / "metrics.json"), artifacts) == runs / "20260101-000000"


def test_what_is_not_found_is_told_with_what_there_is(artifacts, tmp_path):
    with pytest.raises(RunNotFoundError, match=r"there is no run 'nine' in .*; the newest runs are:(?s:.*)20260102"):
        find_run("nine", artifacts)
    with pytest.raises(RunNotFoundError, match=r"several models have a run '20260101-000000'(?s:.*)Beta(?s:.*)Alpha"):
        find_run("20260101-000000", artifacts)
    begun = artifacts / "models/Alpha/runs/20260103-000000"
    begun.mkdir()
    (begun / "config.ini").write_text("[AlphaTrainer]\n")
    with pytest.raises(RunNotFoundError, match="nothing was measured in 20260103-000000: there is no metrics.json in"):
        find_run("20260103-000000", artifacts)
    (begun / "find_lr").mkdir()
    for text in ("20260103-000000", str(begun)):
        with pytest.raises(RunNotFoundError, match="is of --find-lr, which trains no run; what it found is in"):
            find_run(text, artifacts)
    with pytest.raises(RunNotFoundError, match="there are no runs yet"):
        find_run("latest", tmp_path / "empty")


def test_series_have_their_epochs_and_null_is_nan(artifacts):
    run = load_run(find_run("beta", artifacts))
    assert run.series["train_loss"] == ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])
    epochs, values = run.series["val_loss"]
    assert epochs == [2.0, 3.0] and values[0] == 1.0 and math.isnan(values[1])
    assert "val_epoch" not in run.series
    assert (run.best_epoch, run.best_value, run.state) == (2, 0.5, "finished")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cannot read .*metrics.json"),
        ("[]", "cannot read .*metrics.json"),
        ('{"schema_version": 2}', "has schema version 2, this program reads 1"),
        ('{"schema_version": 1}', "it lacks 'best'"),
    ],
)
def test_a_damaged_run_says_what_is_wrong(artifacts, text, reason):
    run = find_run("latest", artifacts)
    (run / "metrics.json").write_text(text)
    with pytest.raises(RunDamagedError, match=reason):
        load_run(run)


def test_readings_are_read_and_older_files_have_none(tmp_path):
    assert load_run(make_run(tmp_path, "Old", "20260101-000000")).readings == Readings()
    lists = {"step": [50, 60, 110], "step_of_epoch": [50, 60, 50], "train_loss": [3.0, None, 1]}
    readings = load_run(make_run(tmp_path, "New", "20260101-000000", readings=lists)).readings
    assert (readings.steps, readings.steps_of_epoch) == ([50, 60, 110], [50, 60, 50])
    assert readings.losses[::2] == [3.0, 1.0] and math.isnan(readings.losses[1])


@pytest.mark.parametrize(
    "lists", [{"step": [1]}, {"step": 3}, [1], {"step": ["a"], "step_of_epoch": [1], "train_loss": [1]}]
)
def test_damaged_readings_are_told(tmp_path, lists):
    with pytest.raises(RunDamagedError, match="cannot read .*metrics.json"):
        load_run(make_run(tmp_path, "New", "20260101-000000", readings=lists))


def test_losses_between_readings_come_from_means_of_the_epoch_so_far():
    """Losses 4 in steps 1 to 50, 2 in 51 to 100, 8 in the rest; the next epoch was read at its step 100 first."""
    steps, counts = [50, 100, 102, 202], [50, 100, 102, 100]
    assert Readings(steps, counts, [4.0, 3.0, (300 + 16) / 102, 5.0]).between() == (
        [50, 102, 202],
        pytest.approx([4.0, (100 + 16) / 52, 5.0]),
    ), "two steps are too few for a mean of their own"
    assert Readings([7], [7], [2.0]).between() == ([7], [2.0]) and Readings().between() == ([], [])
