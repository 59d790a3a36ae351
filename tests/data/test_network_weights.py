"""Splits by network, and loaders whose tensors are made anew each epoch."""

import pytest
import torch

from data.data_error import DataError
from data.model_zoo import load_zoo
from data.network_weights import AugmentedLoader, split_networks


def test_split_is_by_network_and_family():
    zoo = load_zoo()
    split = split_networks(zoo, 0.125, 0.25, seed=3)
    parts = [set(split.train), set(split.val), set(split.test)]
    assert set.union(*parts) == set(range(96)) and sum(map(len, parts)) == 96
    assert split == split_networks(zoo, 0.125, 0.25, seed=3) != split_networks(zoo, 0.125, 0.25, seed=4)
    for family in {entry.family for entry in zoo}:
        assert sum(zoo.entries[index].family == family for index in split.test) == 5


def test_an_empty_part_is_told():
    with pytest.raises(
        DataError, match=r"96 networks; with val_share = 0.01 and test_share = 0.25 there is none for val"
    ):
        split_networks(load_zoo(), 0.01, 0.25, seed=0)


def test_augmented_batches_come_from_seed_and_epoch_alone():
    loader = AugmentedLoader(lambda generator: {"x": torch.randn(10, generator=generator)}, batch_size=4, seed=1)
    assert len(loader) == 3 and len(loader.dataset) == 10
    loader.set_epoch(5)
    first = torch.cat([batch["x"] for batch in loader])
    other = torch.cat([batch["x"] for batch in loader])
    loader.set_epoch(5)
    assert torch.equal(torch.cat([batch["x"] for batch in loader]), first)
    assert not torch.equal(other.sort().values, first.sort().values), "new numbers, not only a new order"
