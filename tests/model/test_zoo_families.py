"""The zoo's architectures: budgets, shapes, symmetries, and many networks run as one."""

import pytest
import torch

from model.zoo_families import (
    FAMILIES,
    INPUT_SHAPE,
    OUTPUTS,
    PARAMETER_BUDGET,
    build_family,
    family_shapes,
    permutation_groups,
)
from model.zoo_population import ZooPopulation, initial_vector, unflatten

SIZES = {family: sum(shape.numel() for shape in family_shapes(family).values()) for family in FAMILIES}


def test_families_have_one_parameter_budget():
    assert len(FAMILIES) == 5
    assert all(PARAMETER_BUDGET[0] <= size <= PARAMETER_BUDGET[1] for size in SIZES.values()), SIZES
    assert max(SIZES.values()) <= 1.1 * min(SIZES.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_family_maps_images_to_ten_logits_of_each_alone(family):
    network = build_family(family)
    images = torch.randn(4, *INPUT_SHAPE, generator=torch.Generator().manual_seed(0))
    logits = network(images)
    assert logits.shape == (4, OUTPUTS)
    torch.testing.assert_close(network(images[2:3]), logits[2:3])  # nothing is shared across a batch


@pytest.mark.parametrize("call", [build_family, permutation_groups, family_shapes])
def test_unknown_family_is_named_with_the_allowed_ones(call):
    with pytest.raises(ValueError, match="no family 'vit'; allowed: cnn3, cnn5, rescnn, mlp, mixer"):
        call("vit")


@pytest.mark.parametrize("family", FAMILIES)
def test_permuting_hidden_units_changes_weights_but_not_outputs(family):
    generator = torch.Generator().manual_seed(1)
    network = build_family(family)
    for parameter in network.parameters():  # biases and norms too, which start out all alike
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    images = torch.randn(8, *INPUT_SHAPE, generator=generator)
    before = network(images)
    state = dict(network.state_dict())
    for group in permutation_groups(family):
        width = {state[name].shape[axis] for name, axis in group}
        assert len(width) == 1, group
        order = torch.randperm(width.pop(), generator=generator)
        for name, axis in group:
            state[name] = state[name].index_select(axis, order)
    unchanged = {name for name, tensor in network.state_dict().items() if torch.equal(tensor, state[name])}
    assert unchanged <= {"head.bias", "block1.token_out.bias", "block2.token_out.bias"}  # these have no hidden axis
    network.load_state_dict(state)
    torch.testing.assert_close(network(images), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_hidden_axis_is_in_one_group(family):
    axes = [place for group in permutation_groups(family) for place in group]
    assert len(axes) == len(set(axes))
    assert {name for name, _ in axes} <= set(family_shapes(family))


def test_population_computes_what_its_networks_compute_one_by_one():
    families = ["cnn3", "cnn3", "cnn5", "rescnn", "mlp", "mixer", "mixer"]
    population = ZooPopulation(families, init_seeds=[0, 1, 0, 0, 0, 0, 1], class_counts=[10] * 7, snapshots=[1] * 7)
    chosen = [0, 1, 3, 4, 6]
    images = torch.randn(len(chosen), 3, *INPUT_SHAPE, generator=torch.Generator().manual_seed(2))
    logits = population(chosen, images)
    for place, number in enumerate(chosen):
        network = build_family(families[number])
        torch.nn.utils.vector_to_parameters(population.vectors[number], network.parameters())
        torch.testing.assert_close(logits[place], network(images[place]), atol=1e-5, rtol=1e-5)


def test_unused_outputs_are_masked_and_get_no_probability():
    population = ZooPopulation(["mlp", "mlp"], [0, 0], class_counts=[6, 10], snapshots=[1, 1])
    logits = population([0, 1], torch.zeros(2, 1, *INPUT_SHAPE))
    assert logits[0].softmax(dim=-1)[:, 6:].sum() == 0
    assert logits[1].softmax(dim=-1).min() > 0


def test_init_seed_alone_decides_the_initial_weights_and_leaves_the_random_state():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, again, other = (initial_vector("mlp", seed) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_snapshots_are_rounded_copies_and_part_of_the_state():
    population = ZooPopulation(["mlp"], [0], [10], snapshots=[2])
    population.take_snapshot(0, slot=1)
    before = population.vectors[0].detach().clone()
    with torch.no_grad():
        population.vectors[0].zero_()
    assert torch.equal(population.snapshots(0)[1], before.half())
    assert population.snapshots(0)[0].abs().sum() == 0
    assert torch.equal(population.state_dict()["snapshots_0"], population.snapshots(0))


def test_unflatten_follows_the_order_of_parameters():
    vector = initial_vector("mixer", 0).detach()
    network = build_family("mixer")
    torch.nn.utils.vector_to_parameters(vector, network.parameters())
    parts = unflatten("mixer", torch.stack([vector, 2 * vector]))
    for name, parameter in network.named_parameters():
        assert torch.equal(parts[name][0], parameter) and torch.equal(parts[name][1], 2 * parameter)
