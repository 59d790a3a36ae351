"""The examples of agents: that they run as they are; and, in slow tests, that they learn what docs/agents.md says."""

import json

import pytest

pytest.importorskip("transformers")
pytest.importorskip("openai")
pytest.importorskip("starlette")

from warm_python import run_python

TASKS = {
    "hello": {"number": 1024, "digit": 2},
    "guess_number": {"low": 1, "high": 32, "number": 7, "guesses": 5},
    "twenty_questions": {"thing": "old red cat", "questions": 20},
    "calculator_tool": {"expression": "7*8+5"},
}


@pytest.fixture(scope="module")
def lab(shared_project):
    for name, task in TASKS.items():
        (shared_project.path / f"{name}_tasks.jsonl").write_text(json.dumps(task) + "\n")
    return shared_project


def tasks_of(name: str) -> tuple[str, str]:
    return f"tasks={name}_tasks.jsonl", f"val_tasks={name}_tasks.jsonl"


@pytest.mark.parametrize("name", TASKS)
def test_an_example_runs(lab, name):
    """From random weights, which say nothing of use; and conversations for its warm start can be made and read."""
    done = lab.run(
        "Agent", f"agent=examples/{name}.py:{name}", *tasks_of(name), "epochs=1", "group_size=2", "max_tokens=3",
        "base_model=tiny", "plot_at_end=off", "sample_count=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    history = json.loads((lab.runs("Agent")[-1] / "metrics.json").read_text())["history"]
    assert history["train_turns"] == [5.0 if name == "guess_number" else 1.0] and history["train_failed"] == [0.0]
    assert history["train_success"] == [0.0]
    made = lab.run(name, "warm.jsonl", "5", script="examples/warm_start.py")
    assert made.returncode == 0, made.stderr
    rows = [json.loads(line)["messages"] for line in (lab.path / "warm.jsonl").read_text().splitlines()]
    assert len(rows) == 5 and all(row[0]["role"] == "user" and row[-1]["role"] == "assistant" for row in rows)


@pytest.mark.slow
def test_the_whole_of_an_example_is_one_command(lab):
    """Both trainings and the report, in their quick form."""
    done = lab.run("hello", "--quick", *tasks_of("hello"), "plot_at_end=off", script="examples/run.py")
    assert done.returncode == 0, done.stderr + done.stdout
    shown = [line for line in done.stdout.splitlines() if line.startswith("$ python ")]
    assert [line.split()[2] for line in shown] == ["examples/warm_start.py", "train.py", "train.py", "plot.py"]
    assert (lab.runs("Agent")[-1] / "report.html").is_file()
    wrong = lab.run("helo", script="examples/run.py")
    assert wrong.returncode == 2 and "invalid choice: 'helo' (choose from" in wrong.stderr


def learned(lab, name: str, *settings: str) -> dict:
    """Run the whole of an example; return what it says of before and after."""
    done = run_python([lab.path / "examples" / "run.py", name, *settings, "plot_at_end=off"], lab.path, timeout=3600)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads((lab.runs("Agent")[-1] / "metrics.json").read_text())["summary"]


@pytest.mark.slow
def test_hello_1024_is_learned(lab):
    """The warm start knows of each digit its word, and says it as it should 2 times of 100."""
    found = learned(lab, "hello")
    assert found["before"]["reward"] <= 0.1 and found["after"]["reward"] >= 0.95
    assert found["change"]["reward"]["tasks"] == 100 and found["change"]["reward"]["low"] > 0.8


@pytest.mark.slow
def test_guesses_come_near_to_halving(lab):
    """Beginning with random ones; all 32 numbers are played. Halving takes 135 guesses for them."""
    found = learned(lab, "guess_number")
    assert found["change"]["reward"]["tasks"] == 32 and found["change"]["reward"]["low"] > 0
    assert found["before"]["guesses"] > 5.5 and found["after"]["guesses"] <= 1.25 * 135 / 32


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tasks"), [("twenty_questions", 16), ("calculator_tool", 100)])
def test_success_at_least_doubles(lab, name, tasks):
    """On things and expressions that were never trained on."""
    found = learned(lab, name)
    assert found["change"]["success"]["tasks"] == tasks and found["change"]["success"]["low"] > 0
    assert found["after"]["success"] >= 2 * found["before"]["success"]
