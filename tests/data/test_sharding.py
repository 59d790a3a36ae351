"""Parts of batches: together they are the whole, and whose is whose follows from the batch alone."""

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from data.batch_indices import batch_indices
from data.data_error import DataError
from data.loaders import make_loader
from data.sharding import SharedRNG, StandIn, own_part, shard_loader, unshard_loader, with_stand_ins
from data.tensor_loader import TensorLoader


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 6, 13])
def test_parts_follow_one_another_and_are_as_long_as_can_be(count, size):
    parts = [range(count)[own_part(count, rank, size)] for rank in range(size)]
    assert [index for part in parts for index in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def loaders(kind: str, rows: torch.Tensor):
    """A loader of batches of 4 in a drawn order."""
    if kind == "tensors":
        return TensorLoader(rows, 4, shuffle=True, seed=3)
    if kind == "made":
        return make_loader(rows, 4, shuffle=True, seed=3)
    if kind == "own generator":
        return DataLoader(rows, 4, shuffle=True, generator=torch.Generator().manual_seed(5))
    return DataLoader(rows, 4, shuffle=True)


@pytest.mark.parametrize("kind", ["tensors", "made", "own generator", "global"])
@pytest.mark.parametrize("size", [2, 3])
def test_processes_read_the_batches_of_one_process(kind, size):
    rows = torch.arange(26.0)  # the last of the batches has two samples
    torch.manual_seed(0)
    whole = [[batch.tolist() for batch in loader] for loader in [loaders(kind, rows)] for _ in range(2)]
    shares = []
    for rank in range(size):
        torch.manual_seed(0)
        loader, draws = loaders(kind, rows), SharedRNG()
        torch.manual_seed(100 + rank)  # a process's own numbers don't matter
        shard_loader("train_loader", loader, rank, size, draws)
        assert len(loader) == 7
        passes = []
        for _ in range(2):
            told = batch_indices(loader, 0, 99)
            read = list(with_stand_ins(loader))
            passes.append([[] if isinstance(batch, StandIn) else batch.tolist() for batch in read])
            inside = [batch.batch if isinstance(batch, StandIn) else batch for batch in read]
            assert [batch.tolist() for batch in inside] == told  # a stand-in has a sample too
        shares.append(passes)
        unshard_loader(loader)
        assert sum(map(len, loader)) == 26
    for number in range(2):
        together = [[row for share in shares for row in share[number][batch]] for batch in range(7)]
        assert together == whole[number]


def test_a_tensor_loader_whose_batches_are_smaller_than_the_world_stands_in_everywhere():
    loader = TensorLoader(torch.arange(5.0), 2)
    loader.shard_loader(2, 3)
    assert [type(batch) for batch in with_stand_ins(loader)] == [StandIn] * 3


def test_draws_of_all_are_apart_from_a_process_s_own_and_can_be_kept():
    torch.manual_seed(1)
    draws, expected = SharedRNG(), torch.rand(2)
    torch.manual_seed(2)
    own = torch.rand(2)
    torch.manual_seed(2)
    with draws.drawing():
        assert torch.rand(1) == expected[0]
    kept = draws.state_dict()
    assert torch.equal(torch.rand(2), own)
    other = SharedRNG()
    other.load_state_dict(kept)
    with other.drawing():
        assert torch.rand(1) == expected[1]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


@pytest.mark.parametrize(
    ("loader", "text"),
    [
        (
            DataLoader(Stream(), 2),
            "MyTrainer.train_loader reads an IterableDataset, so 2 processes can't tell whose samples are whose. Give "
            "it a dataset with samples by index and a batch size, or train with one process.",
        ),
        (
            DataLoader(TensorDataset(torch.ones(3)), batch_size=None),
            "MyTrainer.train_loader has batch_size=None, so 2 processes can't tell whose samples are whose. Give it a "
            "dataset with samples by index and a batch size, or train with one process.",
        ),
        (
            [torch.ones(3)],
            "MyTrainer.train_loader is a list, whose batches 2 processes can't share. Use a TensorLoader, make_loader "
            "or a DataLoader, give it a method shard_loader(rank, size), or train with one process.",
        ),
    ],
)
def test_what_can_t_be_parted_is_refused(loader, text):
    with pytest.raises(DataError) as error:
        shard_loader("MyTrainer.train_loader", loader, 0, 2, SharedRNG())
    assert str(error.value) == text
