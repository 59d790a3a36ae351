"""Threads of a run: a fork begins where another was, shares what was done before, and leaves it as it is."""

import json
import subprocess
from pathlib import Path

import pytest
from tuning_tasks import make_task, tune

pytest.importorskip("langgraph")

from agents.commands import main


def status(folder: Path, thread: str = "main") -> dict:
    return json.loads(tune("status", "--json", "--thread", thread, folder=folder).stdout)


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_a_fork_decides_otherwise_and_the_old_thread_stays_whole(tmp_path):
    folder = make_task(tmp_path)
    assert tune("run", "--yes", folder=folder).returncode == 0
    before, settings = status(folder), (folder / "training.ini").read_text()
    effects = {path.name: path.stat().st_mtime_ns for path in (folder / ".tune" / "effects").glob("*/result.json")}
    # Round 2 was trained with 8 epochs. A fork at its beginning has round 1, and the commit that led to round 2.
    made = tune("fork", ".", "round-2", "short", folder=folder)
    assert made.returncode == 0 and "short begins at step" in made.stdout, made.stderr
    assert "? Round 2: train on 12 rows?" in tune("run", ".", "--thread", "short", folder=folder).stdout
    forked = status(folder, "short")
    assert forked["question"]["id"].startswith("short-") and forked["question"]["kind"] == "training"
    assert [each["settings"]["epochs"] for each in forked["state"]["rounds"]] == ["4"]
    assert forked["threads"] == ["main", "short"]
    tune("answer", ".", "decision=finish", "--thread", "short", folder=folder)
    done = tune("run", ".", "--yes", "--thread", "short", folder=folder)
    assert done.returncode == 0, done.stderr
    state = status(folder, "short")["state"]
    assert state["stop"] == "a person has ended it before a training" and state["best"] == 1
    assert git(folder, "rev-parse", "--abbrev-ref", "HEAD") == "tune/short"
    assert "epochs = 8" in (folder / "training.ini").read_text()
    # The model of round 1 is the fork's; that of round 3 is still the first thread's.
    assert len(json.loads((folder / "model-short" / "memory.json").read_text())) == 12
    assert (folder / "model-short" / "memory.json").read_text() != (folder / "model" / "memory.json").read_text()
    assert status(folder) == {**before, "threads": ["main", "short"]}
    assert (
        effects.items()
        <= {path.name: path.stat().st_mtime_ns for path in (folder / ".tune" / "effects").glob("*/result.json")}.items()
    )
    again = tune("run", "--yes", folder=folder)  # brings the files of its thread back, and has nothing to do
    assert again.returncode == 0 and (folder / "training.ini").read_text() == settings
    assert git(folder, "rev-parse", "--abbrev-ref", "HEAD") == "main"


@pytest.mark.slow
def test_a_fork_at_a_change_that_is_refused_trains_by_the_old_settings(tmp_path):
    folder = make_task(tmp_path)
    tune("run", "--yes", folder=folder)
    change = next(one["question"] for one in status(folder)["state"]["answers"] if one["question"].endswith("change"))
    assert "fork-1 begins at step" in tune("fork", change, folder=folder).stdout
    assert git(folder, "log", "-1", "--format=%s", "tune/fork-1").startswith("colours: 12 rows")
    (folder / "training.ini").write_text((folder / "training.ini").read_text() + "# mine\n")
    refused = tune("run", ".", "--thread", "fork-1", folder=folder)
    assert refused.returncode == 2 and "training.ini" in refused.stderr and "git checkout ." in refused.stderr
    git(folder, "checkout", "--quiet", ".")
    assert "change the settings?" in tune("run", ".", "--thread", "fork-1", folder=folder).stdout
    tune("answer", ".", "decision=refuse", "--thread", "fork-1", folder=folder)
    assert tune("run", ".", "--yes", "--thread", "fork-1", folder=folder).returncode == 0
    state = status(folder, "fork-1")["state"]
    assert state["rejected"] == ["underfitting"] and len(state["rounds"]) == 1
    assert "epochs = 4" in (folder / "training.ini").read_text()
    # A fork of a fork.
    step = str(int(change.split("-")[1]))
    assert tune("fork", ".", step, "again", "--thread", "fork-1", folder=folder).returncode == 0
    assert status(folder, "again")["state"]["rejected"] == []
    assert "threads: main, fork-1, again; this is main" in tune("status", folder=folder).stdout


def test_what_cannot_be_forked_is_told_with_what_can(tmp_path, capsys):
    folder = make_task(tmp_path)
    assert "not begun yet" in tune("fork", folder=folder).stdout
    early = tune("fork", ".", "1", folder=folder)
    assert early.returncode == 2 and "has not begun" in early.stderr
    tune("run", folder=folder)
    listed = tune("fork", folder=folder)
    assert listed.returncode == 0 and "0: baseline" in listed.stdout and "1: ask training" in listed.stdout
    for words, told in (
        (("99",), "main has no step 99"),
        (("round-2",), "main has not begun round 2; it has begun round 1"),
        (("half",), "a step's number, `round-2`, or the id of a question"),
        (("1", "Main"), "is no name of a thread"),
        (("1", "main"), "there is a thread main already"),
        (("1", "--thread", "mian"), "there is no thread mian; did you mean main?"),
    ):
        code = main(["fork", str(folder), *words])  # in one process: there are many
        said = capsys.readouterr().err
        assert code == 2 and told in said, (words, said)
    assert status(folder)["threads"] == ["main"]


def test_a_task_may_be_json(tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{n}?", "completion": f"n {n}"}) + "\n" for n in range(6))
    )
    task = {"schema": 1, "name": "numbers", "description": "Say a number \U0001f600: it's", "samples": "rows.jsonl",
            "test_share": 0.5, "model": "tiny", "training": {"epochs": 2, "merge": True}}  # fmt: skip
    (tmp_path / "task.json").write_text(json.dumps(task, indent="\t"))
    done = tune("new", "task.json", folder=tmp_path)
    assert done.returncode == 0 and "3 rows to train on, 3 to measure with" in done.stdout, done.stderr
    ini = (tmp_path / "numbers" / "training.ini").read_text()
    assert "base_model = tiny" in ini and "merge = on" in ini
    assert task["description"] in (tmp_path / "numbers" / "task.yaml").read_text()
    (tmp_path / "task.json").write_text(json.dumps({**task, "metirc": "chrf"}, indent="\t"))
    wrong = tune("new", "task.json", "other", folder=tmp_path)
    assert wrong.returncode == 2 and "did you mean metric?" in wrong.stderr and "task.json:1" in wrong.stderr
