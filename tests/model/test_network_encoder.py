"""NetworkEncoder: the order of hidden units, gradients, families beside each other."""

import pytest
import torch

from model.network_encoder import NetworkEncoder, Networks
from model.weight_alignment import join_vector, shuffle_units, split_vector
from model.zoo_families import FAMILIES, family_shapes, permutation_groups
from model.zoo_population import initial_vector


def vectors_of(family: str, count: int = 8) -> torch.Tensor:
    vectors = torch.stack([initial_vector(family, seed).detach() for seed in range(count)])
    return vectors + 0.1 * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def encoder() -> NetworkEncoder:
    torch.manual_seed(0)
    made = NetworkEncoder(list(FAMILIES), {"accuracy": 1, "domain": 3}, unit_dim=8, code_dim=16)
    made.fit_scales({family: made.prepare(vectors_of(family), family) for family in FAMILIES})
    return made.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_order_of_hidden_units_does_not_matter(encoder, family):
    shapes, groups, generator = family_shapes(family), permutation_groups(family), torch.Generator().manual_seed(3)
    vectors = vectors_of(family, 3)
    shuffled = torch.stack(
        [join_vector(shuffle_units(split_vector(vector, shapes), groups, 1.0, generator)) for vector in vectors]
    )
    codes = [encoder({family: encoder.prepare(rows, family)}) for rows in (vectors, shuffled)]
    torch.testing.assert_close(codes[0], codes[1], rtol=1e-4, atol=1e-4)
    assert (codes[0][0] - codes[0][1]).abs().max() > 0.01, "networks differ"
    assert not torch.equal(vectors, shuffled)


def test_the_order_of_output_classes_matters(encoder):
    """Which is what it should: an output stands for a class."""
    shapes = family_shapes("mlp")
    network = split_vector(vectors_of("mlp", 1)[0], shapes)
    swapped = network | {name: network[name].flip(0) for name in ("head.weight", "head.bias")}
    codes = [encoder({"mlp": encoder.prepare(join_vector(each)[None], "mlp")}) for each in (network, swapped)]
    assert (codes[0] - codes[1]).abs().max() > 0.01


def test_every_parameter_gets_a_gradient_and_families_are_read_apart(encoder):
    networks = {family: encoder.prepare(vectors_of(family), family) for family in FAMILIES}
    codes = encoder(networks)
    assert codes.shape == (40, 16)
    torch.testing.assert_close(codes[8:16], encoder({"cnn5": networks["cnn5"]}), rtol=1e-4, atol=1e-4)
    told = encoder.tell(codes)
    assert {name: tuple(values.shape) for name, values in told.items()} == {"accuracy": (40, 1), "domain": (40, 3)}
    sum(values.square().sum() for values in told.values()).backward()
    assert [name for name, value in encoder.named_parameters() if value.grad is None or not value.grad.any()] == []
    encoder.zero_grad()


def test_rows_are_the_networks_asked_for(encoder):
    networks = encoder.prepare(vectors_of("cnn3"), "cnn3")
    chosen = networks.rows(torch.tensor([5, 2]))
    assert isinstance(chosen, Networks) and len(chosen) == 2
    assert torch.equal(chosen.weights[0], networks.weights[5]) and torch.equal(chosen.norms[1], networks.norms[2])
