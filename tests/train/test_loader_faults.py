"""Data that breaks is named, and workers that are signalled or die leave a run that can be gone on with."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from left_behind import left_behind
from test_interruptions import assert_same_run
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from data.data_error import DataError
from train.errors import TrainingError
from train.loading import loader_faults, worker_signals
from train.loading.loader_faults import _shut_down, explain_loader_fault, first_death_heard, require_whole_pass
from train.loading.worker_signals import TendedWorker, tell_unless_broken_off, tend_workers
from train.loop.record import RunRecord
from train.loop.stop_signals import Interrupted
from train.seeding import RandomSources

ADVICE = "Repair it, or let the dataset give something else for it. The checkpoints are intact: `--resume` goes on."
LOCATION = "train/fragile_trainer.py:43 in break_down"


def train(project, *words: str):
    """Run the trainer; no worker stays behind."""
    done = project.run("Fragile", *words)
    assert left_behind(project.path) == [], done.stderr
    return done


def train_in_a_group(project, *words: str):
    """Run the trainer in a process group of its own.

    It returns when nobody holds the end of the output's pipe any more, so a worker that stays behind runs into the
    time limit.
    """
    return subprocess.run(
        [sys.executable, "train.py", "Fragile", *words],
        cwd=project.path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def metrics(run) -> dict:
    return json.loads((run / "metrics.json").read_text())


def checkpoints(run) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def whole(shared_project):
    """A run that nothing happens to."""
    done = train(shared_project, "num_workers=2")
    assert done.returncode == 0, done.stderr
    return shared_project.runs("Fragile")[-1]


# ---------------------------------------------------------------------------------------- through the command line


@pytest.mark.parametrize(
    "words",
    [
        ("fault_in=train", "num_workers=0"),
        ("fault_in=train", "num_workers=2"),
        ("fault_in=train", "num_workers=2", "loader=made"),
        ("fault_in=val", "num_workers=0"),
        ("fault_in=val", "num_workers=2"),
    ],
    ids=str,
)
def test_a_sample_that_cannot_be_read_is_named(words, shared_project):
    done = train(shared_project, "fault=error", *words)
    assert done.returncode == 3, done.stderr
    name = "val_loader" if "fault_in=val" in words else "train_loader"
    told = f"{name}: sample 37 of FragileRows can't be read: {LOCATION}: ValueError: bad header\n{ADVICE}"
    assert done.stderr == f"error: {told}\n"
    run = shared_project.runs("Fragile")[-1]
    assert metrics(run)["state"] == "failed"
    assert metrics(run)["error"] == f"DataError: {told}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train", ("accumulation_steps=3",)),
        pytest.param("train", ("num_workers=2",), marks=pytest.mark.slow),
        pytest.param("train", ("num_workers=2", "loader=made"), marks=pytest.mark.slow),
        pytest.param("train", ("step=compiled",), marks=pytest.mark.slow),
        ("val", ()),
        pytest.param("val", ("num_workers=2",), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_stop_iteration_of_a_sample_does_not_end_an_epoch(name, words, shared_project):
    """torch would take it for the end of the data: an epoch, or a validation, over a part of it, and nobody told."""
    done = shared_project.run("Fragile", "fault=stop", f"fault_in={name}", *words)
    assert done.returncode == 3, done.stderr
    given = int(re.search(r"ended after (\d+) of 14 batches", done.stderr)[1])
    assert given == 7 if name == "val" else given < 14
    assert done.stderr == (
        f"error: {name}_loader: the pass ended after {given} of 14 batches, since sample 37 of FragileRows can't be "
        f"read: train/fragile_trainer.py:45 in break_down: StopIteration: no more frames. torch takes a StopIteration "
        f"for the end of the data. {ADVICE}\n"
    )
    run = shared_project.runs("Fragile")[-1]
    assert metrics(run)["state"] == "failed" and len(metrics(run)["history"]["val_loss"]) == 1


def pass_over(loader):
    """Make a pass over a loader, ask whether that was all, and make another one; returns the batches of both."""
    sources = RandomSources(loader, loader)
    run = SimpleNamespace(
        train_loader=loader, loaders={"train_loader": loader}, owns_loop=False, random_sources=sources,
        position=SimpleNamespace(validating=False, start=sources.state_dict()), record=RunRecord(),
    )  # fmt: skip
    given = list(loader)
    after = sources.state_dict()
    require_whole_pass(run, "train_loader", len(given))
    assert str(sources.state_dict()) == str(after)
    return given, list(loader)


def test_a_sampler_that_gives_less_than_it_says_ends_the_epoch():
    """And the next epoch has another order: the look at what it gave moves no generator."""

    class Few(torch.utils.data.RandomSampler):
        def __iter__(self):
            return iter(list(super().__iter__())[:40])

    rows = torch.arange(90.0)
    sampler = Few(rows, generator=torch.Generator().manual_seed(1))
    first, second = pass_over(DataLoader(rows, batch_size=20, sampler=sampler))
    assert len(first) == len(second) == 2 and not torch.equal(first[0], second[0])


def test_a_batch_sampler_needs_no_length():
    class Batches:
        def __iter__(self):
            return iter([[0, 1], [2]])

    first, _ = pass_over(DataLoader(torch.arange(9.0), batch_sampler=Batches()))
    assert [len(batch) for batch in first] == [2, 1]


def test_a_worker_that_is_killed_is_told_and_the_run_goes_on_later(shared_project, whole):
    done = train(shared_project, "fault=kill", "num_workers=2")
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith("error: train_loader: worker process ")
    for part in (
        " was killed by SIGKILL with samples [",
        "37",
        "] of FragileRows to read. Most often the system has run out of memory: take fewer num_workers",
        "\nThe checkpoints are intact: `--resume` goes on.\n",
    ):
        assert part in done.stderr  # fmt: skip
    run = shared_project.runs("Fragile")[-1]
    assert metrics(run)["state"] == "failed" and checkpoints(run) == ["epoch-00001"]
    done = train(shared_project, "fault=none", "num_workers=2", "--resume")
    assert done.returncode == 0, done.stderr
    assert_same_run(run, whole)


def test_a_worker_that_leaves_in_a_validation_is_told(shared_project):
    done = train(shared_project, "fault=exit", "fault_in=val", "num_workers=2")
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith("error: val_loader: worker process ")
    assert " left with exit code 7 with samples [" in done.stderr
    assert "Something in the dataset has ended the process: num_workers = 0 shows where." in done.stderr


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SIGTERM", 143),
        pytest.param("SIGINT", 130, marks=pytest.mark.slow),
        pytest.param("SIGUSR1", 138, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_all_processes_of_a_run_ends_it_after_a_step(name, code, shared_project, whole):
    words = ("fault=signal_group", f"stop_signal={name}", "num_workers=2", "checkpoint_every_n_steps=0")
    stopped = train_in_a_group(shared_project, *words)
    assert stopped.returncode == code, stopped.stderr
    run = shared_project.runs("Fragile")[-1]
    told = f"error: interrupted by {name}; go on with: "
    assert stopped.stderr.startswith(told) and stopped.stderr.endswith(f"Fragile --resume {run.name}\n")
    assert checkpoints(run)[-1].startswith("epoch-00001-step-"), "the step at hand was finished and saved"
    done = train(shared_project, "num_workers=2", "--resume")
    assert done.returncode == 0, done.stderr
    assert_same_run(run, whole)


@pytest.mark.parametrize("loader", ["dataloader", "made"])
def test_workers_vanish_with_a_main_process_that_is_killed(loader, shared_project):
    done = train_in_a_group(shared_project, "fault=kill_main", "num_workers=2", f"loader={loader}")
    assert done.returncode == -signal.SIGKILL, done.stderr


# ------------------------------------------------------------------------------------------------ workers by themselves


class Numbers:
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.as_tensor(index)


class Marked:
    """A `worker_init_fn`."""

    def __call__(self, worker: int) -> None:
        np.random.seed(100 + worker)


class Drawn(Numbers):
    def __getitem__(self, index: int) -> int:
        return int(np.random.randint(2**30))


def living(**options) -> tuple[DataLoader, list]:
    """Return a loader whose workers live on, and these, begun."""
    loader = DataLoader(Numbers(), 2, num_workers=1, persistent_workers=True, **options)
    tend_workers(loader)
    assert len(list(loader)) == 4
    return loader, loader._iterator._workers


def signalled_by_another(pid: int, number: int) -> None:
    subprocess.run(["kill", f"-{int(number)}", str(pid)], check=True)


def test_workers_work_on_after_signals_of_others_and_end_at_the_main_process_word(monkeypatch):
    monkeypatch.setattr(worker_signals, "GRACE", 1e6)  # a slow machine decides nothing
    loader, [worker] = living()
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
        signalled_by_another(worker.pid, number)
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0


def test_after_a_while_a_worker_obeys_a_stranger_too(monkeypatch):
    monkeypatch.setattr(worker_signals, "GRACE", 0.0)
    loader, [worker] = living()
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise here
    try:
        signalled_by_another(worker.pid, signal.SIGTERM)
        worker.join(30)
    finally:
        del loader
        signal.signal(signal.SIGCHLD, before)
    assert worker.exitcode == 143


def test_a_worker_that_hangs_in_its_fork_is_replaced(monkeypatch):
    """Python 3.11 may do so while a thread of torch's begins or ends."""
    monkeypatch.setattr(worker_signals, "PATIENCE", 0.2)
    token, write = os.pipe()
    os.write(write, b"1")
    os.set_blocking(token, False)
    begin = worker_signals.HoldingProcess._bootstrap

    def hang_once(process, *arguments, **named) -> int:
        with suppress(BlockingIOError):
            os.read(token, 1)
            signal.sigwait([])  # for ever
        return begin(process, *arguments, **named)

    monkeypatch.setattr(worker_signals.HoldingProcess, "_bootstrap", hang_once)
    _, [worker] = living()
    assert worker.is_alive()
    with pytest.raises(BlockingIOError):  # one has hung
        os.read(token, 1)
    os.close(token)
    os.close(write)


