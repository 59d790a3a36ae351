"""The first batch of a loader, and that the pass after it is as if nobody had asked."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from data.first_batch import UnreadableSampleError, first_batch, single_sample_batch
from data.loaders import make_loader
from data.tensor_loader import TensorLoader

ROWS = torch.arange(90.0)


class Stream(IterableDataset):
    """Counts its passes and shuffles a list and an array in place."""

    def __init__(self) -> None:
        self.passes, self.order, self.random = 0, list(range(20)), np.random.default_rng(1)
        self.names, self.other = np.arange(20), random.Random(2)

    def __iter__(self):
        self.passes += 1
        self.random.shuffle(self.names)
        self.other.shuffle(self.order)
        yield from (torch.tensor([self.passes, int(a), b]) for a, b in zip(self.names, self.order, strict=True))


class Own:
    """An iterable of batches that goes on where it was."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self):
        for _ in range(3):
            self.at += 1
            yield torch.tensor([self.at])


LOADERS = {
    "DataLoader": lambda: DataLoader(TensorDataset(ROWS), 8, shuffle=True, generator=torch.Generator().manual_seed(1)),
    "workers": lambda: DataLoader(Stream(), 8, num_workers=1),
    "sampler": lambda: DataLoader(ROWS, 8, sampler=RandomSampler(ROWS, generator=torch.Generator().manual_seed(2))),
    "make_loader": lambda: make_loader(TensorDataset(ROWS), 8, shuffle=True, seed=3),
    "TensorLoader": lambda: TensorLoader(ROWS, 8, shuffle=True, seed=4),
    "stream": lambda: DataLoader(Stream(), 8),
    "own": Own,
}


@pytest.mark.parametrize("kind", LOADERS)
def test_it_is_what_the_next_pass_begins_with_and_moves_nothing(kind):
    loader, untouched = LOADERS[kind](), LOADERS[kind]()
    found = first_batch(loader)
    assert found is not None
    for _ in range(2):
        batches, expected = list(loader), list(untouched)
        assert str(batches) == str(expected)
    assert str(found.batch) == str(next(iter(LOADERS[kind]())))


def test_what_would_be_missed_is_not_taken():
    generator = (batch for batch in [1, 2])
    assert first_batch(generator) is None
    assert list(generator) == [1, 2]
    assert first_batch(DataLoader(ROWS, sampler=(index for index in [3, 4]))) is None


def test_a_sample_that_can_not_be_read_is_named():
    class Rows:
        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> int:
            if index == 2:
                raise OSError("truncated")
            return index

    with pytest.raises(UnreadableSampleError) as told:
        first_batch(DataLoader(Rows(), 4))
    assert told.value.index == 2 and str(told.value.__cause__) == "truncated"


def test_a_batch_of_one_is_found_where_there_is_one():
    for loader in (
        DataLoader(ROWS[:17], 8), TensorLoader(ROWS[:17], 8), make_loader(TensorDataset(ROWS[:17]), 8),
        DataLoader(ROWS, batch_sampler=[[1, 2], [16], [3, 4]]),
    ):  # fmt: skip
        single = single_sample_batch(loader)
        assert single is not None and float(torch.as_tensor(single.batch[0]).flatten()[0]) == 16.0
    for loader in (DataLoader(ROWS[:17], 8, drop_last=True), DataLoader(ROWS[:18], 8), DataLoader(ROWS, 1), Own()):
        assert single_sample_batch(loader) is None
