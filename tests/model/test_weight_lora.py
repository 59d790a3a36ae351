"""Low-rank changes of any network's layers."""

import torch
from torch import nn

from model.weight_lora import add_low_rank_changes, merged_weights


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 16), nn.Linear(16, 5),
    )  # fmt: skip


def test_changes_begin_at_nothing_and_are_merged_into_the_plain_weights():
    plain, changed, images = network(), network(), torch.randn(2, 3, 12, 12)
    for parameter in changed.parameters():
        parameter.requires_grad_(False)
    layers = add_low_rank_changes(changed, rank=2, alpha=4, without=frozenset({"7.weight"}))
    assert layers == ["0", "3", "6"]  # neither the head nor the convolution by groups
    assert torch.equal(changed(images), plain(images))
    trained = [name for name, parameter in changed.named_parameters() if parameter.requires_grad]
    assert trained == [f"{layer}.parametrizations.weight.0.{part}" for layer in layers for part in "ab"]
    changed(images).square().sum().backward()
    optimizer = torch.optim.SGD([each for each in changed.parameters() if each.requires_grad], lr=0.1)
    optimizer.step()
    after = changed(images)
    assert not torch.allclose(after, plain(images), atol=1e-4)
    merged = merged_weights(changed)
    assert merged.keys() == plain.state_dict().keys()
    difference = merged["0.weight"] - plain.state_dict()["0.weight"]
    assert torch.linalg.matrix_rank(difference.flatten(1), atol=1e-6) == 2
    plain.load_state_dict(merged)
    assert torch.allclose(plain(images), after, atol=1e-6)


def test_layers_that_are_smaller_than_the_change_have_none():
    assert add_low_rank_changes(network(), rank=8, alpha=8, without=frozenset()) == ["6"]