class Bereaved:
    """A `worker_init_fn` that kills the main process before the worker is ready to work."""

    def __call__(self, worker: int) -> None:
        main = multiprocessing.parent_process().pid
        os.kill(main, signal.SIGKILL)
        while os.getppid() == main:
            pass


def read_bereaved(held_by_workers_too) -> None:
    loader = DataLoader(Numbers(), num_workers=1, worker_init_fn=Bereaved())
    tend_workers(loader)
    list(loader)


def test_a_worker_whose_main_process_is_killed_before_it_begins_vanishes(monkeypatch):
    """torch's own look for the main process would take the next parent for it."""
    monkeypatch.setattr(worker_signals, "LOOK", 0.01)
    here, there = multiprocessing.Pipe()
    main = multiprocessing.get_context("fork").Process(target=read_bereaved, args=(there,))
    main.start()
    there.close()
    assert here.poll(60), "the worker is still there"
    with pytest.raises(EOFError):
        here.recv()
    main.join(30)
    assert main.exitcode == -signal.SIGKILL


def test_a_loader_is_tended_once_and_its_own_function_is_called():
    own = Marked()
    loader = DataLoader(Drawn(), None, num_workers=1, worker_init_fn=own)
    tend_workers(loader)
    tended = loader.worker_init_fn
    tend_workers(loader)
    assert loader.worker_init_fn is tended and tended.own is own
    np.random.seed(100)
    assert next(iter(loader)) == np.random.randint(2**30)


