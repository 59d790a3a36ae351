"""ModelAutoEncoder: codes, padding, principal components, model tokens."""

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from model.model_auto_encoder import ModelAutoEncoder
from model.weight_alignment import join_vector, shuffle_units, split_vector
from model.zoo_families import build_family, family_shapes, permutation_groups

FAMILIES = ("mlp", "cnn3")


def networks(family: str, count: int = 6) -> torch.Tensor:
    rows = []
    for seed in range(count):
        torch.manual_seed(seed)
        rows.append(parameters_to_vector(build_family(family).parameters()).detach())
    return torch.stack(rows)


def build(**options) -> ModelAutoEncoder:
    torch.manual_seed(0)
    return ModelAutoEncoder(
        shapes={family: family_shapes(family) for family in FAMILIES},
        groups={family: permutation_groups(family) for family in FAMILIES},
        **{"hidden_dims": (32,), **options},
    ).eval()


def all_tokens(model: ModelAutoEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [model.tokens_of(networks(family), family) for family in FAMILIES]
    return (
        torch.cat([tokens.flatten(0, 1) for tokens, _ in parts]),
        torch.cat([slots.repeat(len(tokens)) for tokens, slots in parts]),
    )


def test_codes_and_tokens_are_zero_where_a_slot_has_nothing():
    model = build()
    tokens, slots = all_tokens(model)
    back, codes = model(tokens, slots)
    assert back.shape == tokens.shape and codes.shape == (len(tokens), model.code_width)
    assert not (back * (1 - model.mask[slots])).any()
    assert not (codes * (1 - model.code_mask[slots])).any()
    lengths, code_lengths = model.mask.sum(1), model.code_mask.sum(1)
    assert torch.equal(code_lengths, (lengths / 4).floor().clamp(min=1))


def test_before_training_it_is_the_principal_components_of_each_slot():
    model = build()
    tokens, slots = all_tokens(model)
    model.fit_slots(tokens, slots)
    back = model(tokens, slots)[0].detach().numpy()
    for slot in range(len(model.mask)):
        length, keep = int(model.mask[slot].sum()), int(model.code_mask[slot].sum())
        rows = tokens[slots == slot, :length].numpy().astype(np.float64)
        left, sizes, right = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
        expected = (left[:, :keep] * sizes[:keep]) @ right[:keep] + rows.mean(0)
        np.testing.assert_allclose(back[slots == slot][:, :length], expected, atol=1e-4)


def test_rows_of_a_batch_do_not_touch_each_other():
    model = build()
    tokens, slots = all_tokens(model)
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:50]
    torch.testing.assert_close(model(tokens[order], slots[order])[0], model(tokens, slots)[0][order])


def test_every_parameter_learns():
    model = build().train()
    tokens, slots = all_tokens(model)
    model.fit_slots(tokens, slots)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):  # the perceptrons' last layers start at zero, so those before them move from the second step on
        optimizer.zero_grad()
        (model(tokens, slots)[0] - tokens).square().mean().backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_model_tokens_do_not_depend_on_the_order_of_hidden_units():
    model = build(references={family: 2 for family in FAMILIES})
    for family in FAMILIES:
        model.get_buffer(f"references_{family}").copy_(networks(family)[:2])
    # As trained networks are: not far from where they began. Of strangers, matching finds some local optimum.
    vectors = networks("cnn3")[:2] + 0.05 * torch.randn(2, 1, generator=torch.Generator().manual_seed(4))
    vectors = vectors + 0.02 * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(5))
    groups, shapes, generator = permutation_groups("cnn3"), family_shapes("cnn3"), torch.Generator().manual_seed(3)
    shuffled = torch.stack(
        [join_vector(shuffle_units(split_vector(vector, shapes), groups, 1.0, generator)) for vector in vectors]
    )
    tokens = [model.model_tokens(*model.canonical(rows, "cnn3"), "cnn3") for rows in (vectors, shuffled)]
    assert tokens[0].shape == (2, 512)
    torch.testing.assert_close(tokens[0], tokens[1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(tokens[0][0], tokens[0][1])


def test_canonical_takes_the_nearest_reference():
    model = build(references={"mlp": 2})
    model.references_mlp.copy_(networks("mlp")[:2])
    near = networks("mlp")[1] + 0.01
    vectors, references = model.canonical(near[None], "mlp")
    assert torch.equal(references[0], networks("mlp")[1])
    torch.testing.assert_close(vectors[0], near)


def test_a_whole_network_comes_back_when_the_code_is_long_enough():
    model = build(compression=1.0, code_dim=4096)
    tokens, slots = all_tokens(model)
    model.fit_slots(tokens, slots)
    vectors = networks("mlp")
    back = model.reconstruct(vectors, torch.zeros_like(vectors), "mlp")
    error = (back - vectors).square().sum() / (vectors - vectors.mean(0)).square().sum()
    assert error < 0.05  # slots with fewer units than numbers in the code are exact, the first layer nearly


def test_flat_tokens_are_the_vector_in_pieces():
    model = build(tokenization="flat", chunk_width=4096)
    vectors = networks("mlp")
    tokens, slots = model.tokens_of(vectors, "mlp")
    assert tokens.shape == (6, 2, 4096) and slots.tolist() == [0, 1]
    assert model.model_tokens(vectors, torch.zeros_like(vectors), "mlp").shape == (6, 512)


def test_a_code_that_is_too_small_is_told():
    with pytest.raises(ValueError, match=r"code_dim = 100 is too small: .* of a mlp network .*, \d+ numbers"):
        build(code_dim=100)


def test_what_lies_along_a_family_s_directions_is_kept_whole():
    model = build(directions=2)
    draw = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(networks("mlp").shape[1], 2, generator=draw)).Q.T
    rows = 3 + torch.randn(9, 2, generator=draw) @ axes
    model.fit_directions(rows, "mlp")
    places, known = model.along(rows, "mlp")
    assert places.shape == (9, 2)
    torch.testing.assert_close(known, rows, rtol=1e-4, atol=1e-4)
    assert model.tokens_of(rows, "mlp")[0].abs().max() < 1e-4, "nothing is left for the units' codes"
    assert model.tokens_of(rows, "mlp", torch.zeros_like(rows))[0].abs().max() > 2


def test_codes_go_to_the_slots_that_differ_most_and_are_as_many_as_before():
    model = build()
    tokens, slots = all_tokens(model)
    before = model.code_mask.sum(1).clone()
    first = slots == model.first_slot["mlp"]
    tokens[first] *= 1e-3  # nothing to tell in the first layer of the mlp
    model.fit_slots(tokens, slots)
    after = model.code_mask.sum(1)
    units = torch.cat([torch.bincount(layout.slots) for layout in model.layouts.values()])
    own = slice(model.first_slot["mlp"], model.first_slot["mlp"] + 3)
    assert after[own][0] < before[own][0] / 2 and (after[own][1:] > before[own][1:]).all()
    assert (units[own] * after[own]).sum() <= (units[own] * before[own]).sum()
