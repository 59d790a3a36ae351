"""Families as graphs: units, weights between them, and scales that are free."""

import pytest
import torch
from torch.func import functional_call

from model.weight_graph import weight_graph
from model.zoo_families import FAMILIES, build_family
from model.zoo_population import initial_vector, unflatten


def networks(family: str, count: int = 3) -> torch.Tensor:
    vectors = torch.stack([initial_vector(family, seed).detach() for seed in range(count)])
    return vectors + 0.1 * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_balanced_networks_compute_the_same_with_incoming_norms_of_one(family):
    graph, vectors = weight_graph(family), networks(family)
    balanced, norms = graph.balanced(vectors)
    images = torch.rand(5, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    network = build_family(family)
    for before, after in zip(vectors, balanced, strict=True):
        logits = [functional_call(network, unflatten(family, vector), (images,)) for vector in (before, after)]
        torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)
    again, now = graph.balanced(balanced)
    torch.testing.assert_close(again, balanced, rtol=1e-4, atol=1e-5)
    start = 0
    for layer in graph.layers:
        own = slice(start, start + layer.units)
        start += layer.units
        if layer.rescalable:
            assert norms[:, own, 0].abs().max() > 0.01 and now[:, own, 0].abs().max() < 1e-4, layer.name
    assert start == graph.units == norms.shape[1]


def test_only_hidden_widths_without_norms_can_be_rescaled():
    layers = {layer.name: layer for layer in weight_graph("mixer").layers}
    assert not layers["embed"].rescalable and not layers["embed"].ordered  # its stream is normalised
    assert layers["block1.channel_in"].rescalable and not layers["head"].rescalable
    assert layers["input of embed"].is_input and layers["block1.token_out"].ordered
    (stream,) = [layer for layer in weight_graph("rescnn").layers if layer.name == "stem"]
    assert stream.rescalable and stream.writers == ("stem.weight", "block1_out.weight", "block2_out.weight")
