"""Scores by kinds of test rows, and the answers that got worse, in the story of a run."""

import json

import pytest
from tuning_tasks import TASK, tune

pytest.importorskip("langgraph")

from agents.slices import slices_of
from agents.task.rows import TaskRow


def test_the_log_tells_slices_and_worse_answers(tmp_path):
    (tmp_path / "task.yaml").write_text(
        TASK.replace("rounds: 3", "rounds: 1").replace("learning_rate: 0.05", "learning_rate: 1").replace(
            "f1", "exact_match")
    )  # fmt: skip
    kinds = ("garden", "street")
    rows = [{"prompt": f"What colour is thing{n} ?", "completion": f"colour{n}"} for n in range(20)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    # Of the street nothing is as it was learned.
    test = [{"prompt": f"thing{n} ?", "completion": f"colour{n}" if n % 2 == 0 else "no idea",
             "meta": {"place": kinds[n % 2]}} for n in range(20)]  # fmt: skip
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in test))
    assert tune("new", "task.yaml", folder=tmp_path).returncode == 0
    folder = tmp_path / "colours"
    assert json.loads((folder / "data" / "test.jsonl").read_text().splitlines()[1])["slices"] == {"place": "street"}
    assert tune("run", "--yes", folder=folder).returncode == 0
    told = tune("log", folder=folder).stdout
    assert "slices of round 1, the worst first" in told
    assert "place = street: exact_match 0 [0, 0] of 10 rows; behind the others beyond chance" in told
    assert "place = garden: exact_match 1 [1, 1] of 10 rows\n" in told
    # The base model of the memory trainer says `no idea`, which is what the street's rows want.
    assert "answers of round 1 that are worse than the base model's: 10 of 20" in told
    assert "before 'no idea', now 'colour1'" in told
    state = json.loads(tune("status", "--json", folder=folder).stdout)["state"]
    (bias,) = [one for one in state["rounds"][0]["found"] if one["name"] == "bias_between_slices"]
    assert bias["evidence"][0].startswith("place = street: exact_match 0 [0, 0] of 10 rows; the others 1")
    wrong = tune("explain", ".", "3", folder=folder)
    assert wrong.returncode == 2 and "tells no losses of words; train.py does" in wrong.stderr
    wrong = tune("explain", ".", "21", folder=folder)
    assert wrong.returncode == 2 and "give 1 to 20, or the id of a row" in wrong.stderr


def test_a_slice_is_only_behind_beyond_chance():
    rows = [TaskRow(f"{n}", ({"role": "user", "content": "x"}, {"role": "assistant", "content": f"{n}"}), {},
                    {"kind": "ab"[n % 2]}) for n in range(40)]  # fmt: skip
    even = slices_of(rows, [n % 4 / 4 for n in range(40)])
    assert [(one.value, round(one.mean, 3)) for one in even] == [("a", 0.25), ("b", 0.5)]
    assert even[0].behind and not even[1].behind
    noise = slices_of(rows, [(n // 2) % 2 for n in range(40)])
    assert [one.behind for one in noise] == [False, False]
    assert slices_of(rows[:8], [0.0] * 8) == []
