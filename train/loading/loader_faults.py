"""What ended a run, told again where it was the loading of data: which loader, which sample, what to do."""

import gc
import re
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sized
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from constants.counting import counted
from data.batch_indices import batch_indices
from data.data_error import DataError
from data.epochs import set_epoch
from data.loaders import EpochLoader
from data.tensor_loader import TensorLoader
from train.context import RunContext
from train.error_location import location, place
from train.errors import TrainingError
from train.loop.stop_signals import Interrupted
from train.seeding import preserved_random_states

_SEARCH_SECONDS = 60.0  # that all samples are tried where it is not known which batch failed
_SHOWN = 16  # indices of a batch
_GO_ON = "The checkpoints are intact: `--resume` goes on."
_DIED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? (?P<pids>[\d, ]+)\) "
    r"(?:is killed by signal: (?P<signal>[^.]+)|exited unexpectedly(?: with exit code (?P<code>\d+))?)"
)
_FRAME = re.compile(r'^ +File "(?P<file>.+)", line (?P<line>\d+), in (?P<name>.+)\n(?: +(?P<source>.*)\n)?', re.M)
_CAUSES = {
    "SIGKILL": "Most often the system has run out of memory: take fewer num_workers, smaller batches or smaller "
    "samples.",
    "SIGBUS": "Most often the shared memory is full: give /dev/shm more space (docker: --shm-size), or take fewer "
    "num_workers or smaller batches.",
    "SIGSEGV": "A library that the dataset uses has crashed, perhaps at a damaged file, or /dev/shm is full: "
    "num_workers = 0 shows where.",
    "SIGABRT": "A library that the dataset uses has given up: num_workers = 0 shows where.",
    "SIGTERM": "Somebody or something on this machine has stopped it.",
}
_CAUSE = "Something in the dataset has ended the process: num_workers = 0 shows where."


def explain_loader_fault(run: RunContext, error: BaseException) -> Exception | Interrupted | None:
    """Say what of its data ended a run.

    Tries the samples of the batch that failed again, one by one in this process, so that the good path keeps no books.

    Args:
        run: the run.
        error: error that ended the run's `train()`, as it was caught.

    Returns:
        What to raise from the error: a DataError for a sample or batch that can't be read, a TrainingError for a worker
        that died, Interrupted where it died of the signal that asks the run to stop. None where the error has nothing
        to do with loading.
    """
    if not isinstance(error, Exception):
        return None
    try:
        with _deaths_unheard(), preserved_random_states():
            told = _death(run, error) or _failure(run, error)
            if told is not None:
                _shut_down(run)
            return told
    except KeyboardInterrupt:  # nobody wants to wait for the search
        return None
    except Exception:  # an explanation that fails must not hide what it should explain
        run.folder.log_only(traceback.format_exc())
        return None


@contextmanager
def first_death_heard(afterwards: ExitStack) -> Iterator[None]:
    """Let a block raise that a worker has died, and what comes after an error of the block not.

    Such a death may show as a broken connection first. torch's handler of SIGCHLD would then raise it at any line of
    what deals with that.

    Args:
        afterwards: puts the handler back.
    """
    try:
        yield
    except BaseException:  # where the handler comes before the next line it raises an error with this one as context
        afterwards.enter_context(_deaths_unheard())
        raise


def require_whole_pass(run: RunContext, name: str, batches: int) -> None:
    """Refuse a pass over a DataLoader that a sample has cut short: torch takes its StopIteration for the end.

    Args:
        run: the run, still in the pass.
        name: name of the loader, such as train_loader.
        batches: number of batches that the loader gave.

    Raises:
        DataError: the sampler has a further batch, which was not given.
    """
    loader = _loader(run, name)
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return
    expected = _length(loader)
    if expected is None or batches >= expected:
        return
    with _unmoved(run, loader):  # a sampler may rightly give fewer than it says: then the run goes on
        missing = samples_of_batches(run, name, [batches])
        if not missing or not missing[0]:  # a sampler that gives fewer than it says, or one that can't be asked
            return
        what = f"{name}: the pass ended after {batches} of {counted(expected, 'batch')}"
        errors = [(index, _reading_error(loader, index)) for index in missing[0]]
    for index, error in errors:
        if isinstance(error, StopIteration):
            raise DataError(
                f"{what}, since sample {index} of {_class_name(loader.dataset)} can't be read: {location(error)}"
                f"{_told(error)}. torch takes a StopIteration for the end of the data. {_advice('it')}"
            ) from error
    raise DataError(f"{what}, before samples {_listed(missing[0])}: one of them has raised a StopIteration. {_GO_ON}")


