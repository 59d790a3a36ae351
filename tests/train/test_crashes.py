"""A process that is killed anywhere leaves a run that goes on: at every system call of a save, and in whole runs."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from system_calls import Death, between_calls
from test_interruptions import assert_same_run

from storage.checkpoint_store import Checkpoint, CheckpointStore
from storage.file_lock import FolderLock
from storage.files import remove_temporaries, write_atomically

TESTS = Path(__file__).resolve().parent.parent
FILES = {"weights.safetensors", "state.safetensors", "state.json", "manifest.json"}


@pytest.fixture
def no_disk(monkeypatch) -> None:
    """A killed process loses nothing that the system has; waiting for the disk a thousand times takes a minute."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def content(value: float) -> Checkpoint:
    weights = {"w": torch.full((40,), float(value)), "count": torch.tensor(value)}
    return Checkpoint(weights, {"value": value, "optimizer": {"m": torch.arange(30.0) * value}})


def values(store: CheckpointStore) -> float | None:
    """Return which content the newest whole checkpoint has, all of it."""
    found = store.load_newest()
    if found is None:
        return None
    value = found[0].state["value"]
    expected = content(value)
    assert all(torch.equal(found[0].weights[name], tensor) for name, tensor in expected.weights.items())
    assert torch.equal(found[0].state["optimizer"]["m"], expected.state["optimizer"]["m"])
    return value


def left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


