"""Every network of a zoo as one model: the same numbers as each alone."""

import pytest
import torch

from data.model_zoo import load_zoo
from model.fine_tune_population import FineTunePopulation
from model.zoo_families import FAMILIES


@pytest.fixture(scope="module")
def entries():
    """Two networks of each family, families mixed."""
    zoo = load_zoo()
    return [[entry for entry in zoo if entry.family == family][number] for number in (0, 7) for family in FAMILIES]


@pytest.fixture
def population(entries):
    return FineTunePopulation([entry.family for entry in entries], [entry.vector() for entry in entries], 3, tasks=2)


def zero_head(network: torch.nn.Module) -> torch.nn.Module:
    for name, parameter in network.named_parameters():
        if name.startswith("head."):
            torch.nn.init.zeros_(parameter)
    return network


def test_members_cover_every_network_and_nothing_is_measured_yet(population, entries):
    assert sorted(index for members in population.members.values() for index in members) == list(range(len(entries)))
    assert all(entries[index].family == family for family, members in population.members.items() for index in members)
    assert population.accuracies.shape == (2, 10, 3) and population.accuracies.isnan().all()
    assert "accuracies" in population.state_dict(), "a resumed run needs the tasks before"


@torch.no_grad()
def test_forward_is_that_of_each_network_alone(population, entries):
    images = torch.randn(3, 5, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    logits = population(images)
    assert set(logits) == set(FAMILIES)
    for family, members in population.members.items():
        assert logits[family].shape == (2, 3, 5, 10)
        for place, index in enumerate(members):
            alone = torch.stack([entries[index].load_model()(own) for own in images])
            assert torch.allclose(logits[family][place], alone, atol=1e-5), entries[index].name


@torch.no_grad()
def test_reset_gives_pretrained_weights_with_a_head_of_zeros(population, entries):
    for rows in population.vectors.values():
        rows.add_(torch.randn(rows.shape, generator=torch.Generator().manual_seed(1)))
    population.reset()
    for family, members in population.members.items():
        rows = population.vectors[family].unflatten(0, (2, 3))
        for place, index in enumerate(members):
            wanted = torch.nn.utils.parameters_to_vector(zero_head(entries[index].load_model()).parameters())
            assert (wanted == 0).any() and all(torch.equal(row, wanted) for row in rows[place])
    for logits in population(torch.randn(3, 4, 1, 12, 12)).values():
        assert logits.abs().max() == 0


def test_a_copy_s_loss_moves_that_copy_alone(population):
    population(torch.randn(3, 4, 1, 12, 12))["mlp"][1, 2].square().sum().backward()
    moved = population.vectors["mlp"].grad.abs().sum(1) > 0
    assert moved.tolist() == [False] * 5 + [True]
    assert population.vectors["cnn3"].grad is None or not population.vectors["cnn3"].grad.any()
