"""What is told of a pass before it begins is what the pass then shows."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
)

from data.batch_indices import batch_indices
from data.loaders import make_loader
from data.tensor_loader import TensorLoader

LENGTH = 23


class Numbers:
    """Samples that are their own index."""

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index):
        return torch.as_tensor(index)


class Unreadable(Numbers):
    def __getitem__(self, index):
        raise AssertionError("a sample was read")


class Eager(Sampler[int]):
    """Draws from all global generators, and its own, when it is asked: torch asks twice where there are workers."""

    def __init__(self) -> None:
        self.own, self.passes = np.random.default_rng(5), 0

    def __len__(self) -> int:
        return LENGTH

    def __iter__(self):
        self.passes += 1
        shift = random.randrange(LENGTH) + np.random.randint(LENGTH) + int(self.own.integers(LENGTH)) + self.passes
        return iter(((torch.randperm(LENGTH) + shift) % LENGTH).tolist())


class EagerBatches(Eager):
    def __len__(self) -> int:
        return 6

    def __iter__(self):
        order = list(super().__iter__())
        return iter([order[start : start + 4] for start in range(0, LENGTH, 4)])


class Tensors(Sampler[torch.Tensor]):
    """Gives its indices as tensors."""

    def __len__(self) -> int:
        return LENGTH

    def __iter__(self):
        return iter(torch.randperm(LENGTH))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(9))


class Doubled(DataLoader):
    def __iter__(self):
        for batch in super().__iter__():
            yield batch * 2


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


LOADERS = {
    "in order": lambda data, **more: DataLoader(data, 4, **more),
    "shuffled": lambda data, **more: DataLoader(data, 4, shuffle=True, **more),
    "shuffled by its own generator": lambda data, **more: DataLoader(
        data, 4, shuffle=True, generator=seeded(), drop_last=True, **more
    ),
    "no batches": lambda data, **more: DataLoader(data, None, shuffle=True, **more),
    "a sampler with a generator": lambda data, **more: DataLoader(
        data, 4, sampler=RandomSampler(data, replacement=True, num_samples=30, generator=seeded()), **more
    ),
    "generator of loader and sampler are one": lambda data, **more: one_generator(data, seeded(), **more),
    "weighted": lambda data, **more: DataLoader(
        data, 4, sampler=WeightedRandomSampler(torch.arange(LENGTH) + 1.0, 31), **more
    ),
    "a sampler of one's own": lambda data, **more: DataLoader(data, 4, sampler=Eager(), **more),
    "batches of one's own": lambda data, **more: DataLoader(data, batch_sampler=EagerBatches(), **more),
    "a sampler of one's own, no batches": lambda data, **more: DataLoader(data, None, sampler=Eager(), **more),
    "lists of indices, no batches": lambda data, **more: DataLoader(
        data, None, sampler=BatchSampler(SequentialSampler(data), 4, False), **more
    ),
    "indices that are tensors": lambda data, **more: DataLoader(data, 4, sampler=Tensors(), **more),
    "made": lambda data, num_workers=0, **_: make_loader(data, 4, shuffle=True, num_workers=num_workers, seed=3),
}


def one_generator(data, generator, **more) -> DataLoader:
    return DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data, generator=generator), 4, False),
                      generator=generator, **more)  # fmt: skip


def seed_all() -> None:
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)


def shown(loader) -> list[list[int]]:
    return [batch.tolist() if batch.dim() else [batch.item()] for batch in loader]


def global_draws() -> tuple[float, ...]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}], ids=str)
@pytest.mark.parametrize("case", LOADERS)
def test_what_is_told_is_what_a_pass_shows_and_nobody_notices(case, workers):
    loader, untold = LOADERS[case](Numbers(), **workers), LOADERS[case](Numbers(), **workers)
    seed_all()
    expected = [shown(untold) for _ in range(2)], global_draws()
    seed_all()
    for epoch in range(2):
        told = batch_indices(loader, 0, 99)
        assert told == expected[0][epoch]
        assert batch_indices(loader, 2, 3) == told[2:5]
        assert shown(loader) == told
    assert global_draws() == expected[1]


@pytest.mark.parametrize("case", LOADERS)
def test_no_sample_is_read(case):
    assert len(batch_indices(LOADERS[case](Unreadable()), 1, 2)) == 2


@pytest.mark.parametrize(
    "options", [{}, {"shuffle": True}, {"shuffle": True, "drop_last": True}, {"weights": [1.0] * LENGTH}], ids=str
)
def test_of_a_tensor_loader(options):
    loader = TensorLoader(torch.arange(LENGTH), 4, seed=2, **options)
    for epoch in range(2):
        told = batch_indices(loader, 0, 99)
        assert loader.epoch == epoch
        assert batch_indices(loader, 2, 2) == told[2:4]
        assert shown(loader) == told
    assert batch_indices(loader, 6, 1) == []


def test_the_epoch_is_the_one_that_was_set():
    for loader in (make_loader(Numbers(), 4, shuffle=True), TensorLoader(torch.arange(LENGTH), 4, shuffle=True)):
        loader.set_epoch(5)
        told = batch_indices(loader, 0, 6)
        assert loader.epoch == 5
        assert shown(loader) == told
        assert shown(loader) != told


def test_where_there_are_none():
    locked = Eager()
    locked.file = open(__file__)  # noqa: SIM115 what has no copy
    with locked.file:
        assert batch_indices(DataLoader(Numbers(), sampler=locked), 0, 1) is None
    assert batch_indices(DataLoader(Stream()), 0, 1) is None
    assert batch_indices(Doubled(Numbers()), 0, 1) is None
    assert batch_indices([[1, 2]], 0, 1) is None