def send_mask(pipe) -> None:
    pipe.send(signal.pthread_sigmask(signal.SIG_BLOCK, []))


def test_a_worker_begins_with_the_signals_held_back():
    """One that came between the fork and its preparation would end it."""
    loader = DataLoader(Numbers(), num_workers=1)
    tend_workers(loader)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    here, there = multiprocessing.Pipe()
    process = loader.multiprocessing_context.Process(target=send_mask, args=(there,))
    process.start()
    assert here.recv() - before == {signal.SIGINT, signal.SIGUSR1, signal.SIGTERM}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    process.join(30)


def test_a_context_of_the_author_stays():
    loader = DataLoader(Numbers(), num_workers=1, multiprocessing_context="spawn")
    context = loader.multiprocessing_context
    tend_workers(loader)
    assert loader.multiprocessing_context is context


@pytest.mark.parametrize("loader", [DataLoader(Numbers()), [1, 2]], ids=["no workers", "no loader"])
def test_what_has_no_workers_stays(loader):
    tend_workers(loader)
    assert getattr(loader, "worker_init_fn", None) is None


def test_what_tends_can_be_sent_to_a_spawned_worker():
    loader = DataLoader(Numbers(), 4, num_workers=1, worker_init_fn=Marked(), multiprocessing_context="spawn")
    tend_workers(loader)
    sent = multiprocessing.reduction.ForkingPickler.dumps(loader.worker_init_fn)
    received = multiprocessing.reduction.ForkingPickler.loads(sent)
    assert isinstance(received, TendedWorker) and isinstance(received.own, Marked)


