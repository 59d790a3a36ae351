"""What differs between saved runs: the parts, and `python plot.py A B` in a new process."""

import json
import math
import re
import subprocess
from pathlib import Path

import pytest
from warm_python import run_python

from storage.monitor import Monitor
from storage.run_comparison import (
    Difference,
    compare_histories,
    compare_readings,
    comparison_lines,
    differences,
    facts_of,
    history_lines,
)
from storage.run_names import run_names
from storage.saved_run import Readings, Run, load_run
from storage.verdict import verdict_line, verdict_lines

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = {
    "schema_version": 1, "command": ["train.py", "Alpha"], "python": "3.11.7", "platform": "Linux",
    "git": {"commit": "878259a59c45b05b45b339e7842b113af5209ab3", "diff": "", "untracked": []},
    "packages": {"torch": "2.13.0+cpu", "numpy": "2.4.6", "pyyaml": None},
    "device": {"type": "cpu", "name": "cpu", "threads": 2},
    "data": {"train": {"length": 64, "sample": "tensor (6,) float32", "sha256": "924e8645f476a0e8"}, "val": None},
}  # fmt: skip


def make_run(artifacts: Path, run_id: str, environment=ENVIRONMENT, settings: str = "seed = 0", **history) -> Path:
    folder = artifacts / "models" / "Alpha" / "runs" / run_id
    folder.mkdir(parents=True)
    epochs = len(history.get("train_loss", []))
    content = {
        "schema_version": 1, "trainer": "AlphaTrainer", "run_id": run_id, "state": "finished", "best": None,
        "summary": {"epochs": epochs, "seconds": 1.0}, "history": history,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(content))
    (folder / "config.ini").write_text(f"[AlphaTrainer]\nepochs = 3\n{settings}\n")
    (folder / "environment.json").write_text(json.dumps(environment))
    return folder


def history(**series: tuple[list[float], list[float]]) -> Run:
    """A run that only has a history: epochs and values by name."""
    name = f"run{len(series)}"
    return Run(Path(name), "AlphaTrainer", "finished", series, None, None, {})


def plot(*words) -> subprocess.CompletedProcess:
    return run_python([ROOT / "plot.py", *words], Path.cwd())


def test_differences_name_what_one_side_lacks():
    found = differences({"a": "1", "b": "2", "gone": "3"}, {"new": "4", "b": "5", "a": "1"})
    assert found == [Difference("b", "2", "5"), Difference("gone", "3", None), Difference("new", None, "4")]


def test_the_smallest_difference_of_two_numbers_is_found():
    loss = 0.1234567
    result = compare_histories(
        history(train_loss=([1, 2, 3, 4], [0.5, 0.25, loss, 0.1])),
        history(train_loss=([1, 2, 3, 4], [0.5, 0.25, math.nextafter(loss, 1), 0.1])),
    )
    (parting,) = result.parted
    assert (parting.name, parting.epoch) == ("train_loss", 3)
    assert parting.first == loss and parting.second > loss
    assert not result.same and not result.longer and not result.only


def test_nan_equals_itself_and_no_number():
    first = history(a=([1, 2], [math.nan, 1.0]), b=([1, 2], [1.0, math.nan]))
    second = history(a=([1, 2], [math.nan, 1.0]), b=([1, 2], [1.0, 2.0]))
    result = compare_histories(first, second)
    assert result.same == ["a"]
    assert [(parting.name, parting.epoch) for parting in result.parted] == [("b", 2)]


def test_series_part_in_the_order_of_their_epochs_and_losses_first():
    first = history(a=([1, 2], [1, 1]), b=([1, 2], [1, 1]), val_loss=([1, 2], [1, 1]), c=([1, 2], [7, 7]))
    second = history(a=([1, 2], [1, 2]), b=([1, 2], [3, 1]), val_loss=([1, 2], [1, 2]), c=([1, 2], [7, 7]))
    result = compare_histories(first, second)
    assert [parting.name for parting in result.parted] == ["b", "val_loss", "a"]
    assert result.same == ["c"]


