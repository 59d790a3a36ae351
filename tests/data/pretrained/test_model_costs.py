"""Costs of models: counts that can be done by hand, and those that their papers state."""

import pytest
import torch
from pretrained_samples import LITE0, drawn_timm
from torch import nn

from data.pretrained.input_spec import InputSpec
from data.pretrained.loaded_network import LoadedNetwork
from data.pretrained.model_costs import count_gflops, milliseconds_an_image, model_costs
from data.pretrained.network_head import find_head
from data.pretrained.pretrained_model import PretrainedModel, open_pretrained
from data.pretrained.zoo_manifest import ZooEntry


def opened(network, size):
    """Return a network of this file as a pretrained model."""
    spec = InputSpec((size, size), 3)
    return PretrainedModel(
        ZooEntry("own", "module", "a:B", where="own"), LoadedNetwork(network.eval(), spec, (), "", ""), spec,
        find_head(network, spec, (), "own"),
    )  # fmt: skip


def test_what_can_be_counted_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16 * 16, 5))
    model = opened(network, 16)
    costs = model_costs(model, batch_size=1000)
    assert costs.parameters == 8 * 27 + 8 + 2048 * 5 + 5
    assert costs.gflops == (16 * 16 * 8 * 27 + 2048 * 5) / 1e9
    # An image keeps itself, the convolution's output, that of ReLU; the gradients of the last two live beside them.
    an_image = 4 * (3 * 256 + 2 * 8 * 256)
    assert an_image <= costs.fine_tuning_memory / 1000 <= 2.5 * an_image
    double = model_costs(model, batch_size=2000).fine_tuning_memory
    assert double == pytest.approx(2 * costs.fine_tuning_memory, rel=0.01)


@pytest.mark.parametrize(
    ("name", "gflops"),
    [("resnet18", 1.814), ("vit_tiny_patch16_224", 1.258), ("mobilenetv3_small_100", 0.057)],
)
def test_multiply_adds_are_those_that_papers_state(name, gflops):
    """1.814 is also torchvision's own count; a transformer's attention counts."""
    assert count_gflops(drawn_timm(name)) == pytest.approx(gflops, rel=0.02)


def test_a_model_that_was_measured():
    """Training EfficientNet-Lite0 at 8 images took 847 MB of memory on a CPU; nothing of the model is changed."""
    model = open_pretrained(LITE0)
    before = model.weights_digest, [value.clone() for value in model.state_dict().values()]
    costs = model_costs(model, batch_size=8)
    assert costs.parameters == 4_652_008 and costs.gflops == pytest.approx(0.39, rel=0.05)
    assert all(torch.equal(a, b) for a, b in zip(before[1], model.state_dict().values(), strict=True))
    assert milliseconds_an_image(model, "cpu", repeats=1) > 0
    assert costs.fine_tuning_memory == pytest.approx(847e6, rel=0.2)