def _length(loader: DataLoader) -> int | None:
    try:
        return len(loader)
    except TypeError:  # a batch sampler need not know how many it gives
        return None


@contextmanager
def _unmoved(run: RunContext, loader: DataLoader) -> Iterator[None]:
    """Put a loader's generators and workers, and the global random numbers, back to where they were before a block."""
    states, workers = run.random_sources.state_dict(), loader._iterator
    try:
        yield
    finally:
        run.random_sources.load_state_dict(states)
        loader._iterator = workers


# ------------------------------------------------------------------------------------------------ a worker that died


def _death(run: RunContext, error: Exception) -> Exception | Interrupted | None:
    found = next((match for each in _chain(error) if (match := _DIED.search(str(each)))), None)
    pids = [int(pid) for pid in found["pids"].split(",")] if found else _silently_dead(error)
    if not pids:
        return None
    at_work = _iterator_of(pids[0])
    fate = _fate(found, None if at_work is None else at_work[0]._workers[at_work[1]].exitcode)
    name: str | None
    if at_work is not None:
        name = _loader_name(run, error, at_work[0])
    else:  # its pass is over already, so it is the one that the trainer was in
        name = "val_loader" if _is_validating(error) else "train_loader"
        name = name if getattr(_loader(run, name), "num_workers", 0) else None
    at = _samples_of_worker(run, name, *at_work) if name and at_work is not None else ""
    number = run.stop_request.number
    if number is not None and fate.endswith((signal.Signals(number).name, f"code {128 + number}")):
        return Interrupted(number)
    what = f"worker process {pids[0]}" if len(pids) == 1 else f"worker processes {', '.join(map(str, pids))}"
    cause = next((text for key, text in _CAUSES.items() if fate.endswith(key)), _CAUSE)
    return TrainingError(f"{name or 'a DataLoader'}: {what} {fate}{at}. {cause}\n{_GO_ON}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Go back through what an error arose from: torch reports a death wherever the main process is at work."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _silently_dead(error: Exception) -> list[int]:
    """Find workers whose death shows as a broken connection, before torch has noticed it."""
    iterator = _iterator_in(error)
    receiving = any(frame.f_code.co_name == "_try_get_data" for frame, _ in traceback.walk_tb(error.__traceback__))
    if not receiving or not isinstance(iterator, _MultiProcessingDataLoaderIter):
        return []
    ended = wait([worker.sentinel for worker in iterator._workers], timeout=5.0)  # it may be about to end
    for worker in iterator._workers:
        if worker.sentinel in ended:  # it has closed its files, and may not have an exit code yet
            worker.join(5.0)
    return [worker.pid for worker in iterator._workers if worker.exitcode and worker.pid is not None]


def _passes() -> list[_MultiProcessingDataLoaderIter]:
    return [thing for thing in gc.get_objects() if issubclass(type(thing), _MultiProcessingDataLoaderIter)]


def _shut_down(run: RunContext) -> None:
    """End the workers of a trainer's loaders, or torch would report a death again at the next signal."""
    datasets = [getattr(loader, "dataset", None) for loader in run.loaders.values()]
    for iterator in _passes():
        if any(iterator._dataset is dataset for dataset in datasets):
            iterator._shutdown_workers()


@contextmanager
def _deaths_unheard() -> Iterator[None]:
    """Keep torch's handler of SIGCHLD, which raises an error where a worker has died, out of a block."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _iterator_of(pid: int) -> tuple[_MultiProcessingDataLoaderIter, int] | None:
    """Find the pass that a worker belongs to, and the worker's number in it; None where that is over."""
    for iterator in _passes():
        pids = [worker.pid for worker in iterator._workers]
        if pid in pids:
            return iterator, pids.index(pid)
    return None


def _fate(found: re.Match[str] | None, exit_code: int | None) -> str:
    """Say how a worker ended, by the exit code or else by torch's words."""
    if exit_code is None and found and found["code"]:
        exit_code = int(found["code"])
    if exit_code is not None and exit_code >= 0:
        return f"left with exit code {exit_code}"
    if exit_code is not None:
        return f"was killed by {signal.Signals(-exit_code).name}"
    names = {signal.strsignal(each): each.name for each in signal.Signals}
    word = found["signal"] if found else None
    return f"was killed by {names.get(word, word)}" if word else "ended unexpectedly"


def _samples_of_worker(run: RunContext, name: str, iterator: _MultiProcessingDataLoaderIter, worker: int) -> str:
    waiting = [number for number, task in iterator._task_info.items() if task == (worker,)]
    batches = samples_of_batches(run, name, waiting)
    # Which of them it was is not known: what it had read before may be lost with it.
    indices = [index for batch in batches or [] for index in batch]
    return f" with samples {_listed(indices)} of {_class_name(iterator._dataset)} to read" if indices else ""


# ------------------------------------------------------------------------------------- an error out of the dataset


@dataclass
class _Fault:
    """An error from inside a DataLoader.

    Attributes:
        name: name of the loader: train_loader or val_loader.
        frames: from where the batch is made, in this process or a worker.
        text: the original error's last lines, `ValueError: bad header`.
        indices: indices in the dataset of the batch's samples; None where they are not known.
        exact: whether no other batch can be meant: this one failed in this process, or has no indices.
    """

    name: str
    frames: list[traceback.FrameSummary]
    text: str
    indices: list[Any] | None
    exact: bool


def _failure(run: RunContext, error: Exception) -> DataError | None:
    fault = _fault(run, error)
    if fault is None:
        return None
    loader = _loader(run, fault.name)
    what, because = _class_name(loader.dataset), f"{place(fault.frames)}{fault.text}"
    if not fault.frames:
        return DataError(f"{fault.name}: a worker can't begin: {because}")
    batch = f"samples {_listed(fault.indices)} of {what}" if fault.indices else f"a batch of {what}"
    if "collate_fn(" in (fault.frames[0].line or ""):
        return DataError(f"{fault.name}: {batch} can't be put together: {because}\n{_advice('them')}")
    found = _bad_sample(loader, fault)
    if found is not None:
        index, cause = found
        because = f"{location(cause)}{_told(cause)}"
        return DataError(f"{fault.name}: sample {index} of {what} can't be read: {because}\n{_advice('it')}")
    again = "Read again one by one, in the main process, none of them fails. " if fault.indices else ""
    return DataError(f"{fault.name}: {batch} can't be read: {because}\n{again}{_GO_ON}")


def _bad_sample(loader: DataLoader, fault: "_Fault") -> tuple[Any, Exception] | None:
    """Read samples one by one, those of the batch first, until one fails; return it with its error."""
    for index in fault.indices or []:
        error = _reading_error(loader, index)
        if error is not None:
            return index, error
    end = time.monotonic() + _SEARCH_SECONDS
    for index in range(0 if fault.exact or not isinstance(loader.dataset, Sized) else len(loader.dataset)):
        error = _reading_error(loader, index)
        if error is not None and _told(error).partition(":")[0] == fault.text.partition(":")[0]:
            return index, error
        if time.monotonic() > end:
            break
    return None


def _told(error: Exception) -> str:
    """Say an error as the last lines of a traceback do: `ValueError: bad header`."""
    return "".join(traceback.format_exception_only(error)).strip()


def _advice(what: str) -> str:
    return f"Repair {what}, or let the dataset give something else for {what}. {_GO_ON}"


def _fault(run: RunContext, error: Exception) -> _Fault | None:
    """Find in the traceback where an error left a DataLoader of the trainer's; None where it is none of a loader's."""
    iterator = _iterator_in(error)
    name = None if iterator is None else _loader_name(run, error, iterator)
    if iterator is None or name is None:
        return None
    for number, (frame, _) in enumerate(traceback.walk_tb(error.__traceback__)):
        if _is_fetch(frame.f_code.co_filename):
            frames = list(traceback.extract_tb(error.__traceback__))[number:]
            indices = _plain_indices(frame.f_locals.get("possibly_batched_index"))
            return _Fault(name, frames, _told(error), indices, exact=True)
    text = next((str(word) for word in [*error.args, error] if "in DataLoader worker process" in str(word)), None)
    # One without text is a sampler's, or of pinning memory.
    if text is None or not isinstance(iterator, _MultiProcessingDataLoaderIter):
        return None
    frames, last_lines = _parsed(text)
    fetched = [number for number, frame in enumerate(frames) if _is_fetch(frame.filename)]
    if not fetched:
        return _Fault(name, [], f"{place(frames)}{last_lines}", None, exact=True)
    failed = samples_of_batches(run, name, [iterator._rcvd_idx - 1])  # it is counted before its error is raised
    countable = hasattr(iterator._dataset, "__getitem__") and hasattr(iterator._dataset, "__len__")
    return _Fault(name, frames[fetched[0] :], last_lines, failed[0] if failed else None, exact=not countable)


def _is_fetch(file: str) -> bool:
    return file.replace("\\", "/").endswith("torch/utils/data/_utils/fetch.py")


def _plain_indices(batch: Any) -> list[Any] | None:
    indices = batch if isinstance(batch, list) else [batch]
    return None if all(index is None for index in indices) else [getattr(i, "item", lambda i=i: i)() for i in indices]


def _parsed(text: str) -> tuple[list[traceback.FrameSummary], str]:
    """Read the frames out of a traceback's text, and the error's own lines behind them."""
    found = list(_FRAME.finditer(text))
    frames = [
        traceback.FrameSummary(each["file"], int(each["line"]), each["name"], line=each["source"] or "")
        for each in found
    ]
    rest = text[found[-1].end() :].splitlines() if found else text.splitlines()
    while rest and rest[0].startswith(" "):  # marks below a line of source
        rest.pop(0)
    return frames, "\n".join(rest).strip()


def _reading_error(loader: DataLoader, index: Any) -> Exception | None:
    """Read one sample as a DataLoader does and return what that raises."""
    dataset = loader.dataset
    try:
        several = getattr(dataset, "__getitems__", None)
        if loader.batch_sampler is not None and callable(several):
            several([index])
        else:
            dataset[index]
    except Exception as error:
        return error
    return None


# ----------------------------------------------------------------------------------------- which loader, which samples


def _iterator_in(error: Exception) -> _BaseDataLoaderIter | None:
    """Find the innermost pass over a DataLoader in which an error arose."""
    owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((owner for owner in reversed(owners) if issubclass(type(owner), _BaseDataLoaderIter)), None)


def _loader(run: RunContext, name: str) -> Any:
    """Return a loader by its attribute; what it is, is found out as it is used."""
    return run.loaders[name]


def _loader_name(run: RunContext, error: Exception, iterator: _BaseDataLoaderIter) -> str | None:
    names = [name for name, loader in run.loaders.items() if getattr(loader, "dataset", None) is iterator._dataset]
    if len(names) < 2:
        return names[0] if names else None
    if _is_in(error, "batches_of"):  # of commands/evaluate: a test or a prediction, whose loader stands last
        return names[-1]
    return names[_is_validating(error)]


def _is_validating(error: BaseException) -> bool:
    return _is_in(error, "validate")


def _is_in(error: BaseException, function: str) -> bool:
    frames = [frame for each in _chain(error) for frame, _ in traceback.walk_tb(each.__traceback__)]
    return any(frame.f_code.co_name == function for frame in frames)


def samples_of_batches(run: RunContext, name: str, numbers: list[int]) -> list[list[Any]] | None:
    """Tell which samples some batches of the pass at hand have, without reading any; random states may have moved.

    Args:
        run: the run, still in the pass.
        name: name of the loader: train_loader or val_loader.
        numbers: numbers of the batches in the pass, from 0.

    Returns:
        The dataset's indices for each batch that there is; None if the pass's beginning is not known.
    """
    if not numbers or not return_to_start(run, name):
        return None
    first, last = min(numbers), max(numbers)
    found = batch_indices(_loader(run, name), first, last - first + 1)
    return None if found is None else [found[number - first] for number in numbers if number - first < len(found)]


def return_to_start(run: RunContext, name: str) -> bool:
    """Set the random numbers and a loader to where its pass at hand began; False where that is not known.

    Args:
        run: the run, still in the pass.
        name: name of the loader.
    """
    loader, position = _loader(run, name), run.position
    if isinstance(loader, EpochLoader | TensorLoader):
        loader.epoch -= 1  # a pass counts when it begins
        return True
    set_epoch(loader, run.record.progress.epoch)
    if type(loader.sampler) is SequentialSampler and type(loader.batch_sampler) in (BatchSampler, type(None)):
        return True
    known = position.validating if name == "val_loader" else not (position.validating or run.owns_loop)
    if not known or position.start is None:
        return False
    run.random_sources.load_state_dict(position.start)
    if loader.persistent_workers:
        if name == "val_loader":  # whether this was its first pass is not known
            return False
        if run.record.progress.epoch == run.record.epochs_before:
            loader._iterator = None  # its workers began in this pass, with a seed that was drawn for them
    return True


def _class_name(dataset: Any) -> str:
    """Name the class of a dataset; `make_loader` has it inside one of its own."""
    inner = getattr(dataset, "dataset", None) if type(dataset).__name__ == "_Reseeded" else dataset
    return type(inner).__name__


def _listed(indices: list[Any]) -> str:
    shown = ", ".join(map(str, indices[:_SHOWN]))
    return f"[{shown}, ...] ({len(indices)} in all)" if len(indices) > _SHOWN else f"[{shown}]"
