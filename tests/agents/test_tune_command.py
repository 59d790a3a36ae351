"""Tuning through its command line: a trainer that learns by heart stands for a model, so that a run takes seconds."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tuning_tasks import ROOT, make_task, tune

pytest.importorskip("langgraph")
from langgraph.checkpoint.sqlite import SqliteSaver

from agents.driver import Driver
from agents.events import Events
from agents.task.folder import TaskFolder
from storage.file_lock import FolderLock


@pytest.fixture
def tuned(tmp_path):
    return make_task(tmp_path)


def status(folder: Path) -> dict:
    return json.loads(tune("status", "--json", folder=folder).stdout)


def outcome(folder: Path) -> dict:
    """What a run has come to, without times and the names of commits."""
    state = status(folder)["state"]
    rounds = [{key: value for key, value in each.items() if key != "commit"} for each in state["rounds"]]
    model = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
             for path in sorted((folder / "model").iterdir()) if path.name != "README.md"}  # fmt: skip
    titles = subprocess.run(["git", "log", "--format=%s"], cwd=folder, capture_output=True, text=True, check=True)
    trained = {path.parent.name: path.read_text() for path in sorted(folder.glob(".tune/runs/*/trained.log"))}
    asked = [(one["question"], one["values"], one["by"]) for one in state["answers"]]
    return {"rounds": rounds, "model": model, "commits": titles.stdout, "trained": trained, "asked": asked,
            "stop": state["stop"], "best": state["best"]}  # fmt: skip


def test_a_run_by_rules_ends_with_a_better_model_and_its_story(tuned):
    done = tune("run", "--yes", folder=tuned)
    assert done.returncode == 0, done.stderr
    found = outcome(tuned)
    # .05 of an answer an epoch is too little in four epochs; the debugger doubles them as long as the loss still falls.
    assert [each["settings"]["epochs"] for each in found["rounds"]] == ["4", "8", "16"]
    assert [each["kept"] for each in found["rounds"]] == [True, True, True]
    assert found["rounds"][0]["gain"]["verdict"] == "better" and found["best"] == 3
    assert found["stop"] == "the budget of 3 rounds is used"
    assert found["commits"].splitlines() == [
        "underfitting: epochs: 8 -> 16", "underfitting: epochs: 4 -> 8",
        "colours: 12 rows to train on, 12 to measure with",
    ]  # fmt: skip
    # Each epoch is trained once, the half-way question between.
    assert found["trained"]["main-2"] == "".join(f"{epoch}\n" for epoch in range(1, 9))
    card = (tuned / "model" / "README.md").read_text()
    assert "Say what colour a thing is." in card and "Round 3" in card and "The best is round 3." in card
    told = tune("log", folder=tuned).stdout
    assert "questions:" in told and "decision = train (by rule)" in told
    again = tune("run", "--yes", folder=tuned)
    assert again.returncode == 0 and outcome(tuned) == found


def test_questions_wait_and_are_answered_once(tuned):
    with (tuned / "task.yaml").open("a") as task:
        task.write("max_tokens: 8\n")  # the answers have ten
    waits = tune("run", folder=tuned)
    assert waits.returncode == 1 and "? Round 1: train on 12 rows?" in waits.stdout
    assert "decision:" in waits.stdout and "train: train now (default)" in waits.stdout
    assert status(tuned)["question"]["kind"] == "training"
    for words, told in ((["."], "decision may be train, finish"), (["decison=train"], "; its form has decision;"),
                        (["train"], "train is no NAME=VALUE, such as decision=train")):  # fmt: skip
        unclear = tune("answer", *words, folder=tuned)
        assert unclear.returncode == 2 and told in unclear.stderr, unclear.stderr
    wrong = tune("answer", ".", "decision=trian", folder=tuned)
    assert wrong.returncode == 2 and "did you mean train?" in wrong.stderr
    assert tune("answer", ".", "decision=train", folder=tuned).returncode == 0
    twice = tune("answer", ".", "decision=finish", folder=tuned)
    assert twice.returncode == 2 and "has been answered already" in twice.stderr
    # At half way a person stops the training; what there is is measured, and dropped.
    half_way = tune("run", folder=tuned).stdout
    assert "? 2 of 4 epochs are done. Go on?" in half_way
    assert "the answers to learn from have 10 tokens in the mean, and max_tokens = 8 cuts off" in half_way
    assert tune("answer", ".", "decision=stop_here", folder=tuned).returncode == 0
    assert "is better than the base model" in tune("run", folder=tuned).stdout
    tune("answer", ".", "decision=drop", folder=tuned)
    assert "? Underfitting: change the settings?" in tune("run", folder=tuned).stdout
    tune("answer", ".", "decision=refuse", folder=tuned)
    over = tune("run", folder=tuned)
    assert over.returncode == 0 and "No round was better than the base model; nothing was exported." in over.stdout
    state = status(tuned)["state"]
    assert state["rounds"][0]["trained"]["epochs"] == 2 and state["rejected"] == ["underfitting"]
    assert not (tuned / "model").exists()
    nothing = tune("answer", ".", "decision=train", folder=tuned)
    assert nothing.returncode == 2 and "nothing is asked" in nothing.stderr


def test_a_training_that_fails_is_told_and_nothing_is_lost(tuned):
    ini = tuned / "training.ini"
    ini.write_text(ini.read_text() + "fails = the loss is not finite at step 3\n")
    done = tune("run", "--yes", folder=tuned)
    state = status(tuned)["state"]
    assert state["rounds"][0]["trained"]["error"] == "the loss is not finite at step 3"
    assert state["rounds"][0]["measured"] is None and done.returncode == 0
    assert "failed: the loss is not finite at step 3" in done.stdout
    assert state["rounds"][1]["settings"]["learning_rate"] == "0.005"


def test_test_rows_that_change_are_refused(tuned):
    tune("run", folder=tuned)
    path = tuned / "data" / "test.jsonl"
    (tuned / "data" / "train.jsonl").rename(tuned / "train.jsonl")
    gone = tune("run", "--yes", folder=tuned)
    assert gone.returncode == 2 and "train.jsonl is gone: `git checkout data/train.jsonl` in" in gone.stderr
    (tuned / "train.jsonl").rename(tuned / "data" / "train.jsonl")
    path.write_text(path.read_text().replace("green", "blue"))
    done = tune("run", "--yes", folder=tuned)
    assert done.returncode == 3 and "has changed since the run began" in done.stderr and "Traceback" not in done.stderr
    subprocess.run(["git", "checkout", "--quiet", "data/test.jsonl"], cwd=tuned, check=True)
    # Nor may the measure change: it is told before anything is trained that could not be compared.
    task = tuned / "task.yaml"
    text = task.read_text()
    other = text.replace("metric: f1", "metric: chrf")
    for changed, told in (
        (other, "metric of task.yaml has changed from f1 to chrf"),
        (f"{text}max_tokens: 7\n", "max_tokens of task.yaml has changed from 128 to 7"),
    ):
        task.write_text(changed)
        done = tune("run", "--yes", folder=tuned)
        assert done.returncode == 3 and told in done.stderr and not list(tuned.glob(".tune/runs/*"))
    task.write_text(text)
    assert tune("run", "--yes", folder=tuned).returncode == 0


def test_mistakes_in_a_task_are_told_all_at_once(tmp_path):
    (tmp_path / "task.yaml").write_text(
        "schema: 2\nname: My Task\nsamples: nothing.jsonl\nmetirc: chrf\nmetric: chrff\nbudget: {rounds: 0}\n"
    )
    done = tune("new", "task.yaml", folder=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for line, text in ((1, "schema is 2; this program reads 1"), (2, "name is 'My Task'"), (3, "is not there"),
                       (4, "did you mean metric?"), (5, "did you mean chrf?"), (6, "rounds is 0")):  # fmt: skip
        assert any(f"task.yaml:{line}:" in each and text in each for each in done.stderr.splitlines()), (line, text)
    assert "lacks the key description" in done.stderr
    assert not (tmp_path / "My Task").exists()


def test_what_no_training_can_do_is_refused_when_the_folder_is_made(tmp_path):
    """A base model that there is none of, a goal beyond the best, settings that no trainer has."""
    row = {"completion": "yes", "meta": {"digits": 1}}
    rows = [json.dumps({"prompt": f"Is {one} odd?", **row}) for one in range(9)]
    (tmp_path / "samples.jsonl").write_text("\n".join(rows))
    head = "schema: 1\nname: odd\ndescription: d\nsamples: samples.jsonl\nmetric: exact_match\n"
    head += "test_share: 0.5\nbudget: {minutes: 1e2}\n"
    task = tmp_path / "task.yaml"
    for line, told in (
        ("model: tinny", "task.yaml:8: model is 'tinny'; there are smollm2, tiny, a folder, a GGUF file"),
        ("model: ./gone", "task.yaml:8: model is ./gone, which is not there"),
        ("goal: 90", "task.yaml: goal is 90, and the best exact_match there is is 1"),
        ("training: {epoch: 5}", "task.yaml: training: unknown key 'epoch'; did you mean 'epochs'?"),
    ):
        task.write_text(f"{head}{line}\n")
        done = tune("new", "task.yaml", folder=tmp_path)
        assert done.returncode == 2 and told in done.stderr, done.stderr
    # The folder of the task's file is no task's folder, whatever is called there.
    (tmp_path / "base").mkdir()
    task.write_text(f"{head}model: base\n")
    early = tune("run", folder=tmp_path)
    assert (
        early.returncode == 2 and f"`tune.py new {task}` makes it" in early.stderr and not (tmp_path / ".tune").exists()
    )
    done = tune("new", "task.yaml", folder=tmp_path)
    assert done.returncode == 0 and "told apart by digits" in done.stdout
    assert "format prompt_completion (a prompt is a question, its completion the answer)" in done.stdout
    assert f'model: "{tmp_path / "base"}"' in (tmp_path / "odd" / "task.yaml").read_text()


def test_a_run_that_is_killed_ends_the_same(tuned, tmp_path):
    """A real process each time, killed once it has worked for so many seconds of the processor."""
    whole = tmp_path / "whole"
    subprocess.run(["cp", "-r", str(tuned), str(whole)], check=True)
    assert tune("run", "--yes", folder=whole).returncode == 0
    for kill_at in ("train_first", "ask_evaluation", "apply_change"):
        killed_at(tuned, kill_at)
    assert tune("run", "--yes", folder=tuned).returncode == 0
    assert outcome(tuned) == outcome(whole)


def killed_at(folder: Path, node: str) -> None:
    """Run a task, and kill it and its trainer as soon as a node begins."""
    events = Events(folder / ".tune" / "events.jsonl")
    begin = events.size
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tune.py"), "run", "--yes"], cwd=folder, stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while process.poll() is None:
        text = events_text(folder)[begin:]
        if f'"node": "{node}"' in text:
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL, node


def events_text(folder: Path) -> str:
    path = folder / ".tune" / "events.jsonl"
    return path.read_text() if path.exists() else ""


@pytest.mark.slow
def test_sixty_kills_change_nothing(tuned, tmp_path):
    """Of the run or of its trainer alone, at random instants of several runs."""
    ini, kills = tuned / "training.ini", 0
    ini.write_text(ini.read_text() + "epoch_seconds = 0.1\n")  # so that trainings are hit too
    whole = tmp_path / "whole"
    subprocess.run(["cp", "-r", str(tuned), str(whole)], check=True)
    assert tune("run", "--yes", folder=whole).returncode == 0
    wanted, seed = outcome(whole), 0
    while kills < 60:
        folder = tmp_path / str(seed)
        subprocess.run(["cp", "-r", str(tuned), str(folder)], check=True)
        words = [sys.executable, str(ROOT / "tests" / "killed_tuning.py"), str(folder), str(60 - kills), str(seed)]
        found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        assert found["code"] == 0 and found["killed"], found
        assert outcome(folder) == wanted, found
        kills, seed = kills + sum(found["killed"].values()), seed + 1


def test_a_run_that_is_killed_between_a_node_and_its_checkpoint_is_not_over(tuned, monkeypatch):
    """Before its first node too: what is next is known there, and nothing else."""
    driver, saved = Driver(TaskFolder(tuned), lambda node, text: None), SqliteSaver.put

    def killed_at_once(saver, config, checkpoint, metadata, versions):
        if metadata["source"] != "input":
            raise OSError("killed")
        return saved(saver, config, checkpoint, metadata, versions)

    def killed_later(saver, config, checkpoint, *rest):
        if "branch:to:debug" in checkpoint["channel_values"]:
            raise OSError("killed")
        return saved(saver, config, checkpoint, *rest)

    for killed in (killed_at_once, killed_later):
        with monkeypatch.context() as patched:
            patched.setattr(SqliteSaver, "put", killed)
            if killed is killed_at_once:
                patched.setattr(SqliteSaver, "put_writes", lambda *given: None)
            with pytest.raises(OSError, match="killed"):
                driver.run(lambda question: None, by_rule=True)
    assert driver.standing().node  # `status` says that it goes on
    over = driver.run(lambda question: None, by_rule=True)
    assert not over.node and over.state["stop"] == "the budget of 3 rounds is used" and over.state["best"] == 3
    assert (tuned / "model" / "memory.json").exists()


def test_what_holds_a_task_for_a_moment_is_waited_for(tuned, monkeypatch):
    """Such as a process that was being begun when the one before it was killed; who runs the task is not waited for."""
    (tuned / ".tune").mkdir(exist_ok=True)
    taken, refusals = FolderLock.take, iter([False, False])
    driver = Driver(TaskFolder(tuned), lambda node, text: None)
    with monkeypatch.context() as patched:
        patched.setattr(FolderLock, "take", lambda lock: next(refusals, None) is None and taken(lock))
        assert driver.run(lambda question: None, by_rule=False).question is not None
    other = FolderLock(tuned / ".tune")
    assert other.take()
    refused = tune("run", folder=tuned)
    assert refused.returncode == 3 and "is being run by another process" in refused.stderr
    other.release()


def test_the_lock_of_a_git_that_was_killed_is_taken_away(tuned):
    assert tune("run", folder=tuned).returncode == 1
    (tuned / ".git" / "index.lock").write_text("")
    done = tune("run", "--yes", folder=tuned)
    assert done.returncode == 0 and status(tuned)["state"]["best"] == 3, done.stderr


def test_a_command_that_trains_nothing_does_not_wait_for_torch():
    code = "import sys, agents.commands; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
