"""The table of measured accuracies: what is dropped, what the reader says of a damaged one, and the shipped one."""

import json
import math

import numpy as np
import pytest

from constants import PERFORMANCE_PATH
from data.benchmark_results import load_results, reasons_to_drop, save_results, seed_noise
from data.data_error import DataError
from data.model_zoo import load_zoo

MODELS = [f"model {number}" for number in range(12)]


def measured(mean: float, spread: float, noise: float, seeds: int = 4, seed: int = 0) -> np.ndarray:
    """Accuracies (models, seeds) with exactly this mean and standard deviation of the models' means."""
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(len(MODELS), seeds)) * noise
    values -= values.mean(axis=1, keepdims=True)
    ability = draw.normal(size=(len(MODELS), 1))
    return mean + spread * (ability - ability.mean()) / ability.std() + values


@pytest.fixture
def saved(tmp_path, benchmark):
    """A table of four tasks, the second too easy, the third all noise."""
    accuracy = np.stack(
        [measured(0.7, 0.1, 0.01), measured(0.98, 0.01, 0.001), measured(0.6, 0.01, 0.05), measured(0.4, 0.05, 0.01)]
    )
    path = tmp_path / "table.json"
    return path, accuracy, save_results(path, MODELS, benchmark[:4], accuracy, {"seed": 3})


def test_saved_table_is_read_back(saved, benchmark):
    path, accuracy, written = saved
    for table in (written, load_results(path)):
        assert table.models == tuple(MODELS) and table.about == {"seed": 3}
        assert table.tasks == (benchmark[0].name, benchmark[3].name)
        assert table.accuracy.shape == (2, 12, 4) and np.allclose(table.accuracy, accuracy[[0, 3]], atol=5.1e-5)
        assert np.allclose(table.mean, accuracy[[0, 3]].mean(axis=2), atol=1e-4)


def test_dropped_tasks_are_named_with_the_reason(saved, benchmark):
    dropped = saved[2].dropped
    assert list(dropped) == [benchmark[1].name, benchmark[2].name]
    assert dropped[benchmark[1].name] == "mean accuracy 0.980 is over 0.97"
    assert dropped[benchmark[2].name].startswith("spread 0.0100 between networks is under twice their noise 0.0")


def test_limits_of_a_task_that_is_kept():
    noise = seed_noise(measured(0.5, 0.1, 0.01)[None])[0] / math.sqrt(4)  # of a mean over four seeds
    assert reasons_to_drop(measured(0.5, 2.02 * noise, 0.01)[None]) == {}
    assert list(reasons_to_drop(measured(0.5, 1.98 * noise, 0.01)[None])) == [0]
    assert reasons_to_drop(measured(0.969, 0.1, 0.01)[None]) == {}
    assert list(reasons_to_drop(measured(0.971, 0.1, 0.01)[None])) == [0]


def test_noise_ignores_what_all_models_share():
    draw = np.random.default_rng(1)
    accuracy = 0.5 + draw.normal(size=(3, 500, 4)) * np.array([0.01, 0.02, 0.04])[:, None, None]
    assert seed_noise(accuracy) == pytest.approx([0.01, 0.02, 0.04], rel=0.08)
    shared = draw.normal(size=(3, 1, 4))
    assert seed_noise(accuracy + shared) == pytest.approx(seed_noise(accuracy), rel=1e-9)
    assert seed_noise(accuracy + draw.normal(size=(3, 500, 1))) == pytest.approx(seed_noise(accuracy), rel=1e-9)


def test_tolerance_is_196_standard_errors_of_a_difference(saved):
    table = saved[2]
    assert table.noise == pytest.approx(seed_noise(table.accuracy))
    assert table.tolerance == pytest.approx(1.96 * math.sqrt(2 / 4) * table.noise)
    row = json.loads(saved[0].read_text())["tasks"][table.tasks[0]]
    assert row["tolerance"] == pytest.approx(table.tolerance[0], abs=2e-5)
    assert row["noise"] == pytest.approx(table.noise[0], abs=2e-5)


def test_table_whose_tasks_are_all_dropped_is_empty_but_readable(tmp_path, benchmark):
    table = save_results(tmp_path / "t.json", MODELS, benchmark[:1], measured(0.99, 0.001, 0.001)[None], {})
    assert table.tasks == () and table.mean.shape == (0, 12) and list(table.dropped) == [benchmark[0].name]