def in_child(action: Callable[[], None], *death) -> tuple[int, int, int]:
    """Do something in a forked child that dies at a system call; returns its exit code and the calls it counted."""
    reading, writing = os.pipe()
    tell = os.write
    child = os.fork()
    if child == 0:
        code = 70
        try:
            dying = Death(*death)
            with between_calls(dying):
                action()
            tell(writing, f"{dying.calls} {dying.writes}".encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with os.fdopen(reading) as stream:
        calls, writes = (stream.read() or "0 0").split()
    return code, int(calls), int(writes)


def after_each_death(action: Callable[[Path], None], template: Path, scratch: Path) -> Iterator[tuple[Path, str]]:
    """Yield a copy of a folder for each way to die of an action in it: before each system call, after the last one, in
    the middle of each write."""
    whole = shutil.copytree(template, scratch / "whole")
    code, calls, writes = in_child(lambda: action(whole))
    assert code == 0 and calls > 0
    every = [(number, "before") for number in range(1, calls + 1)] + [(calls, "after")]
    for number, death in enumerate(every + [(number, "half") for number in range(1, writes + 1)]):
        folder = shutil.copytree(template, scratch / str(number))
        assert in_child(lambda folder=folder: action(folder), *death)[0] == -signal.SIGKILL, death
        yield folder, f"{death[1]} call {death[0]}"
        shutil.rmtree(folder)


# What is there before; then epoch, content and best epoch of the save that is killed.
SAVES = {
    "the first one": ({}, (1, 1.5, None)),
    "a new one": ({1: 1}, (2, 2, 1)),
    "a new one, and three older ones go": ({1: 1, 2: 2, 3: 3, 4: 4}, (5, 5, 3)),
    "one in place of another": ({1: 1, 2: 2}, (2, 2.5, 1)),
    "in place of the only one": ({1: 1}, (1, 1.5, 1)),
}


@pytest.mark.parametrize("case", SAVES)
def test_a_save_that_is_killed_at_any_system_call_loses_nothing(case, tmp_path, no_disk):
    there, (epoch, value, best) = SAVES[case]
    template = tmp_path / "template"
    template.mkdir()
    for number in there:
        CheckpointStore(template, keep_last=9).save(number, content(there[number]), None)
    before = values(CheckpointStore(template, 1))
    saved = content(value)
    seen = []
    scratch = tmp_path / "scratch"
    for folder, death in after_each_death(
        lambda folder: CheckpointStore(folder, 1).save(epoch, saved, best), template, scratch
    ):
        store = CheckpointStore(folder, 1)
        store.tidy()
        assert left_over(folder) == [], death
        assert all({file.name for file in path.iterdir()} == FILES for path in folder.iterdir()), death
        seen.append(values(store))
        if case == "in place of the only one":  # and a run that goes on can save
            store.save(6, content(6), None)
            assert values(store) == 6 and len(list(folder.iterdir())) == 1, death
    assert set(seen) == {before, value}
    assert len(seen) > 35
    first = seen.index(value)
    deaths_in_order = seen[: len(seen) - 4]  # the last four are in the middle of a write: all before the rename
    assert set(deaths_in_order[:first]) == {before} and set(deaths_in_order[first:]) == {value}
    assert set(seen[-4:]) == {before}


@pytest.mark.parametrize("came", [True, False])
def test_a_tidying_that_is_killed_is_done_again(came, tmp_path, no_disk):
    template = tmp_path / "template"
    store = CheckpointStore(template, 9)
    for number in (1, 2, 3):
        store.save(number, content(number), None)
    os.replace(template / "epoch-00003", template / ".epoch-00003.replaced")
    os.replace(template / "epoch-00002", template / ".epoch-00003.tmp")
    if came:
        os.replace(template / ".epoch-00003.tmp", template / "epoch-00003")
    for folder, death in after_each_death(
        lambda folder: CheckpointStore(folder, 9).tidy(), template, tmp_path / "scratch"
    ):
        again = CheckpointStore(folder, 9)
        again.tidy()
        assert left_over(folder) == [], death
        assert values(again) == (2 if came else 3), death


def test_one_that_was_put_in_place_and_is_damaged_gives_way_to_what_it_replaced(tmp_path):
    """Killed after the rename and before it was read back."""
    store = CheckpointStore(tmp_path, 9)
    store.save(1, content(1), None)
    shutil.copytree(tmp_path / "epoch-00001", tmp_path / ".epoch-00001.replaced")
    with (tmp_path / "epoch-00001" / "state.json").open("ab") as stream:
        stream.write(b" ")
    store.tidy()
    assert values(store) == 1 and left_over(tmp_path) == []


def test_a_file_that_is_written_atomically_is_the_old_or_the_new_one(tmp_path):
    template = tmp_path / "template"
    template.mkdir()
    (template / "file").write_bytes(b"old")
    seen = []
    for folder, death in after_each_death(
        lambda folder: write_atomically(folder / "file", b"new and longer"), template, tmp_path / "scratch"
    ):
        seen.append((folder / "file").read_bytes())
        remove_temporaries(folder)
        assert [path.name for path in folder.iterdir()] == ["file"], death
    assert set(seen) == {b"old", b"new and longer"}


def test_checkpoints_sort_by_number_and_strangers_are_left_alone(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=1)
    (tmp_path / "epoch-00001 (copy)").mkdir(parents=True)
    store.save(99_999, content(1), None)
    store.save(100_000, content(2), None)
    assert values(store) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-00001 (copy)", "epoch-100000"]
    store.save(100_000, content(3), None, inside="step-99999999")
    store.save(100_000, content(4), None, inside="step-100000000")
    assert values(store) == 4
    store.save(100_000, content(5), None, inside="validation")
    assert values(store) == 5


# -------------------------------------------------------------------------------------------------- the command line

# Runs train.py, and dies in the middle of a write of a checkpoint: the WRITE-th of that of epoch EPOCH.
DYING = f"""
import os, sys
sys.path.insert(0, {str(TESTS)!r})
from system_calls import Death, between_calls
from storage.checkpoint_store import CheckpointStore
from commands.command_line import main

epoch, write = int(os.environ["EPOCH"]), int(os.environ["WRITE"])
save = CheckpointStore.save

def save_and_die(store, number, *rest, **options):
    with between_calls(Death(write if number == epoch else 0, "half")):
        return save(store, number, *rest, **options)

CheckpointStore.save = save_and_die
sys.exit(main())
"""

# Runs train.py. In its first batch it starts a second process for the same run; then it stops its loader's workers, so
# that they outlive it, and dies.
LOCKED = """
import multiprocessing, os, signal, subprocess, sys
from pathlib import Path
from commands.command_line import main
from train.steps.eager import EagerStep

def step(self, step_input):
    words = [sys.executable, "train.py", "Resumable", "num_workers=2", "--resume"]
    second = subprocess.run(words, capture_output=True, text=True)
    workers = [worker.pid for worker in multiprocessing.active_children()]
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    Path("told.txt").write_text("\\n".join([str(second.returncode), " ".join(map(str, workers)), second.stderr]))
    os.kill(os.getpid(), signal.SIGKILL)

EagerStep.step = step
sys.exit(main())
"""


@pytest.fixture(scope="module")
def whole(shared_project) -> Path:
    """A run that nobody kills, started by `--resume auto` where there is no run."""
    done = shared_project.run("Resumable", "--resume", "auto")
    assert done.returncode == 0, done.stderr
    assert "resumed" not in done.stdout
    (run,) = shared_project.runs("Resumable")
    return run


@pytest.mark.parametrize(
    ("epoch", "write", "resume", "told"),
    [
        (3, 2, ["--resume"], "after epoch 2 from"),
        (1, 1, ["--resume", "auto"], "has no checkpoint yet; it begins anew"),
    ],
)
def test_a_run_that_is_killed_in_a_save_goes_on_to_the_same_bits(epoch, write, resume, told, shared_project, whole):
    (shared_project.path / "dying.py").write_text(DYING)
    known = shared_project.runs("Resumable")
    killed = shared_project.run("Resumable", script="dying.py", EPOCH=str(epoch), WRITE=str(write))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (part,) = set(shared_project.runs("Resumable")) - set(known)
    assert left_over(part) == [f".epoch-{epoch:05d}.tmp"]
    done = shared_project.run("Resumable", *resume)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
    assert len(shared_project.runs("Resumable")) == len(known) + 1, "in the same folder"
    assert left_over(part.parent.parent) == []
    assert_same_run(part, whole)


def test_a_run_is_trained_by_one_process_at_a_time_and_is_free_when_that_is_killed(project):
    (project.path / "locked.py").write_text(LOCKED)
    words = [sys.executable, "locked.py", "Resumable", "num_workers=2"]
    # Workers inherit the process's output, so nobody must wait for the end of that.
    with (project.path / "output.txt").open("w") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(words, cwd=project.path, stdout=output, stderr=output, env=environment).returncode
    (run,) = project.runs("Resumable")
    second, workers, *errors = (project.path / "told.txt").read_text().splitlines()
    workers = [int(worker) for worker in workers.split()]
    try:
        assert code == -signal.SIGKILL, (project.path / "output.txt").read_text()
        assert second == "2"
        assert errors == [
            f"error: run {run.name} is being trained by another process. Wait for its end, or stop it; "
            "without --resume a new run starts."
        ]
        assert len(workers) == 2
        for worker in workers:
            os.kill(worker, 0)  # still there
        lock = FolderLock(run)
        assert lock.take()
        other = FolderLock(run)
        assert not other.take()
        lock.release()
        assert other.take()
        other.release()
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)


def test_a_forked_child_lets_go_of_the_lock_and_of_nothing_else(tmp_path):
    lock = FolderLock(tmp_path)
    assert lock.take()

    def check() -> None:
        reused = os.open(tmp_path, os.O_RDONLY)  # gets the number of the handle that the child has closed
        lock.release()
        os.fstat(reused)

    assert in_child(check)[0] == 0
    assert not FolderLock(tmp_path).take(), "the parent has it still"
    lock.release()