# ------------------------------------------------------------------------------------------- explanations by themselves


class Broken(Numbers):
    """Raises at some indices, in workers only where that is asked."""

    def __init__(self, *bad: int, only_in_workers: bool = False, error: type = KeyError) -> None:
        self.bad, self.only_in_workers, self.error = bad, only_in_workers, error

    def __getitem__(self, index: int) -> torch.Tensor:
        in_worker = torch.utils.data.get_worker_info() is not None
        if index in self.bad and (in_worker or not self.only_in_workers):
            raise self.error(f"no row {index}")
        return super().__getitem__(index)


class Ragged(Numbers):
    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.zeros(3 if index == 5 else 2)


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(2)
        raise OSError("line 2 is torn")


def failing_start(worker: int) -> None:
    raise RuntimeError("no licence")


def explained(train_loader, val_loader=None, hook=None, known: bool = True, stopped: int | None = None):
    """Read a loader to its end as a trainer would, and return what is told of the error that ends it."""
    sources = RandomSources(train_loader)
    val_loader = val_loader or DataLoader(Numbers())
    run = SimpleNamespace(
        train_loader=train_loader,
        val_loader=val_loader,
        loaders={"train_loader": train_loader, "val_loader": val_loader},
        owns_loop=False,
        stop_request=SimpleNamespace(number=stopped),
        folder=SimpleNamespace(log_only=lambda text: pytest.fail(text)),
        record=SimpleNamespace(progress=SimpleNamespace(epoch=0), epochs_before=0),
        random_sources=sources,
        position=SimpleNamespace(start=sources.state_dict() if known else None, validating=False),
    )
    try:
        for batch in train_loader:
            if hook is not None:
                hook(batch)
    except Exception as error:
        return explain_loader_fault(run, error)
    finally:
        _shut_down(run)  # torch takes its time where it must find out by itself
    pytest.fail("nothing failed")


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("error", [KeyError, ValueError])
def test_the_sample_is_found_in_a_shuffled_pass(number, error):
    torch.manual_seed(4)
    told = explained(DataLoader(Broken(3, error=error), 2, shuffle=True, num_workers=number))
    assert isinstance(told, DataError)
    assert str(told).startswith("train_loader: sample 3 of Broken can't be read: tests/train/test_loader_faults.py:")
    words = "'no row 3'" if error is KeyError else "no row 3"
    assert f" in __getitem__: {error.__name__}: {words}\n" in str(told)


def test_the_first_bad_sample_that_was_read_is_told_where_there_are_more():
    torch.manual_seed(1)
    first = torch.randperm(8, generator=torch.Generator().manual_seed(0)).tolist()
    loader = DataLoader(Broken(*first[2:]), 2, sampler=first, num_workers=2)
    assert f"sample {first[2]} of" in str(explained(loader))


def test_without_a_known_beginning_all_samples_are_tried():
    loader = DataLoader(Broken(6), 2, shuffle=True, num_workers=1)
    assert "train_loader: sample 6 of Broken can't" in str(explained(loader, known=False))


