"""A DataLoader over tensors read as tensors: the same batches and the same random numbers, or the loader itself."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset, WeightedRandomSampler

from data import tensor_rows
from data.tensor_rows import TensorRows, quick


def tensors(count: int = 23) -> list[torch.Tensor]:
    return [torch.arange(count * 3.0).view(count, 3), torch.arange(count), torch.arange(count) % 2 == 0]


SETTINGS = {
    "in order": {},
    "shuffled": {"shuffle": True},
    "without a short last batch": {"shuffle": True, "drop_last": True},
    "with replacement": {"sampler": lambda data: RandomSampler(data, replacement=True, num_samples=40)},
    "with a generator of its own": {"shuffle": True, "generator": 5},
    "pinned": {"shuffle": True, "pin_memory": True},
    "batch larger than the data": {"shuffle": True, "batch_size": 50},
}


def loader_of(settings: dict) -> DataLoader:
    settings = {"batch_size": 4, **settings}
    data = TensorDataset(*tensors())
    if "sampler" in settings:
        settings["sampler"] = settings["sampler"](data)
    if "generator" in settings:
        settings["generator"] = torch.Generator().manual_seed(settings["generator"])
    return DataLoader(data, **settings)


@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
def test_batches_and_random_numbers_are_the_loaders(case):
    found = []
    for read in (iter, lambda loader: iter(quick(loader))):
        loader = loader_of(SETTINGS[case])
        torch.manual_seed(3)
        # What a model draws between batches must not matter.
        epochs = [[(batch, torch.rand(1)) for batch in read(loader)] for _ in range(3)]
        found.append((epochs, torch.get_rng_state(), len(loader)))
    (plain, state, length), (fast, other_state, _) = found
    assert isinstance(quick(loader), TensorRows)
    assert len(quick(loader)) == length == len(fast[0])
    assert torch.equal(state, other_state)
    for epoch, other in zip(plain, fast, strict=True):
        for (batch, drawn), (same, drawn_too) in zip(epoch, other, strict=True):
            assert type(batch) is type(same) is list
            assert all(map(torch.equal, batch, same))
            assert torch.equal(drawn, drawn_too)


class Squares(Dataset):
    """Not a TensorDataset."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index * index))


class Noisy(TensorDataset):
    """Augments, so its rows are not its tensors."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        return tuple(tensor + 1 for tensor in super().__getitem__(index))


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Squares()),
        DataLoader(Noisy(*tensors())),
        DataLoader(TensorDataset(*tensors()), collate_fn=lambda rows: rows),
        DataLoader(TensorDataset(*tensors()), num_workers=1),
        DataLoader(TensorDataset(*tensors()), batch_size=None),
        DataLoader(TensorDataset(*tensors()), sampler=WeightedRandomSampler([1.0] * 23, 23)),
        [torch.zeros(2)],
    ],
    ids=["dataset", "subclass", "collate", "workers", "no batches", "sampler", "no DataLoader"],
)
def test_what_is_no_plain_loader_stays_as_it_is(loader):
    assert quick(loader) is loader


def test_data_too_large_for_a_copy_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(tensor_rows, "free_bytes", lambda device: 1000)
    assert quick(loader_of({})) is not None
    large = DataLoader(TensorDataset(torch.zeros(300)))
    assert quick(large) is large


def test_a_hook_that_changes_its_batch_leaves_the_data_alone():
    loader = loader_of({})
    for batch in quick(loader):
        batch[0].zero_()
    assert torch.equal(loader.dataset.tensors[0], tensors()[0])
