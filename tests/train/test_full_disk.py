"""Files that can't be written: the message names them, what was saved before is whole, and the run ends or goes on."""

import errno
import json
import os
import re
import threading
from pathlib import Path

import pytest
import torch
from system_calls import FullDisk, Refusal, between_calls
from test_interruptions import assert_same_run

from storage.checkpoint_store import Checkpoint, CheckpointStore
from storage.errors import OutputError
from storage.files import write_atomically
from train.checkpointing.saver import CheckpointSource, Saver, _Waiting
from train.loop.record import RunRecord

TESTS = Path(__file__).resolve().parent.parent


@pytest.fixture
def no_disk(monkeypatch) -> None:
    """Nobody cuts the power in these tests, and waiting for the disk hundreds of times takes long."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def content(value: float) -> Checkpoint:
    return Checkpoint({"w": torch.full((60,), float(value))}, {"value": value, "m": torch.arange(30.0) * value})


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ----------------------------------------------------------------------------------------------------- single files


@pytest.mark.parametrize("epoch", [2, 1], ids=["a new one", "one in place of another"])
def test_a_disk_that_is_full_after_any_number_of_bytes(epoch, tmp_path, no_disk):
    store = CheckpointStore(tmp_path / "checkpoints", keep_last=1)
    store.save(1, content(1), None)
    before = all_files(tmp_path)
    measure = FullDisk(10**9)
    with between_calls(measure):
        CheckpointStore(tmp_path / "measured", 1).save(epoch, content(2), 1)
    whole = 10**9 - measure.room
    assert whole > 900
    for number in range(200):
        room = number * (whole - 1) // 199
        with between_calls(FullDisk(room)), pytest.raises(OutputError) as caught:
            store.save(epoch, content(2), 1)
        message = str(caught.value)
        path = store.folder / f"epoch-0000{epoch}"
        assert message.startswith(f"cannot write {path}: No space left on device (")
        assert " bytes free on that file system)" in message
        assert "Free some space or set artifacts_dir to another disk; what was saved before is intact." in message
        assert {name: data for name, data in all_files(tmp_path).items() if not name.startswith("measured")} == before
        assert not list(store.folder.glob(".*")), "no temporary"
    with between_calls(FullDisk(whole)):
        store.save(epoch, content(2), None)
    assert store.load_newest()[0].state["value"] == 2
    assert [path.name for path in store.folder.iterdir()] == [f"epoch-0000{epoch}"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
@pytest.mark.parametrize(
    ("call", "part", "epoch"),
    [
        ("mkdir", ".epoch-00002.tmp", 2),
        ("open", "weights.safetensors", 2),
        ("open", "manifest.json", 2),
        ("replace", ".epoch-00002.tmp", 2),
        ("replace", "/epoch-00001", 1),
        ("replace", ".epoch-00001.tmp", 1),
    ],
)
def test_a_save_that_is_refused_leaves_the_older_one(call, part, epoch, number, tmp_path):
    store = CheckpointStore(tmp_path, keep_last=1)
    store.save(1, content(1), None)
    before = all_files(tmp_path)
    with between_calls(Refusal(call, number, part)), pytest.raises(OutputError) as caught:
        store.save(epoch, content(2), None)
    assert f"cannot write {tmp_path}/epoch-0000{epoch}: {os.strerror(number)}" in str(caught.value)
    assert ("bytes free" in str(caught.value)) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert "set artifacts_dir to another" in str(caught.value)
    assert all_files(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


def lying(name, real, args, kwargs):
    """A disk that says that it has written, and has written something else; for `between_calls`."""
    if name != "write":
        return real(*args, **kwargs)
    handle, data = args
    return real(handle, bytes(data[:-1]) + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("epoch", [2, 1])
def test_what_reads_back_as_something_else_never_takes_the_place_of_the_older_one(epoch, tmp_path):
    store = CheckpointStore(tmp_path, keep_last=1)
    store.save(1, content(1), None)
    before = all_files(tmp_path)
    with (
        between_calls(lying),
        pytest.raises(OutputError, match=rf"cannot write .*/epoch-0000{epoch}: it reads back as something else: "),
    ):
        store.save(epoch, content(2), None)
    assert all_files(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


def test_an_older_one_that_may_not_be_removed_is_told(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=1)
    store.save(1, content(1), None)
    with (
        between_calls(Refusal("replace", errno.EACCES, "/epoch-00001")),
        pytest.raises(OutputError, match=r"cannot write .*/epoch-00001: Permission denied\. Give this user"),
    ):
        store.save(2, content(2), None)
    assert store.load_newest()[0].state["value"] == 2


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("call", ["open", "write", "replace"])
def test_a_file_that_is_refused_is_as_it_was(call, number, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    between = FullDisk(2) if call == "write" else Refusal(call, number, ".file.")
    with (
        between_calls(between),
        pytest.raises(
            OutputError, match=f"cannot write {path}: .*, or set artifacts_dir|: set artifacts_dir| bytes free"
        ),
    ):
        write_atomically(path, b"new")
    assert all_files(tmp_path) == {"file": b"old"}


def test_a_folder_that_may_not_be_looked_into_hides_no_message(tmp_path, monkeypatch):
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("storage.files.shutil.disk_usage", refuse)
    with (
        between_calls(Refusal("open", errno.ENOSPC, ".file.")),
        pytest.raises(OutputError, match=r"cannot write .*file: No space left on device \(free space unknown\)"),
    ):
        write_atomically(tmp_path / "file", b"new")


# -------------------------------------------------------------------------------------------------- the command line

# Runs train.py on a disk that is full while the epochs FULL are saved, for files whose path has a word of PART in it.
FILLING = f"""
import os, sys
sys.path.insert(0, {str(TESTS)!r})
from system_calls import FullDisk, between_calls
from train.base_trainer import BaseTrainer
from commands.command_line import main