def test_values_are_paired_by_epoch_and_not_by_place():
    every, second = ([1, 2, 3, 4], [9.0, 8.0, 7.0, 6.0]), ([2, 4], [8.0, 6.0])
    (parting,) = compare_histories(history(val_loss=every), history(val_loss=second)).longer
    assert (parting.epoch, parting.shared, parting.ends) == (None, 4, (4, 4))
    (parting,) = compare_histories(history(val_loss=every), history(val_loss=([2, 4], [8.0, 6.5]))).parted
    assert (parting.epoch, parting.first, parting.second) == (4, 6.0, 6.5)


def test_several_values_of_one_epoch_are_paired_by_their_number_in_it():
    result = compare_histories(history(a=([1, 1, 2], [1.0, 2.0, 3.0])), history(a=([1, 1, 2], [1.0, 2.5, 3.0])))
    assert [(parting.epoch, parting.first, parting.second) for parting in result.parted] == [(1, 2.0, 2.5)]


def test_facts_are_named_for_people_and_what_is_missing_is_left_out():
    facts = facts_of(ENVIRONMENT)
    assert facts == {
        "python": "3.11.7", "platform": "Linux", "torch": "2.13.0+cpu", "numpy": "2.4.6", "device": "cpu",
        "device name": "cpu", "threads": "2", "commit": "878259a59c45", "train samples": "64",
        "train sample": "tensor (6,) float32", "train fingerprint": "924e8645f476",
    }  # fmt: skip
    assert facts_of(ENVIRONMENT | {"git": None}).keys() == facts.keys() - {"commit"}
    assert facts_of({}) == {}


def test_changes_of_one_length_differ_by_their_digest():
    changes = [
        facts_of({"git": {"commit": "1" * 40, "diff": diff}})["uncommitted changes"] for diff in ("+ a\n", "+ b\n")
    ]
    assert all(text.startswith("1 line of diff (") for text in changes) and changes[0] != changes[1]


def read(name: str, losses: dict[int, float]) -> Run:
    """A run with readings only: mean losses by step, in one epoch."""
    readings = Readings(list(losses), list(losses), list(losses.values()))
    return Run(Path(name), "AlphaTrainer", "finished", {}, None, None, {}, readings)


def test_the_first_steps_that_differ_are_told():
    one = read("a", {50: 0.5, 100: 0.4, 150: 0.3, 200: 0.25})
    assert history_lines(one, read("b", {50: 0.5, 100: 0.4, 150: 0.3125, 200: 0.25}))[:-1] == [
        "training loss by step: first differs in steps 101 to 150: 0.3 against 0.3125 (mean of the epoch to step 150)",
        "  log_every_n_steps = 1 with step = eager reads it at every step",
    ]
    assert history_lines(one, read("b", {50: 0.75}))[0].startswith(
        "training loss by step: first differs in steps 1 to 50: 0.5 against 0.75 "
    )


def test_a_single_step_is_told_where_every_one_is_read():
    one, two = read("a", {1: 0.5, 2: 0.4, 3: 0.3}), read("b", {1: 0.5, 2: 0.4, 3: math.nextafter(0.3, 1)})
    assert history_lines(one, two)[:-1] == [
        "training loss by step: differs from step 3 on: 0.3 against 0.30000000000000004"
    ]
    assert history_lines(read("a", {1: 0.5}), read("b", {1: 0.25}))[:-1] == [
        "training loss by step: differs from step 1 on: 0.5 against 0.25"
    ]


def test_readings_of_other_steps_are_compared_where_both_have_them():
    coarse, fine = read("a", {10: 0.5, 20: 0.4, 33: 0.3}), read("b", {step: 5 / step for step in range(4, 40, 4)})
    found = compare_readings(coarse, fine)
    assert (found.step, found.agreed, found.shared, found.last) == (20, 0, 1, 20)
    same = read("b", {20: 0.4, 21: 7.0, 33: 0.3})
    assert history_lines(coarse, same)[:-1] == [
        "training loss by step: the same to all digits at the 2 steps at which both were read, to 33"
    ]
    assert history_lines(coarse, read("b", {11: 0.5}))[:-1] == ["training loss by step: never read at the same step"]
    assert history_lines(coarse, read("b", {}))[:-1] == ["training loss by step: can't be compared, there is none in b"]


