"""`python plot.py --runs`: the table of saved runs, in a new process where a user would see it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from warm_python import run_python

from storage import run_table
from storage.file_lock import FolderLock
from storage.run_table import list_runs, table_of_runs

ROOT = Path(__file__).resolve().parent.parent.parent


def make_run(artifacts: Path, run_id: str, model: str = "Alpha", **changes) -> Path:
    folder = artifacts / "models" / model / "runs" / run_id
    folder.mkdir(parents=True)
    content = {
        "schema_version": 1, "trainer": f"{model}Trainer", "run_id": run_id, "state": "finished",
        "best": {"epoch": 2, "val_loss": 0.123456789}, "summary": {"epochs": 3, "seconds": 83.4},
        "history": {"train_loss": [3, 2, 1]},
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(content | changes))
    (folder / "config.ini").write_text(f"[{model}Trainer]\nepochs = 40\nname =\n")
    return folder


def plot(*words) -> subprocess.CompletedProcess:
    return run_python([ROOT / "plot.py", *words], Path.cwd())


def state_of(folder: Path) -> str:
    (row,) = [row for row in list_runs(folder.parents[3])[0] if row.path == str(folder)]
    return row.state


def test_the_table_is_aligned_with_the_newest_run_last(tmp_path):
    make_run(tmp_path, "20260102-030405-10", best=None, state="interrupted")
    make_run(tmp_path, "20260102-030405-9", model="SimilarityRanker", summary={"epochs": 40, "seconds": 7651})
    make_run(tmp_path, "20251231-235959", summary={"epochs": 17, "seconds": 5}, state="early_stopped")
    done = plot("--runs", "--artifacts", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "trainer           run                 start             epochs  best val_loss  at     time  state",
        "Alpha             20251231-235959     2025-12-31 23:59   17/40       0.123457   2     0:05  early_stopped",
        "SimilarityRanker  20260102-030405-9   2026-01-02 03:04   40/40       0.123457   2  2:07:31  finished",
        "Alpha             20260102-030405-10  2026-01-02 03:04    3/40              -   -     1:23  interrupted",
    ]


def test_the_table_fits_110_columns_with_the_longest_name(tmp_path):
    best, summary = {"epoch": 99_999, "val_loss": 1.23456789e-15}, {"epochs": 99_999, "seconds": 360_000}
    run = make_run(tmp_path, "20260102-030405-10", model="A" * 80, best=best, summary=summary, state="early_stopped")
    (run / "config.ini").write_text("[A]\nepochs = 100000\n")
    lines = table_of_runs(list_runs(tmp_path)[0]).splitlines()
    assert max(map(len, lines)) <= 110
    assert "AAAA..  20260102-030405-10" in lines[1] and lines[1].endswith("early_stopped")


def test_runs_of_named_trainers(tmp_path):
    for model in ("Alpha", "Beta", "AlphaBeta"):
        make_run(tmp_path, "20260101-000000", model=model)
    for name in ("alphatrainer", "ALPHA"):
        lines = plot("--runs", name, "--artifacts", tmp_path).stdout.splitlines()
        assert [line.split()[0] for line in lines] == ["trainer", "Alpha"]
    done = plot("--runs", "Gamma", "--artifacts", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: no run of 'Gamma', nor one of that name" in done.stderr
    assert "There are runs of Alpha, AlphaBeta, Beta." in done.stderr
    assert "did you mean Alpha?" in plot("--runs", "Alhpa", "--artifacts", tmp_path).stderr


def test_json_is_the_same_table(tmp_path):
    folder = make_run(tmp_path, "20260101-000000", state="failed", error="NonFiniteError: the loss is NaN")
    make_run(tmp_path, "renamed", best={"epoch": 1, "val_loss": None}, summary={}, history={"train_loss": [1, 2]})
    first, second = json.loads(plot("--runs", "--json", "--artifacts", tmp_path).stdout)
    assert first == {
        "trainer": "AlphaTrainer", "run": "20260101-000000", "name": None, "note": None,
        "start": "2026-01-01T00:00:00", "epochs": 3, "planned_epochs": 40, "monitor": "val_loss", "monitor_mode": "min",
        "best_value": 0.123456789, "best_epoch": 2, "metrics": {}, "seconds": 83.4, "state": "failed",
        "error": "NonFiniteError: the loss is NaN", "path": str(folder),
        "kind": "run", "group": None, "members": [], "std": None,
    }  # fmt: skip
    assert (second["start"], second["epochs"], second["seconds"], second["best_value"]) == (None, 2, None, None)


def test_no_runs_is_told_with_where_and_how_to_start_one(tmp_path):
    done = plot("--runs", "--artifacts", tmp_path / "empty")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"There are no runs in {tmp_path / 'empty' / 'models'}. `python train.py NAME` starts one, "
        "`python train.py --list` shows the names; runs elsewhere: --artifacts DIR.\n"
    )
    assert plot("--runs", "--json", "--artifacts", tmp_path / "empty").stdout == "[]\n"


def test_damaged_and_foreign_folders_are_named_and_skipped(tmp_path):
    make_run(tmp_path, "20260101-000000")
    runs = tmp_path / "models/Alpha/runs"
    (runs / "notes").mkdir()
    (runs / "readme.txt").write_text("no folder")
    (runs / "20260101-000005/profile").mkdir(parents=True)  # of --profile: nothing was trained
    (make_run(tmp_path, "20260101-000001") / "metrics.json").write_text("{")
    make_run(tmp_path, "20260101-000002", schema_version=2)
    make_run(tmp_path, "20260101-000003", summary=[1])
    (make_run(tmp_path, "20260101-000004") / "config.ini").write_bytes(b"\xff\xfe")
    done = plot("--runs", "--artifacts", tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["run", "20260101-000000"]
    told = {line.split(": ")[0]: line for line in done.stderr.splitlines()}
    assert list(told) == [*(f"skipped Alpha 20260101-00000{number}" for number in (1, 2, 3, 4)), "skipped Alpha notes"]
    assert "has schema version 2, this program reads 1" in told["skipped Alpha 20260101-000002"]
    assert told["skipped Alpha notes"].endswith("neither metrics.json nor config.ini is in it.")


def test_a_run_that_says_running_runs_while_its_folder_is_locked(tmp_path):
    run = make_run(tmp_path, "20260101-000000", state="running")
    lock = FolderLock(run)
    assert lock.take()
    assert state_of(run) == "running"
    lock.release()
    assert state_of(run) == "killed"
    assert lock.take(), "looking leaves no lock behind"
    lock.release()


def test_a_resumed_run_is_running_before_it_says_so(tmp_path):
    run = make_run(tmp_path, "20260101-000000", state="interrupted")
    lock = FolderLock(run)
    assert lock.take()
    assert state_of(run) == "running"
    lock.release()
    assert state_of(run) == "interrupted"


@pytest.mark.parametrize("reason", ["no fcntl", "a file system without locks"])
def test_where_locks_tell_nothing_a_silent_run_is_doubted(tmp_path, monkeypatch, reason):
    if reason == "no fcntl":
        monkeypatch.setattr(run_table, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError("not supported")))
    run = make_run(tmp_path, "20260101-000000", state="running")
    assert state_of(run) == "running"
    for file in run.iterdir():
        os.utime(file, (0, 0))
    assert state_of(run) == "running?"
    assert state_of(make_run(tmp_path, "20260102-000000")) == "finished"


def test_neither_torch_nor_matplotlib_is_imported(tmp_path):
    make_run(tmp_path, "20260101-000000")
    code = (
        "import sys; from evaluation.plot_command import main; main(['--runs', '--artifacts', sys.argv[1]]);"
        "print({'torch', 'matplotlib', 'numpy', 'beautilog', 'pydantic', 'train'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--runs", "--out", "x"], "--runs draws nothing, so --out has no meaning with it"),
        (["--json", "latest"], "--json needs --runs"),
        ([], "RUN (or --runs, which lists them)"),
    ],
)
def test_what_does_not_go_together_is_told(words, text):
    done = plot(*words)
    assert done.returncode == 2 and text in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    make_run(tmp_path, "20260101-000000")
    ours, theirs = os.pipe()
    os.close(ours)
    words = [sys.executable, str(ROOT / "plot.py"), "--runs", "--artifacts", str(tmp_path)]
    done = subprocess.run(words, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")


def test_real_runs_from_their_first_step_to_their_end(project):
    killed = project.run("Resumable", "stop_at=3", "stop_signal=SIGKILL")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    stopped = project.run("Resumable", "stop_at=20", "stop_signal=SIGTERM")
    assert stopped.returncode == 143, stopped.stderr
    finished = project.run("Resumable", "epochs=2")
    assert finished.returncode == 0, finished.stderr
    done = project.run("--runs", script="plot.py")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [(row[0], row[4], row[-1]) for row in rows] == [
        ("Resumable", "0/4", "killed"), ("Resumable", "1/4", "interrupted"), ("Resumable", "2/2", "finished"),
    ]  # fmt: skip
    _killed, second, third = project.runs("Resumable")
    compared = project.run(second.name, third.name, "--out", "both.png", script="plot.py")
    assert compared.returncode == 0, compared.stderr
    lines = compared.stdout.splitlines()
    assert "  epochs   4 against 2" in lines
    assert "environment: the same" in lines
    assert '  train_loss is the same to all digits to epoch 1; stop_at="", epochs=2 goes on to epoch 2' in lines


def test_the_trials_of_a_sweep_are_one_line_with_the_best_of_them(tmp_path):
    history = {"val_accuracy": [0.5], "val_epoch": [1]}
    for number, value in enumerate((0.7, 0.9, 0.8), 1):
        best = {"epoch": 1, "metric": "val_accuracy", "value": value}
        more = {"monitor": "val_accuracy", "monitor_mode": "max", "history": history}
        make_run(tmp_path, f"2026010{number}-000000", best=best, **more)
    make_run(tmp_path, "20260109-000000")
    sweep = tmp_path / "sweeps/Alpha/widths"
    sweep.mkdir(parents=True)
    trials = [{"run": f"2026010{number}-000000"} for number in (1, 2, 3)] + [{"run": None}]
    (sweep / "trials.json").write_text(json.dumps({"trials": trials}))
    rows = json.loads(plot("--runs", "--json", "--artifacts", tmp_path).stdout)
    assert [(row["run"], row["kind"], row["best_value"], row["state"]) for row in rows] == [
        ("widths", "sweep", 0.9, "finished"), ("20260109-000000", "run", 0.123456789, "finished"),
    ]  # fmt: skip
    assert rows[0]["members"] == [f"2026010{number}-000000" for number in (1, 2, 3)] and rows[0]["seconds"] == 3 * 83.4
    rows = json.loads(plot("--runs", "--json", "--unfold", "widths", "--artifacts", tmp_path).stdout)
    assert [(row["group"], row["best_value"]) for row in rows] == [("widths", 0.7), ("widths", 0.9), ("widths", 0.8)]
    rows = json.loads(plot("--runs", "--json", "--unfold", "--best", "--artifacts", tmp_path).stdout)
    assert [row["best_value"] for row in rows] == [0.9, 0.8, 0.7, 0.123456789]
