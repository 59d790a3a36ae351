"""Which tasks an agent is trained with, and which are held out."""

import json

import pytest

from data.data_error import DataError
from train.agents.agent_elsewhere import AgentElsewhere
from train.agents.tasks import split_tasks

AGENT = AgentElsewhere("agent.py:play", "python")


def test_a_task_that_is_there_twice_is_on_one_side(tmp_path):
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(f"{json.dumps({'ask': number % 8})}\n" for number in range(24)))
    for seed in range(5):
        train, val = split_tasks(AGENT, file, None, 0.25, seed)
        assert len(train) == 18 and len(val) == 6 and not [task for task in val if task in train]
    file.write_text('{"ask": 1}\n' * 4)  # there is no other: the best that can be done
    assert [len(side) for side in split_tasks(AGENT, file, None, 0.25, 0)] == [3, 1]


@pytest.mark.parametrize(
    ("rows", "says"), [("", "there are no tasks to train with"), ('{"ask": 1}\n', "there is 1 task")]
)
def test_too_few_tasks_are_refused(tmp_path, rows, says):
    (tmp_path / "tasks.jsonl").write_text(rows)
    with pytest.raises(DataError, match=says):
        split_tasks(AGENT, tmp_path / "tasks.jsonl", None, 0.25, 0)
