"""Measures of the user's own: a function in a file, and a judge who is tried on labels first."""

import json
import sys
from pathlib import Path

import pytest
from model_stub import model_stub
from tuning_tasks import COLOURS, TASK, THINGS, row, tune

pytest.importorskip("langgraph")


def make_task(folder: Path, lines: str) -> Path:
    """Make the folder of the task of colours with another measure."""
    (folder / "task.yaml").write_text(TASK.replace("metric: f1\n", lines).replace("rounds: 3", "rounds: 1"))
    (folder / "samples.jsonl").write_text(
        "\n".join(row(f"What colour is {thing} ?", number) for number, thing in enumerate(THINGS))
    )
    (folder / "test.jsonl").write_text(
        "\n".join(row(f"Tell me what colour the {thing} is", number) for number, thing in enumerate(THINGS))
    )
    done = tune("new", "task.yaml", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "colours"


def state_of(folder: Path) -> dict:
    return json.loads(tune("status", "--json", folder=folder).stdout)["state"]


def test_a_function_of_the_users_own_measures(tmp_path):
    own = tmp_path / "lib" / "my_metrics.py"
    own.parent.mkdir()
    own.write_text(
        "import os, helper\n"
        "BEST = 10\n"
        "os.environ['TUNE_TEST_MARK'] = 'only in its own process'\n"
        "def score(answer, wanted, messages):\n"
        "    assert messages[-1]['role'] == 'user'\n"
        "    return helper.TEN * (set(answer.split()) & {'it', 'is'} == {'it', 'is'})\n"
    )
    (tmp_path / "lib" / "helper.py").write_text("TEN = 10\n")
    folder = make_task(tmp_path, "metric: lib/my_metrics.py:score\ngoal: 9\n")
    # The function is copied into the folder; what it imports is not, and the message says so in a line.
    lacks = tune("run", "--yes", folder=folder)
    assert lacks.returncode == 3 and "my_metrics.py can't be imported: ModuleNotFoundError" in lacks.stderr
    (folder / "helper.py").write_text("TEN = 10\n")
    done = tune("run", "--yes", folder=folder)
    assert done.returncode == 0, done.stderr
    state = state_of(folder)
    assert state["baseline"]["value"] == 0 and state["baseline"]["scale"] == 10
    # The trainer that learns by heart says 20 % of an answer's words after four epochs: "it is".
    assert state["rounds"][0]["measured"]["scores"] == [10.0] * 12 and state["best"] == 1
    assert state["stop"] == "the goal is reached: my_metrics.py:score 10 (wanted 9)"
    for text, told in (
        ("def other(a, b, c): return 1\n", "my_metrics.py has no function score; it has other"),
        ("def score(a, b, c):\n    return 1 / 0\n", "ZeroDivisionError: division by zero (my_metrics.py:2)"),
        ("def score(a, b, c): return float('nan')\n", "is nan; needed is a finite number"),
    ):
        other = tmp_path / f"other{len(told)}"
        (other / "lib").mkdir(parents=True)
        (other / "lib" / "my_metrics.py").write_text(text)
        done = tune("run", "--yes", folder=make_task(other, "metric: lib/my_metrics.py:score\n"))
        assert done.returncode == 3 and told in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_function_that_changes_after_the_baseline_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("def score(answer, wanted, messages): return len(answer)\n")
    folder = make_task(tmp_path, "metric: mine.py:score\n")
    tune("run", folder=folder)
    (folder / "mine.py").write_text("def score(answer, wanted, messages): return 2 * len(answer)\n")
    done = tune("run", "--yes", folder=folder)
    assert done.returncode == 3 and "has changed since the base model was measured" in done.stderr


def labels(folder: Path, wrong: int) -> None:
    """Write twenty answers with a person's labels, of which some are the other way round."""
    lines = []
    for number in range(20):
        good = number % 2 == 0
        answer = f"it is {COLOURS[number % 6]}" if good else "no idea"
        label = "pass" if good == (number >= wrong) else "fail"
        lines.append(json.dumps({"question": f"Colour of thing {number}?", "answer": answer, "label": label}))
    (folder / "labels.jsonl").write_text("\n".join(lines))


def said(messages: list[dict]) -> str:
    """The judge: passes what says `it is`."""
    assert "Say what colour a thing is." in messages[1]["content"] and "one word" in messages[1]["content"]
    answer = messages[1]["content"].split("The answer to judge:\n")[1].split("\n")[0]
    return "Verdict: **pass**" if answer.startswith("it is") else "fail"


def test_a_judge_that_agrees_is_used_and_one_that_does_not_is_told(tmp_path):
    with model_stub(said) as stub:
        lines = (
            f"metric: judge\njudge: {{endpoint: {{address: '{stub.address}', model: strict}}, labels: labels.jsonl}}\n"
        )
        good, bad = tmp_path / "good", tmp_path / "bad"
        for folder, wrong in ((good, 2), (bad, 8)):
            folder.mkdir()
            labels(folder, wrong)
        done = tune("run", "--yes", folder=make_task(good, lines))
        assert done.returncode == 0, done.stderr
        state = state_of(good / "colours")
        # 18 of 20 alike, of even verdicts: chance gives a half, so kappa is 0.8.
        assert state["judge"]["accuracy"] == pytest.approx(0.9) and state["judge"]["kappa"] == pytest.approx(0.8)
        assert state["judge"]["low"] < 0.8 < state["judge"]["high"] and len(state["judge"]["apart"]) == 2
        assert state["baseline"]["value"] == 0 and state["rounds"][0]["measured"]["value"] == 1 and state["best"] == 1
        card = (good / "colours" / "model" / "README.md").read_text()
        assert "Cohen's kappa 0.80" in card and "the same verdict on 90% of 20 answers" in card
        # One that agrees on 12 of 20 (kappa 0.2) is asked about, and not used where the rule answers.
        folder = make_task(bad, lines)
        waits = tune("run", folder=folder)
        assert waits.returncode == 1 and "The judge agrees too little with your labels. Use it?" in waits.stdout
        assert "Cohen's kappa 0.20" in waits.stdout and "you say fail, the judge pass" in waits.stdout
        over = tune("run", "--yes", folder=folder)
        assert over.returncode == 0 and "The end: the judge agrees too little with the labels" in over.stdout
        assert state_of(folder)["baseline"] is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            '{"question": "a", "answer": "b", "label": "good"}\n' * 10,
            "the label is 'good'; the judge's choices are fail, pass",
        ),
        ('{"question": "a", "answer": "b", "label": "pass"}\n' * 10, "judges all answers pass"),
        ('{"question": "a", "answer": "b", "label": "pass"}\n', "has 1 judged answers, which say nothing of a judge"),
        ('{"question": "a", "label": "pass"}\n', "labels.jsonl:1: no answer"),
    ],
)
def test_labels_that_say_nothing_are_refused(tmp_path, text, told):
    (tmp_path / "labels.jsonl").write_text(text)
    (tmp_path / "samples.jsonl").write_text("\n".join(row(f"What is {number}?", number) for number in range(20)))
    (tmp_path / "task.yaml").write_text(
        "schema: 1\nname: x\ndescription: d\nsamples: samples.jsonl\nmetric: judge\nmodel: tiny\n"
        "judge: {endpoint: {address: 'http://127.0.0.1:9/v1', model: m}, labels: labels.jsonl}\n"
        f"trainer: {sys.executable} x\n"
    )
    done = tune("new", "task.yaml", folder=tmp_path)
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr, done.stderr