def test_what_fails_in_workers_only_is_told_with_the_indices_of_its_batch():
    told = str(explained(DataLoader(Broken(5, only_in_workers=True), 2, num_workers=2)))
    assert told.startswith("train_loader: samples [4, 5] of Broken can't be read: tests/train/test_loader_faults.py:")
    assert "in __getitem__: KeyError: 'no row 5'\nRead again one by one, in the main process, none of them" in told


@pytest.mark.parametrize("options", [{}, {"persistent_workers": True}, {"own": 5}], ids=str)
def test_the_batch_of_a_shuffled_pass_is_known(options):
    persistent, own = options.get("persistent_workers", False), options.get("own")

    def loader(dataset) -> DataLoader:
        generator = None if own is None else torch.Generator().manual_seed(own)
        return DataLoader(dataset, 2, shuffle=True, num_workers=2, persistent_workers=persistent, generator=generator)

    torch.manual_seed(6)
    batch = next(batch.tolist() for batch in loader(Numbers()) if 5 in batch.tolist())
    torch.manual_seed(6)
    assert f"samples {batch} of Broken can't be read" in str(explained(loader(Broken(5, only_in_workers=True))))


@pytest.mark.parametrize("number", [0, 1])
def test_a_batch_that_cannot_be_put_together_is_told_with_its_indices(number):
    told = str(explained(DataLoader(Ragged(), 2, num_workers=number)))
    assert told.startswith(
        "train_loader: samples [4, 5] of Ragged can't be put together: RuntimeError: stack expects each tensor to be "
        "equal size, but got [2] at entry 0 and [3] at entry 1"
    )


@pytest.mark.parametrize("number", [0, 1])
def test_a_stream_has_no_indices(number):
    told = str(explained(DataLoader(Stream(), 1, num_workers=number)))
    assert told.startswith("train_loader: a batch of Stream can't be read: tests/train/test_loader_faults.py:")
    assert told.endswith("in __iter__: OSError: line 2 is torn\nThe checkpoints are intact: `--resume` goes on.")


def test_a_sample_of_a_subset_is_named_by_its_index_there():
    assert "sample 1 of Subset can't be read: tests/train" in str(explained(DataLoader(Subset(Broken(7), [2, 7]), 2)))


def test_a_worker_that_cannot_begin_is_told():
    told = str(explained(DataLoader(Numbers(), 2, num_workers=1, worker_init_fn=failing_start)))
    assert "train_loader: a worker can't begin: tests/train/test_loader_faults.py:" in told
    assert told.endswith("in failing_start: RuntimeError: no licence")


def test_the_loader_is_the_one_that_failed():
    good, bad = DataLoader(Numbers(), 2), DataLoader(Broken(4), 2)
    assert str(explained(good, bad, hook=lambda batch: list(bad))).startswith("val_loader: sample 4 of Broken")


@pytest.mark.parametrize("number", [0, 1])
def test_what_a_hook_raises_is_no_fault_of_a_loader(number):
    def hook(batch):
        raise KeyError("Caught KeyError in DataLoader worker process 0.")

    assert explained(DataLoader(Numbers(), 2, num_workers=number), hook=hook) is None
    # Nor is a loader that the trainer reads by itself.
    assert explained(DataLoader(Numbers(), 2), hook=lambda batch: list(DataLoader(Broken(1)))) is None


class Leaving(Numbers):
    """Ends its worker in two steps, as every process ends: its files are closed first."""

    def __init__(self) -> None:
        self.seen = multiprocessing.get_context("fork").Event()

    def __getitem__(self, index: int) -> torch.Tensor:
        os.closerange(3, 1000)
        self.seen.wait()
        os._exit(7)


