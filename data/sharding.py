"""One process's part of each batch, where several train one model.

`batch_size` counts the samples of all processes together. Each reads only its own part of every batch, so that a step
is of the same samples however many processes there are.
"""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler

from data.batches import to_device
from data.data_error import DataError


def own_part(count: int, rank: int, size: int) -> slice:
    """Return which of a batch's samples a process has: parts follow one another, the first ones may be one longer.

    Args:
        count: samples of the whole batch.
        rank: number of the process, from 0.
        size: number of processes.
    """
    least, longer = divmod(count, size)
    start = rank * least + min(rank, longer)
    return slice(start, start + least + (rank < longer))


@dataclass
class StandIn:
    """A batch in place of an empty part: what it gives counts for nothing, but a step needs every process.

    Attributes:
        batch: holds the first sample of the whole batch.
    """

    batch: Any

    def to(self, device: torch.device | str) -> "StandIn":
        """Return it with its tensors on a device."""
        return StandIn(to_device(self.batch, device))


class SharedRNG:
    """The random numbers that all processes draw alike: the order of samples, for loaders without a generator.

    They are those that a run of one process would draw for its loaders from the global generators of the CPU. Each
    process has its own of these besides, for dropout and augmentation.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Go on from where the global generators are now."""
        self._states = _states()

    def state_dict(self) -> dict[str, Any]:
        """Return where they are, as plain data."""
        python, (kind, keys, position, has_gauss, gauss), torch_state = self._states
        numpy = (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss)
        return {"python": python, "numpy": numpy, "torch": torch_state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        kind, keys, position, has_gauss, gauss = state["numpy"]
        numpy = (kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss)
        self._states = state["python"], numpy, state["torch"]

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw from these in a block."""
        own = _states()
        _set_states(self._states)
        try:
            yield
        finally:
            self._states = _states()
            _set_states(own)


def _states() -> tuple[Any, Any, torch.Tensor]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_states(states: tuple[Any, Any, torch.Tensor]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


class SharedOrder(Sampler):
    """A batch sampler that gives one process's part of another one's batches.

    Args:
        whole: batch sampler that gives the indices of whole batches, the same ones in each process.
        rank: number of the process, from 0.
        size: number of processes that share each batch.
        draws: random numbers that all processes draw alike; `whole` draws its order from them, where it has no
            generator of its own.
        base_seed: whether a DataLoader draws its workers' seed from `draws` too.

    Attributes:
        stand_ins: numbers of the pass's batches of which this process has no sample.
    """

    def __init__(self, whole: Any, rank: int, size: int, draws: SharedRNG, base_seed: bool) -> None:
        self.whole, self.rank, self.size, self.draws, self.base_seed = whole, rank, size, draws, base_seed
        self.sampler, self.generator = getattr(whole, "sampler", None), getattr(whole, "generator", None)
        self.stand_ins: set[int] = set()

    def __len__(self) -> int:
        return len(self.whole)

    def __iter__(self) -> Iterator[Any]:
        self.stand_ins = set()
        with self.draws.drawing():
            if self.base_seed:  # a run of one process draws it here
                torch.empty((), dtype=torch.int64).random_()
            batches = iter(self.whole)
        number = 0
        while True:
            with self.draws.drawing():
                batch = next(batches, None)
            if batch is None:
                return
            part = own_part(len(batch), self.rank, self.size)
            if part.start == part.stop:
                self.stand_ins.add(number)
                part = slice(0, 1)
            yield batch[part]
            number += 1


def shard_loader(name: str, loader: Any, rank: int, size: int, draws: SharedRNG) -> None:
    """Let a loader read one process's part of each batch from now on.

    Args:
        name: name of the loader, for errors.
        loader: a DataLoader over samples by index, or anything with a `shard_loader(rank, size)` of its own, such as a
            TensorLoader; its attribute `stand_ins` names the batches that only keep step.
        rank: number of the process, from 0.
        size: number of processes that share each batch.
        draws: random numbers that all processes draw alike.

    Raises:
        DataError: the loader's batches can't be parted.
    """
    if hasattr(loader, "shard_loader"):
        loader.shard_loader(rank, size)
        return
    kind = type(loader).__name__
    if not isinstance(loader, DataLoader):
        raise DataError(
            f"{name} is a {kind}, whose batches {size} processes can't share. Use a TensorLoader, make_loader or a "
            "DataLoader, give it a method shard_loader(rank, size), or train with one process."
        )
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        what = "reads an IterableDataset" if isinstance(loader.dataset, IterableDataset) else "has batch_size=None"
        raise DataError(
            f"{name} {what}, so {size} processes can't tell whose samples are whose. Give it a dataset with samples by "
            "index and a batch size, or train with one process."
        )
    own_draws = loader.generator is None and not getattr(loader, "draws_by_epoch", False)
    order = SharedOrder(loader.batch_sampler, rank, size, draws, base_seed=own_draws)
    object.__setattr__(loader, "batch_sampler", order)  # a DataLoader refuses a plain assignment


def unshard_loader(loader: Any) -> None:
    """Let a loader read whole batches again: what follows training looks at all of the data in each process."""
    order = getattr(loader, "batch_sampler", None)
    if hasattr(loader, "shard_loader"):
        loader.shard_loader(0, 1)
    elif isinstance(order, SharedOrder):
        object.__setattr__(loader, "batch_sampler", order.whole)


def with_stand_ins(loader: Any) -> Iterable[Any]:
    """Give a loader's batches; where this process has no sample of one, a `StandIn`."""
    order = loader if hasattr(loader, "stand_ins") else getattr(loader, "batch_sampler", None)
    for number, batch in enumerate(loader):
        yield StandIn(batch) if number in getattr(order, "stand_ins", ()) else batch
