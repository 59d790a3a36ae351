"""The tasks of examples/tasks: folders of tasks can be made of them, and an agent makes a model better at each."""

import json
from pathlib import Path

import pytest
from tuning_tasks import ROOT, tune

pytest.importorskip("langgraph")
TASKS = sorted((ROOT / "examples" / "tasks").glob("*.yaml"))


def with_tiny(task: Path, folder: Path) -> Path:
    """Write a task with a model of random weights, whose tokens are bytes: answers need more of them.

    In so short a training it learns the form of an order, and can't copy names that it has never seen.
    """
    text = task.read_text()
    changes = {
        "model: smollm2": "model: tiny", "metric: json_fields": "metric: json_validity",
        "samples: ": f"samples: {task.parent}/", "test: ": f"test: {task.parent}/",
    }  # fmt: skip
    for before, after in changes.items():
        text = text.replace(before, after)
    kept = [line for line in text.splitlines() if not line.startswith(("max_tokens:", "training:", "budget:"))]
    settings = ["max_tokens: 110", "budget: {rounds: 1}",
                "training: {epochs: 8, learning_rate: 3e-3, trained: all, warmup_share: 0.1}"]  # fmt: skip
    copy = folder / "task.yaml"
    copy.write_text("\n".join([*kept, *settings]))
    return copy


def test_rows_are_split_by_what_they_ask(tmp_path):
    assert [task.stem for task in TASKS] == ["captain", "orders", "tickets"]
    for task in TASKS:
        done = tune("new", str(task), str(tmp_path / task.stem), folder=tmp_path)
        assert done.returncode == 0, done.stderr
        train, test = ([json.loads(line) for line in (tmp_path / task.stem / "data" / name).read_text().splitlines()]
                       for name in ("train.jsonl", "test.jsonl"))  # fmt: skip
        assert len(train) > 150 and 60 <= len(test) <= 70
        asked = [{json.dumps(row["messages"][:-1]) for row in rows} for rows in (train, test)]
        assert len(asked[1]) == len(test) and not asked[0] & asked[1]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.stem)
def test_a_round_makes_even_random_weights_better(task, tmp_path):
    with_tiny(task, tmp_path)
    assert tune("new", "task.yaml", "made", folder=tmp_path).returncode == 0
    done = tune("run", "made", "--yes", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    state = json.loads(tune("status", "made", "--json", folder=tmp_path).stdout)["state"]
    assert state["best"] == 1 and state["rounds"][0]["gain"]["low"] > 0