def test_what_was_not_finite_equals_itself_by_step_too():
    one, two = read("a", {1: math.nan, 2: math.nan}), read("b", {1: math.nan, 2: 0.5})
    assert compare_readings(one, two).step == 2


def test_a_run_is_the_same_as_its_repetition(tmp_path):
    one, two = (load_run(make_run(tmp_path, f"2026010{day}-000000", train_loss=[0.5, 0.4])) for day in (1, 2))
    assert comparison_lines([one, two]) == [
        "no winner: val_loss was never measured in 20260101-000000 and 20260102-000000",
        "",
        "20260101-000000 against 20260102-000000",
        "settings: the same",
        "history: the same to all digits",
        "environment: the same",
    ]


def test_a_shorter_run_is_the_same_as_far_as_it_goes(tmp_path):
    one = load_run(make_run(tmp_path, "20260101-000000", train_loss=[0.5, 0.4, 0.3], val_a=[1.0], val_epoch=[1]))
    two = load_run(make_run(tmp_path, "20260102-000000", train_loss=[0.5, 0.4], val_a=[1.0], val_epoch=[2]))
    assert comparison_lines([one, two])[-4:-1] == [
        "history:",
        "  train_loss is the same to all digits to epoch 2; 20260101-000000 goes on to epoch 3",
        "  val_a was never measured at the same epoch",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "environment: can't be compared, there is no environment.json in 20260102-000000"),
        ("{", "environment: cannot read .*environment.json: Expecting"),
        ("[]", "environment: cannot read .*environment.json: it holds a list"),
        ('{"device": 3}', "environment: cannot read .*environment.json: 'int' object has no attribute"),
    ],
)
def test_an_unreadable_environment_is_told_and_the_rest_is_compared(tmp_path, content, told):
    one, two = (make_run(tmp_path, f"2026010{day}-000000", train_loss=[0.5, 0.4]) for day in (1, 2))
    (two / "environment.json").unlink() if content is None else (two / "environment.json").write_text(content)
    lines = comparison_lines([load_run(one), load_run(two)])
    assert re.match(told, lines[5]) and lines[3] == "settings: the same" and lines[4].startswith("history: the same")


def test_the_command_tells_what_differs_and_draws_the_picture(tmp_path):
    device = ENVIRONMENT["device"] | {"threads": 1}
    data = {"train": ENVIRONMENT["data"]["train"] | {"sha256": "0000000000000000"}}
    other = ENVIRONMENT | {"device": device, "data": data, "packages": {"torch": "2.12.0", "numpy": "2.4.6"}}
    make_run(tmp_path, "20260101-000000", train_loss=[0.5, 0.4, 0.1234567], learning_rate=[0.1] * 3, train_a=[1.0] * 3)
    make_run(
        tmp_path, "20260102-000000", other, "seed = 1\nnew = x",
        train_loss=[0.5, 0.4, 0.1234568], learning_rate=[0.1] * 3, train_b=[1.0] * 3,
    )  # fmt: skip
    picture = tmp_path / "both.png"
    done = plot("20260101-000000", "20260102-000000", "--artifacts", tmp_path, "--out", picture)
    assert done.returncode == 0, done.stderr
    assert picture.stat().st_size > 1000
    assert (
        done.stdout
        == f"""no winner: val_loss was never measured in seed=0 and new=x, seed=1

seed=0 (20260101-000000) against new=x, seed=1 (20260102-000000)
settings: 2 of 3 differ
  seed  0 against 1
  new   nothing against x
history:
  train_loss differs from epoch 3 on: 0.1234567 against 0.1234568
  the same to all digits: learning_rate
  only in seed=0: train_a
  only in new=x, seed=1: train_b
environment: 3 of 11 differ
  torch              2.13.0+cpu against 2.12.0
  threads            2 against 1
  train fingerprint  924e8645f476 against 000000000000

{picture}
"""
    )