def test_a_worker_that_has_closed_its_files_is_waited_for(monkeypatch):
    """The connection to it is broken then, and it has no exit code yet."""

    def _try_get_data(self, timeout=None):
        raise ConnectionResetError(104, "Connection reset by peer")

    def until_closed(sentinels, timeout):
        closed = wait(sentinels, 60)
        dataset.seen.set()
        return closed

    dataset, wait = Leaving(), loader_faults.wait
    monkeypatch.setattr(loader_faults, "wait", until_closed)
    monkeypatch.setattr(torch.utils.data.dataloader._MultiProcessingDataLoaderIter, "_try_get_data", _try_get_data)
    told = str(explained(DataLoader(dataset, 2, num_workers=1)))
    assert told.startswith("train_loader: worker process ")
    assert " left with exit code 7 with samples [0, 1, 2, 3] of Leaving to read. " in told


def test_no_death_is_heard_after_the_first_error_of_a_session():
    def handler(number, frame):
        raise RuntimeError("DataLoader worker (pid 123) is killed by signal: Killed. ")

    before = signal.signal(signal.SIGCHLD, handler)
    try:
        with ExitStack() as afterwards:
            with pytest.raises(RuntimeError), first_death_heard(afterwards):
                os.kill(os.getpid(), signal.SIGCHLD)
            os.kill(os.getpid(), signal.SIGCHLD)
        assert signal.getsignal(signal.SIGCHLD) is handler
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_death_that_is_heard_just_after_the_error_of_a_validation_is_of_its_loader():
    def validate() -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(RuntimeError) as caught:
        try:
            validate()
        except ConnectionResetError:
            raise RuntimeError("DataLoader worker (pid 123) is killed by signal: Killed. ")  # noqa: B904
    assert loader_faults._is_validating(caught.value)


DIED = "DataLoader worker (pid 123) is killed by signal: {}. "


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            DIED.format("Killed"),
            "worker process 123 was killed by SIGKILL. Most often the system has run out of memory",
        ),
        (DIED.format("Bus error") + "It is possible", "was killed by SIGBUS. Most often the shared memory is full"),
        (DIED.format("Segmentation fault"), "was killed by SIGSEGV. A library that the dataset uses has crashed"),
        (DIED.format("Terminated"), "was killed by SIGTERM. Somebody or something"),
        ("DataLoader worker (pid(s) 1, 2) exited unexpectedly", "processes 1, 2 ended unexpectedly. Something"),
        ("DataLoader worker (pid 9) exited unexpectedly with exit code 7. Details", "9 left with exit code 7. Someth"),
    ],
)
def test_a_death_is_told_in_words(text, told):
    """It may be heard of in the hook: torch raises it from a signal handler."""

    def hook(batch):
        raise RuntimeError(text)

    death = explained(DataLoader(Numbers(), 2, num_workers=1), hook=hook)
    assert isinstance(death, TrainingError)
    assert str(death).startswith("train_loader: worker process") and told in str(death)
    assert str(death).endswith("\nThe checkpoints are intact: `--resume` goes on.")


@pytest.mark.parametrize(
    "text", [DIED.format("Terminated"), "DataLoader worker (pid 1) exited unexpectedly with exit code 143. "]
)
def test_a_worker_that_ended_by_the_signal_that_stops_the_run_is_no_failure(text):
    def hook(batch):
        raise RuntimeError(text)

    told = explained(DataLoader(Numbers(), 2), hook=hook, stopped=signal.SIGTERM)
    assert isinstance(told, Interrupted) and told.number == signal.SIGTERM
    assert isinstance(explained(DataLoader(Numbers(), 2), hook=hook, stopped=signal.SIGUSR1), TrainingError)


def test_a_worker_tells_its_threads_errors_but_not_that_the_main_process_broke_off(capsys):
    """The error of a dying worker may come while the main process fetches another one's batch."""
    for error in (ConnectionResetError(104, "reset"), EOFError(), BrokenPipeError()):
        tell_unless_broken_off(type(error), error, None)
    assert capsys.readouterr().err == ""
    tell_unless_broken_off(ValueError, ValueError("bad"), None)
    assert "ValueError: bad" in capsys.readouterr().err


class _HookName(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return sys.excepthook.__name__


def test_workers_have_that_hook():
    loader = DataLoader(_HookName(), num_workers=1)
    tend_workers(loader)
    assert list(loader) == [["tell_unless_broken_off"]]
