"""Rates by layer, and what decays."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from config import ConfigError
from config.image_classifier_trainer_config import ImageClassifierTrainerConfig
from model.image_classifier import ImageClassifier
from train.images.tuned_network import entry_of, optimizer_of


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 6))
        self.blocks = nn.ModuleList([nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6)) for _ in range(2)])
        self.head = nn.Linear(6, 3)


GROUPS = (
    ("network.pos_embed",),
    *(tuple(f"network.blocks.{block}.{rest}" for rest in ("0.weight", "0.bias", "1.weight", "1.bias"))
      for block in range(2)),
    ("network.head.weight", "network.head.bias"),
)  # fmt: skip


@dataclass
class Tuned:
    classifier: ImageClassifier = field(
        default_factory=lambda: ImageClassifier(Tokens(), (0.5,), (0.5,), False, False, False)
    )
    groups: tuple = GROUPS


def test_rates_fall_towards_the_input_and_norms_and_biases_do_not_decay():
    config = ImageClassifierTrainerConfig(learning_rate=0.01, head_rate_factor=5, layer_decay=0.5, weight_decay=0.1)
    tuned = Tuned()
    optimizer = optimizer_of(config, tuned)
    names = {id(parameter): name for name, parameter in tuned.classifier.named_parameters()}
    found = {
        names[id(parameter)].removeprefix("network."): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {
        "head.weight": (pytest.approx(0.05), 0.1), "head.bias": (pytest.approx(0.05), 0.0),
        "blocks.1.1.weight": (0.01, 0.1), "blocks.1.1.bias": (0.01, 0.0),
        "blocks.1.0.weight": (0.01, 0.0), "blocks.1.0.bias": (0.01, 0.0),
        "blocks.0.1.weight": (0.005, 0.1), "blocks.0.1.bias": (0.005, 0.0),
        "blocks.0.0.weight": (0.005, 0.0), "blocks.0.0.bias": (0.005, 0.0),
        "pos_embed": (0.0025, 0.0),
    }  # fmt: skip
    assert optimizer.param_groups[0]["lr"] == 0.01 and optimizer.param_groups[1]["lr"] == 0.01


def test_what_is_frozen_is_not_optimized():
    config, tuned = ImageClassifierTrainerConfig(), Tuned()
    for name, parameter in tuned.classifier.named_parameters():
        parameter.requires_grad_(name.startswith("network.head"))
    held = [parameter for group in optimizer_of(config, tuned).param_groups for parameter in group["params"]]
    assert {id(each) for each in held} == {id(each) for each in tuned.classifier.network.head.parameters()}


def test_models_are_found_in_a_manifest_or_by_their_reference(tmp_path):
    """By name or by reference; `hub` is the manifest that ships, unless a file is called so."""
    (tmp_path / "mine.yaml").write_text("models:\n  - {model: timm/resnet18.a1_in1k, name: small, licence: mit}\n")
    for model in ("small", "timm/resnet18.a1_in1k"):
        assert entry_of(model, tmp_path / "mine.yaml").licence == "mit"
    assert entry_of("torchvision/resnet50", tmp_path / "mine.yaml").source == "torchvision"  # which it lacks
    assert entry_of("timm/resnet18.a1_in1k", tmp_path / "hub").parameters == 11689512
    with pytest.raises(ConfigError, match=r"(?s)model = smal: .*mine.yaml: did you mean small\?"):
        entry_of("smal", tmp_path / "mine.yaml")
