"""The first batch of a loader, as if nobody had asked for it."""

import copy
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from data.batch_indices import begin_pass, draws_like_torch
from data.loaders import length_of
from data.tensor_loader import TensorLoader

_SHARED_BYTES = 2**20  # from which on a tensor or array is taken for data, which no pass changes
_LOOKED_AT = 10_000  # objects of a loader of one's own, of which the large ones are looked for
_LONG = 1000  # items of a list from which on it is copied without them
_BATCHES = 1_000_000  # among which one of a single sample is looked for
_NONE = object()


@dataclass(frozen=True)
class FirstBatch:
    """What a pass over a loader begins with.

    Attributes:
        batch: batch as the loader gives it.
        samples: samples that the batch was made of; None where a batch isn't made of samples, or nobody knows them.
        collate: function that makes a batch of a list of samples; None where there are no samples.
    """

    batch: Any
    samples: list[Any] | None = None
    collate: Callable[[list[Any]], Any] | None = None


class UnreadableSampleError(Exception):
    """A sample that can't be read; `__cause__` is what the dataset raised.

    Attributes:
        index: what the sampler gave for the sample.
    """

    def __init__(self, index: Any) -> None:
        super().__init__(index)
        self.index = index


def first_batch(loader: Iterable[Any]) -> FirstBatch | None:
    """Return the first batch of the pass that would begin now; that pass is as if nobody had asked.

    Samples of a DataLoader are read in this process, also where it has workers. A loader may have a method
    `first_batch()` of its own, which returns a batch. The global random numbers are the caller's to put back.

    Args:
        loader: a DataLoader, a TensorLoader, or any iterable of batches.

    Returns:
        The batch. None where there is none, or where it can't be had without being missed later: an iterator, or a
            loader that can't be copied since it holds an open file, say.

    Raises:
        UnreadableSampleError: a sample can't be read.
    """
    own = getattr(loader, "first_batch", None)
    if callable(own):
        return FirstBatch(own())
    if draws_like_torch(loader):
        return _of_samples(loader)
    try:
        passed = _without_workers(loader) if isinstance(loader, DataLoader) else _private(loader, ())
    except Exception:  # whatever has no copy
        return None
    if passed is loader:
        return None
    if isinstance(passed, DataLoader) and type(passed).__iter__ is DataLoader.__iter__ and passed.batch_size:
        collate = passed.collate_fn
        vars(passed)["collate_fn"] = _as_they_are
        samples = next(iter(passed), _NONE)
        return FirstBatch(collate(samples), samples, collate) if isinstance(samples, list) else None
    batch = next(iter(passed), _NONE)
    return None if batch is _NONE else FirstBatch(batch)


def single_sample_batch(loader: Iterable[Any]) -> FirstBatch | None:
    """Return a batch of one sample, where the pass that would begin now has one: mostly its last.

    Args:
        loader: loader as `first_batch` takes it; without length or samples by index there is no answer.

    Raises:
        UnreadableSampleError: the sample can't be read.
    """
    if isinstance(loader, TensorLoader):
        single = loader.batch_size > 1 and loader.length % loader.batch_size == 1 and not loader.drop_last
        return FirstBatch(loader.last_batch()) if single else None
    if not isinstance(loader, DataLoader) or not draws_like_torch(loader) or loader.batch_sampler is None:
        return None
    batches = loader.batch_sampler
    if type(batches) is BatchSampler:
        samples = length_of(batches.sampler)
        if samples is None or batches.drop_last or batches.batch_size == 1 or samples % batches.batch_size != 1:
            return None
    try:
        indices = next((indices for indices in islice(begin_pass(loader), _BATCHES) if _is_single(indices)), None)
    except Exception:  # a sampler of anybody's
        return None
    return None if indices is None else FirstBatch(loader.collate_fn([_read(loader.dataset, each) for each in indices]))


def _is_single(indices: Any) -> bool:
    return isinstance(indices, list | tuple) and len(indices) == 1


def _as_they_are(samples: list[Any]) -> list[Any]:
    return samples


def _of_samples(loader: Any) -> FirstBatch | None:
    """Read the first batch of a DataLoader over samples by index, as torch's fetcher does."""
    dataset, collate = loader.dataset, loader.collate_fn
    try:
        batches = begin_pass(loader)
    except Exception:  # a sampler may hold an open file, or anything else that has no copy
        return None
    indices = next(batches, _NONE)
    if indices is _NONE:
        return None
    if loader.batch_sampler is None:
        return FirstBatch(collate(_read(dataset, indices)))
    several = getattr(dataset, "__getitems__", None)
    if callable(several):
        try:
            samples = several(indices)
        except Exception:
            for index in indices:
                _read(dataset, index)
            raise  # read one by one, none of them fails
    else:
        samples = [_read(dataset, index) for index in indices]
    return FirstBatch(collate(samples), samples, collate)


def _read(dataset: Any, index: Any) -> Any:
    try:
        return dataset[index]
    except Exception as error:  # whatever a user's dataset raises
        raise UnreadableSampleError(index) from error


def _without_workers(loader: DataLoader) -> DataLoader:
    """Copy a DataLoader, not its data, to one that reads in this process."""
    passed = copy.copy(loader)
    vars(passed).update(
        num_workers=0, prefetch_factor=None, persistent_workers=False, pin_memory=False, timeout=0, _iterator=None,
        _DataLoader__multiprocessing_context=None,
    )  # fmt: skip
    streams = isinstance(loader.dataset, IterableDataset)
    shared = () if streams else (loader.dataset, getattr(loader.sampler, "data_source", None))
    names = ["sampler", "batch_sampler", "generator", *(["dataset"] if streams else [])]
    vars(passed).update(_private({name: getattr(loader, name) for name in names}, shared))
    return passed


def _private(thing: Any, shared: Iterable[Any]) -> Any:
    """Copy what a pass over something may change. Data is not copied: large tensors and arrays, and networks.

    Args:
        thing: loader, or parts of one.
        shared: objects that are not copied.
    """
    memo: dict[int, Any] = {id(part): part for part in shared}
    alive, waiting, seen = [], [thing], set()
    while waiting and len(seen) < _LOOKED_AT:
        part = waiting.pop()
        if id(part) in memo or id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, torch.nn.Module | types.ModuleType) or _is_bulky(part):
            memo[id(part)] = part
        elif isinstance(part, list | dict | set | deque) and len(part) > _LONG:
            memo[id(part)] = copy.copy(part)
        elif not isinstance(part, type | types.FunctionType):
            inside = list(_parts_of(part))
            alive.append(inside)  # an id is only good while its object lives
            waiting.extend(inside)
    return copy.deepcopy(thing, memo)


def _parts_of(thing: Any) -> Iterator[Any]:
    if isinstance(thing, dict):
        yield from thing.values()
    elif isinstance(thing, list | tuple | set | deque):
        yield from thing
    else:
        yield from getattr(thing, "__dict__", {}).values()


def _is_bulky(thing: Any) -> bool:
    if isinstance(thing, torch.Tensor):
        return thing.layout is not torch.strided or thing.is_nested or thing.nbytes > _SHARED_BYTES
    # Arrays, tables of pandas and polars, data sets of h5py.
    return hasattr(type(thing), "__array__") and getattr(thing, "nbytes", _SHARED_BYTES + 1) > _SHARED_BYTES