full = [int(word) for word in os.environ["FULL"].split()]
disk = FullDisk(10**9, *os.environ["PART"].split())
save_metrics = BaseTrainer.save_metrics

def fill(self):
    disk.room = 100 if self.record.progress.epoch in full else 10**9
    save_metrics(self)

BaseTrainer.save_metrics = fill
with between_calls(disk):
    code = main()
sys.exit(code)
"""
MESSAGE = (
    r"error: cannot write .*/epoch-00003: No space left on device \([\d,]+ bytes free on that file system\)\. "
    r"Free some space or set artifacts_dir to another disk; what was saved before is intact\.\n"
)


# At this rate the third of the four epochs is the best.
RUN = ("Resumable", "learning_rate=0.15")


@pytest.fixture(scope="module")
def whole(shared_project) -> Path:
    (shared_project.path / "filling.py").write_text(FILLING)
    assert shared_project.run(*RUN).returncode == 0
    run = shared_project.runs("Resumable")[-1]
    assert json.loads((run / "metrics.json").read_text())["best"]["epoch"] == 3
    return run


def train_on_full_disk(project, full: str, *words: str, part: str = ""):
    """Return the finished process and its run."""
    done = project.run(*RUN, *words, script="filling.py", FULL=full, PART=part)
    assert "Traceback" not in done.stderr
    return done, project.runs("Resumable")[-1]


def temporaries(run: Path) -> list[Path]:
    return list(run.parent.parent.rglob(".*"))


@pytest.mark.parametrize("background", ["off", "on"])
def test_a_full_disk_stops_the_run_which_goes_on_when_there_is_room(background, shared_project, whole):
    # A writer in the background may be epochs late: for it the disk is full by what it writes, not by when.
    late = background == "on"
    full, part = ("1 2 3 4", "/.epoch-00003 /.epoch-00004") if late else ("3 4", "/checkpoints/")
    done, run = train_on_full_disk(shared_project, full, f"save_in_background={background}", part=part)
    assert done.returncode == 4
    assert re.fullmatch(MESSAGE.replace("00003", "0000[34]" if late else "00003"), done.stderr), done.stderr
    assert temporaries(run) == []
    assert json.loads((run / "metrics.json").read_text())["state"] == "failed"
    newest = max(path.name for path in (run / "checkpoints").iterdir())
    assert newest == "epoch-00002" or (late and newest == "epoch-00001"), "a writer may have been busy"
    again = shared_project.run(*RUN, "--resume")
    assert again.returncode == 0, again.stderr
    assert f"resumed run {run.name} after epoch {newest[-1]} from" in again.stdout
    assert_same_run(run, whole)


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_nothing_else(shared_project, whole):
    done, run = train_on_full_disk(shared_project, "2 3", "on_write_error=go_on")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("WARNING") == 4, "metrics.json and the best weights, in two epochs"
    assert done.stdout.count("No space left on device") == done.stdout.count("(on_write_error = go_on)") == 4
    assert temporaries(run) == []
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["epoch-00001", "epoch-00004"]
    assert_same_run(run, whole)
    assert (run.parent.parent / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_last_checkpoint_that_is_missing_is_an_error_whatever_is_set(shared_project):
    done, run = train_on_full_disk(shared_project, "4", "on_write_error=go_on", part="/checkpoints/")
    assert done.returncode == 4
    assert "(on_write_error = go_on)" in done.stdout
    assert re.search(MESSAGE.replace("epoch-00003", "epoch-00004"), done.stderr)
    assert json.loads((run / "metrics.json").read_text())["state"] == "failed"


def source_of(store: object) -> CheckpointSource:
    """A source of a run that gives nothing but its store."""
    return CheckpointSource(RunRecord(), lambda held: Checkpoint({}, {}), lambda: store)


def test_an_older_best_model_never_takes_the_place_of_a_newer_one():
    """The first writing, in the background, fails while the second save waits for it."""
    second_waits, written = threading.Event(), []

    class Store:
        def save(self, epoch: int, *rest: object) -> None:
            if epoch == 1:
                second_waits.wait()
                raise OutputError("full")

    class Writer(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            second_waits.set()
            super().join(timeout)

    saver = Saver(source_of(Store()), 1.0, in_background=True, go_on=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.checkpointing.saver.threading.Thread", Writer)
        for epoch in (1, 2, 3):
            if epoch < 3:
                saver._write_model = lambda epoch=epoch: written.append(epoch)
            saver._waiting = _Waiting(Checkpoint({}, {}), dict, epoch, None, "", 0)
            saver._flush_checkpoint()
        saver._join()
    assert written == [1, 2]


def test_what_could_not_be_written_of_a_sharded_model_is_written_later(monkeypatch):
    """It can't wait in memory: its processes make the checkpoint anew. The best model waits for the next one."""
    written, full = [], [OutputError("full"), OutputError("full")]

    def save_together(store: object, epoch: int, *rest: object) -> None:
        if epoch == 2:
            raise full.pop()
        written.append(f"epoch {epoch}")

    def write_model() -> None:
        if len(full) == 2:
            raise full.pop()
        written.append("the best of epoch 1")

    monkeypatch.setattr("train.checkpointing.saver.save_together", save_together)
    saver, left = Saver(source_of(object()), 1.0, go_on=True), []
    for epoch in (1, 2, 3):
        saver._write_model, saver._skipped = write_model if epoch == 1 else saver._write_model, None
        saver._waiting = _Waiting(Checkpoint({}, {}, sharded=True), dict, epoch, 1, "", epoch)
        saver._flush_checkpoint()
        left.append(saver._skipped)
    assert left == [1, 2, None]
    assert written == ["the best of epoch 1", "the best of epoch 1", "epoch 3"]


def test_saving_in_the_background_gives_the_same_files_and_its_time_is_told(shared_project, whole):
    done = shared_project.run(*RUN, "save_in_background=on", "keep_last_checkpoints=1")
    assert done.returncode == 0, done.stderr
    run = shared_project.runs("Resumable")[-1]
    assert_same_run(run, whole)
    assert {path.name for path in (run / "checkpoints").iterdir()} | {"epoch-00003"} == {"epoch-00003", "epoch-00004"}
    names = {path.relative_to(run) for path in run.rglob("*")}
    assert names <= {path.relative_to(whole) for path in whole.rglob("*")}
    saving = {path: json.loads((path / "metrics.json").read_text())["summary"]["saving"] for path in (run, whole)}
    for told in saving.values():
        assert told.keys() == {"checkpoints", "seconds", "stall_seconds"}
        assert told["seconds"] > 0 and told["stall_seconds"] > 0
    assert saving[whole]["checkpoints"] == 4
    assert saving[whole]["stall_seconds"] >= saving[whole]["seconds"]
    assert 1 <= saving[run]["checkpoints"] <= 4, "one that would have to wait for another gives way to a newer one"