def test_each_further_run_is_compared_with_the_first_also_when_nothing_was_measured(tmp_path):
    for day in (1, 2, 3):
        make_run(tmp_path, f"2026010{day}-000000", settings=f"seed = {day}")
    done = plot(*(f"2026010{day}-000000" for day in (1, 2, 3)), "--artifacts", tmp_path)
    assert done.returncode == 3 and "nothing was measured" in done.stderr
    assert "  seed  1 against 2" in done.stdout and "  seed  1 against 3" in done.stdout
    assert "2 against 3" not in done.stdout
    assert done.stdout.count("history: there is none in either") == 2


def standing(name: str, mode: str = "min", **values: list[float]) -> Run:
    series = {key: (list(range(1, len(column) + 1)), column) for key, column in values.items()}
    return Run(
        Path(name), "AlphaTrainer", "finished", series, None, None, {}, monitor=Monitor(next(iter(values)), mode)
    )


def test_the_verdict_goes_by_the_monitor_and_its_direction():
    one, two = standing("a", val_loss=[3.0, 1.0, 2.0]), standing("b", val_loss=[2.0, 1.25])
    told = "winner: a with val_loss 1 at epoch 2, lower by 0.25 (20 %) than b with 1.25 at epoch 2"
    assert verdict_line([one, two], ["a", "b"]) == verdict_line([two, one], ["b", "a"]) == told
    one, two = standing("a", "max", val_accuracy=[0.5, 0.9, 0.8]), standing("b", "max", val_accuracy=[0.75])
    told = "winner: a with val_accuracy 0.9 at epoch 2, higher by 0.15 (20 %) than b with 0.75 at epoch 1"
    assert verdict_line([two, one], ["b", "a"]) == told


def test_the_verdict_says_where_nobody_wins():
    one, two = standing("a", val_loss=[1.0, 2.0]), standing("b", val_loss=[2.0, 1.0])
    assert verdict_line([one, two], ["a", "b"]) == "no winner: both have val_loss 1 (at epochs 1 and 2)"
    never = standing("c", val_accuracy=[math.nan])
    assert verdict_line([one, never], ["a", "c"]).startswith("no winner: val_loss was never measured in c")
    near = standing("b", val_loss=[math.nextafter(1.0, 2)])
    assert "val_loss 1.0000000000000000 " not in (told := verdict_line([one, near], ["a", "b"]))
    assert "1.0000000000000002 at epoch 1" in told


def test_several_runs_are_shown_in_order_with_their_other_metrics():
    runs = [standing(name, val_loss=[best], val_f1=[best * 2]) for name, best in (("a", 3.0), ("b", 1.0), ("c", 2.0))]
    lines = verdict_lines(runs, ["a", "b", "c"])
    assert lines[0] == "winner: b with val_loss 1 at epoch 1, lower by 1 (50 %) than c with 2 at epoch 1"
    assert [line.split() for line in lines[1:]] == [
        ["val_loss", "at", "epoch", "behind", "val_f1"], ["b", "1", "1", "2"], ["c", "2", "1", "1", "4"],
        ["a", "3", "1", "2", "6"],
    ]  # fmt: skip


def test_runs_are_called_by_what_differs(tmp_path):
    def called(*settings: str) -> list[str]:
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        place.mkdir()
        folders = [make_run(place, f"2026010{day}-000000", settings=text) for day, text in enumerate(settings, 1)]
        return run_names([load_run(folder) for folder in folders])

    assert called("seed = 0\nwidth = 8", "seed = 0\nwidth = 32") == ["width=8", "width=32"]
    assert called("width = 8\nthreads = 1", "width = 8\nthreads = 2") == ["20260101-000000", "20260102-000000"]
    assert called("width = 8", "width = 8", "width = 9") == [
        "width=8 (20260101-000000)", "width=8 (20260102-000000)", "width=9",
    ]  # fmt: skip
    many = ["\n".join(f"{key} = {value}" for key in "abcd") for value in (1, 2, 2)]
    many = [f"{text}\ne = {number}" for number, text in enumerate(many, 1)]
    assert called(*many) == ["e=1, …", "e=2, …", "e=3, …"]
