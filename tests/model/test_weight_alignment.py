"""Symmetries, token layouts and statistics of network weights."""

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from model.weight_alignment import align_units, common_reference, join_vector, shuffle_units, split_vector
from model.weight_tokens import flat_layout, layer_columns, neuron_layout, weight_statistics
from model.zoo_families import FAMILIES, build_family, family_shapes, permutation_groups


def network(family: str, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return parameters_to_vector(build_family(family).parameters()).detach()


def outputs(family: str, vector: torch.Tensor) -> torch.Tensor:
    model = build_family(family)
    vector_to_parameters(vector, model.parameters())
    return model(torch.randn(5, 1, 12, 12, generator=torch.Generator().manual_seed(1))).detach()


@pytest.mark.parametrize("family", FAMILIES)
def test_shuffling_keeps_the_function_and_aligning_undoes_it(family):
    shapes, groups, vector = family_shapes(family), permutation_groups(family), network(family)
    generator = torch.Generator().manual_seed(2)
    shuffled = join_vector(shuffle_units(split_vector(vector, shapes), groups, 1.0, generator))
    assert not torch.equal(shuffled, vector)
    torch.testing.assert_close(outputs(family, shuffled), outputs(family, vector), rtol=0, atol=1e-5)
    back = align_units(split_vector(shuffled, shapes), split_vector(vector, shapes), groups)
    assert torch.equal(join_vector(back), vector)
    stranger = align_units(split_vector(shuffled, shapes), split_vector(network(family, 7), shapes), groups)
    torch.testing.assert_close(outputs(family, join_vector(stranger)), outputs(family, vector), rtol=0, atol=1e-5)


def test_a_share_of_units_changes_places():
    shapes, groups = family_shapes("mlp"), permutation_groups("mlp")
    parameters = split_vector(network("mlp"), shapes)
    same = shuffle_units(parameters, groups, 0.0, torch.Generator())
    assert torch.equal(join_vector(same), join_vector(parameters))
    some = shuffle_units(parameters, groups, 0.25, torch.Generator().manual_seed(0))["layer1.bias"]
    assert 0 < (some != parameters["layer1.bias"]).sum() <= round(0.25 * 46)


def test_common_reference_finds_the_order_of_shuffled_copies():
    shapes, groups, vector = family_shapes("cnn3"), permutation_groups("cnn3"), network("cnn3")
    generator = torch.Generator().manual_seed(0)
    copies = [shuffle_units(split_vector(vector, shapes), groups, 1.0, generator) for _ in range(4)]
    reference = common_reference(copies, groups)
    torch.testing.assert_close(join_vector(reference), join_vector(copies[0]))


@pytest.mark.parametrize("family", FAMILIES)
def test_layouts_lose_nothing(family):
    shapes = family_shapes(family)
    vectors = torch.stack([network(family, seed) for seed in range(3)])
    for layout in (neuron_layout(shapes), flat_layout(shapes, 1000)):
        tokens = layout.tokens(vectors)
        assert tokens.shape == (3, *layout.index.shape)
        assert torch.equal(layout.vectors(tokens), vectors)
        for slot, length in enumerate(layout.lengths[:-1]):
            assert not tokens[:, layout.slots == slot, length:].any(), "padding is zero"


def test_a_neuron_token_is_a_units_weights_and_bias():
    shapes, vector = family_shapes("cnn3"), network("cnn3")
    parameters, layout = split_vector(vector, shapes), neuron_layout(shapes)
    slot = layout.names.index("conv2")
    unit = layout.tokens(vector[None])[0, layout.slots == slot][3, : layout.lengths[slot]]
    expected = torch.cat([parameters["conv2.weight"][3].flatten(), parameters["conv2.bias"][3:4]])
    assert torch.equal(unit, expected)


def test_statistics_are_numpys_and_the_head_has_the_last_place():
    shapes, vectors = family_shapes("mlp"), torch.stack([network("mlp", seed) for seed in range(2)])
    statistics = weight_statistics(vectors, shapes)
    weights = vectors[1, : shapes["layer1.weight"].numel()].numpy().astype(np.float64)
    expected = [weights.mean(), weights.var(), *np.quantile(weights, [0, 0.25, 0.5, 0.75, 1])]
    np.testing.assert_allclose(statistics[1, 0], expected, rtol=1e-4, atol=1e-6)
    columns = layer_columns(statistics, tensors=10).view(2, 10, 7)
    assert torch.equal(columns[:, :4], statistics[:, :4]) and torch.equal(columns[:, -2:], statistics[:, -2:])
    assert not columns[:, 4:8].any()