def test_missing_table_is_named_with_what_to_do(tmp_path):
    told = r"there is no table .*nowhere.json.*git checkout.*GroundTruthTrainer publish=on"
    with pytest.raises(DataError, match=told):
        load_results(tmp_path / "nowhere.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"schema_version": 1}', "\x00"])
def test_file_that_is_no_table_is_refused(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(DataError, match=r"cannot read the table .*t.json: .*git checkout constants"):
        load_results(tmp_path / "t.json")


def first_row(content: dict) -> dict:
    return next(row for row in content["tasks"].values() if "dropped" not in row)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda content: content.update(schema_version=9), "schema version 9, this program reads 1"),
        (lambda content: content.pop("models"), "KeyError 'models'"),
        (lambda content: content.update(tasks=[]), "cannot read the table"),
        (lambda content: content["models"].pop(), r"accuracies \(2, 12, 4\) of 11 models"),
        (lambda content: first_row(content).pop("accuracy"), "KeyError 'accuracy'"),
        (lambda content: first_row(content)["accuracy"].pop(), "cannot read the table"),
        (lambda content: first_row(content)["accuracy"][3].pop(), "cannot read the table"),
        (lambda content: first_row(content)["accuracy"][3].__setitem__(0, float("nan")), "a list of finite numbers"),
        (lambda content: first_row(content)["accuracy"][3].__setitem__(0, float("inf")), "a list of finite numbers"),
        (lambda content: first_row(content)["accuracy"][3].__setitem__(0, "much"), "cannot read the table"),
    ],
)
def test_damaged_table_is_refused(saved, change, text):
    content = json.loads(saved[0].read_text())
    change(content)
    saved[0].write_text(json.dumps(content))
    with pytest.raises(DataError, match=text):
        load_results(saved[0])


def test_shipped_table_fits_the_zoo_and_the_benchmark(benchmark):
    table, content = load_results(), json.loads(PERFORMANCE_PATH.read_text())
    assert table.models == tuple(entry.name for entry in load_zoo())
    assert table.accuracy.shape[2] >= 4
    assert list(content["tasks"]) == [task.name for task in benchmark]
    assert set(table.tasks) | set(table.dropped) == {task.name for task in benchmark}
    assert not set(table.tasks) & set(table.dropped)
    assert table.accuracy.min() >= 0 and table.accuracy.max() <= 1
    kept = [task for task in benchmark if task.name in table.tasks]
    assert {task.split for task in kept} == {"train", "test"}
    for task in benchmark:
        row = content["tasks"][task.name]
        found = (row["domain"], row["view"], row["classes"], row["shots"], row["split"], row["test_images"])
        expected = (task.domain, task.view, len(task.classes), task.shots, task.split, len(task.test_rows))
        assert found == expected, task.name


def test_numbers_of_the_shipped_table_follow_from_its_accuracies():
    content = json.loads(PERFORMANCE_PATH.read_text())
    for name, row in content["tasks"].items():
        accuracy = np.array(row["accuracy"])
        assert accuracy.shape == (len(content["models"]), row["seeds"])
        assert np.allclose(row["mean"], accuracy.mean(axis=1), atol=1.01e-4), name
        assert np.allclose(row["std"], accuracy.std(axis=1, ddof=1), atol=1.01e-4), name
        noise, spread = seed_noise(accuracy[None])[0], accuracy.mean(axis=1).std()
        of_mean = noise / math.sqrt(row["seeds"])
        assert row["noise"] == pytest.approx(noise, abs=1e-4), name
        assert row["tolerance"] == pytest.approx(1.96 * math.sqrt(2 / row["seeds"]) * noise, abs=2e-4), name
        # Rounding may carry a task over a limit, by no more than this.
        if "dropped" in row:
            assert accuracy.mean() > 0.97 - 1e-4 or spread < 2 * of_mean + 3e-4, name
            assert row["dropped"].startswith(("mean accuracy ", "spread ")), name
        else:
            assert accuracy.mean() < 0.97 + 1e-4 and spread > 2 * of_mean - 3e-4, name
