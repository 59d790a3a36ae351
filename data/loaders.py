"""DataLoaders with good settings and an order that can be repeated, and batches that are on the device in time."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset, get_worker_info

from data.batches import collate, tensors_in, to_device
from data.data_error import DataError
from data.epochs import has_set_epoch, set_epoch
from data.tensor_loader import epoch_generator


class Loader(Protocol):
    """What gives a trainer its batches, epoch after epoch: a DataLoader, a TensorLoader, or anything like them."""

    def __iter__(self) -> Iterator[Any]:
        """Begin a pass over the batches."""
        ...

    def __len__(self) -> int:
        """Return the number of batches of a pass; may raise TypeError where nobody knows it."""
        ...


def length_of(loader: object) -> int | None:
    """Return how many batches, or samples, something gives; None where it has no length."""
    try:
        return len(loader)  # type: ignore[arg-type]  # what has none raises
    except (TypeError, NotImplementedError):  # a DataLoader asks its dataset, which need not have one
        return None


_PREFETCH = 4  # batches that a worker has ready: evens out samples that take unequally long


def make_loader(
    dataset: Dataset,
    batch_size: int,
    shuffle: bool = False,
    num_workers: int = 0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    drop_last: bool = False,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> "EpochLoader":
    """Make a DataLoader for samples that are read or changed one by one. For tensors in memory TensorLoader is faster.

    The order comes from (seed, epoch) alone, and is that of a TensorLoader of this seed. What `__getitem__` draws from
    `random`, `numpy.random` and `torch` comes from (seed, epoch, batch) alone: the same with any number of workers, and
    the main process's own generators don't notice.

    Args:
        dataset: dataset that has `__len__` and `__getitem__`.
        batch_size: samples a batch.
        shuffle: draw a new order each epoch.
        num_workers: number of processes that read; they live on from epoch to epoch. 0 reads in this process.
        seed: seed of order and augmentation, at least 0.
        device: device that batches will be moved to; for CUDA (`auto`: where there is one) they are put in pinned
            memory.
        drop_last: leave out a last batch that is not full.
        collate_fn: function that makes a batch of a list of samples; None is torch's own, which here takes
            dataclasses of tensors too.

    Raises:
        DataError: a dataset without length or samples by index, or a setting out of range.
    """
    if isinstance(dataset, Mapping):
        raise DataError("make_loader needs a dataset with samples by index, not a mapping; use TensorLoader for it.")
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError(
            f"make_loader needs a dataset with __len__ and __getitem__; {type(dataset).__name__} is not one. "
            "Use torch.utils.data.DataLoader itself for it."
        )
    for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0), ("seed", seed, 0)):
        if value < least:
            raise DataError(f"make_loader: {name} is {value}; it must be at least {least}.")
    # `auto` is not a device of torch but a word of config.ini.
    cuda = torch.cuda.is_available() if str(device) == "auto" else torch.device(device).type == "cuda"
    epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that live on read the epoch from it
    return EpochLoader(
        # Stored tensors draw nothing.
        dataset if _is_stored(dataset) else _Reseeded(dataset, seed, epoch),
        batch_size,
        sampler=_EpochOrder(len(dataset), shuffle, seed, epoch),
        num_workers=num_workers,
        collate_fn=collate_fn or collate,
        pin_memory=cuda,
        drop_last=drop_last,
        generator=torch.Generator(),
        persistent_workers=num_workers > 0,
        prefetch_factor=_PREFETCH if num_workers > 0 else None,
    )


def _is_stored(dataset: Any) -> bool:
    return isinstance(dataset, torch.Tensor | TensorDataset) and not has_set_epoch(dataset)


class EpochLoader(DataLoader):
    """A DataLoader whose passes depend on (seed, epoch) alone. Made by `make_loader`.

    `set_epoch` chooses the epoch (`BaseTrainer` calls it); without a call the epochs count themselves. `dataset` passes
    attributes through to the dataset that was given, which is `dataset.dataset`; a TensorDataset is `dataset` itself.
    """

    epoch = 0
    draws_by_epoch = True  # not from the global random numbers

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        self.sampler.epoch.fill_(self.epoch)
        self.generator.manual_seed(self.epoch)  # torch draws the workers' first seeds; not from the global generator
        self.epoch += 1
        return super().__iter__()


class _EpochOrder(Sampler[int]):
    def __init__(self, length: int, shuffle: bool, seed: int, epoch: torch.Tensor) -> None:
        self.length, self.shuffle, self.seed, self.epoch = length, shuffle, seed, epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return iter(range(self.length))
        return iter(torch.randperm(self.length, generator=epoch_generator(self.seed, int(self.epoch))).tolist())


class _Reseeded:
    """A dataset whose batches draw random numbers of their own, here and in workers."""

    def __init__(self, dataset: Any, seed: int, epoch: torch.Tensor) -> None:
        self.dataset, self.seed, self.epoch = dataset, seed, epoch
        self._told: int | None = None  # the epoch that this copy's dataset knows of

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getitems__(self, indices: list[int]) -> Sequence[Any]:
        if get_worker_info() is not None and self._told != int(self.epoch):  # a worker that lives on has a copy
            self._told = int(self.epoch)
            set_epoch(self.dataset, self._told)
        # A DataLoader asks for a batch this way. Each sample is once in an epoch, so the first one names the batch.
        with _random_numbers_of(self.seed, int(self.epoch), indices[0]):
            if callable(getattr(self.dataset, "__getitems__", None)):
                return self.dataset.__getitems__(indices)
            return [self.dataset[index] for index in indices]

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # a copy that is just being unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)


@contextmanager
def _random_numbers_of(*words: int) -> Iterator[None]:
    """Seed the CPU generators of python, numpy and torch for a block, and leave them as they were before it."""
    if get_worker_info() is not None:
        _seed(words)  # nothing else draws in a worker, and numpy's state costs more to keep than all the rest
        yield
        return
    with cpu_random_states_kept():
        _seed(words)
        yield


@contextmanager
def cpu_random_states_kept() -> Iterator[None]:
    """Put the CPU generators of python, numpy and torch back after a block."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _seed(words: tuple[int, ...]) -> None:
    first, second, third = np.random.SeedSequence(words).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)
    torch.default_generator.manual_seed(third)  # torch.manual_seed would also reach for CUDA


def prefetch(loader: Iterable[Any], device: torch.device | str) -> Iterator[Any]:
    """Give a loader's batches on a device; on CUDA the next one is copied while this one is used.

    Args:
        loader: loader of batches as `to_device` takes them. Pinned ones (`make_loader` for CUDA) are copied beside the
            computation, others only begun early.
        device: device that the batches are moved to. For the CPU, or any other that isn't CUDA, batches come as they
            are.

    Returns:
        An iterator; on CUDA it takes each batch from the loader one batch early.
    """
    device = torch.device(device)
    if device.type != "cuda":
        yield from loader
        return
    side = torch.cuda.Stream(device)
    ahead: tuple[Any, torch.cuda.Event] | None = None
    for batch in loader:
        # A batch may come from work that the current stream has yet to do, such as a gather on another device.
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            copied = to_device(batch, device), side.record_event()
        if ahead is not None:
            yield _handed_over(*ahead, device)
        ahead = copied
    if ahead is not None:
        yield _handed_over(*ahead, device)


def _handed_over(batch: Any, copied: torch.cuda.Event, device: torch.device) -> Any:
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)  # on the device; the host goes on
    for tensor in tensors_in(batch):
        if tensor.is_cuda:
            tensor.record_stream(current)  # else the side stream could reuse its memory while it is still read
    return batch
