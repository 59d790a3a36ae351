"""The five architectures of the zoo: small classifiers of 12x12 grey images at one parameter budget.

None has batch statistics, so that many networks of a family can run as one under `torch.func.vmap`, and none drops
units, so that a network is a plain function of its parameters.
"""

from functools import cache
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

INPUT_SHAPE = (1, 12, 12)
OUTPUTS = 10
PARAMETER_BUDGET = (7_200, 8_192)
"""Fewest and most parameters of a family."""

PermutationGroup = list[tuple[str, int]]
"""(parameter name, axis) of every axis that one hidden width runs along."""


class MLP(nn.Module):
    """Two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Linear(144, 46)
        self.layer2 = nn.Linear(46, 24)
        self.head = nn.Linear(24, OUTPUTS)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 1, 12, 12) to logits (B, 10)."""
        hidden = F.relu(self.layer1(images.flatten(1)))
        return self.head(F.relu(self.layer2(hidden)))


class CNN3(nn.Module):
    """Three convolutions. The head is a convolution over the whole 3x3 map, so each channel is one axis of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 14, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(14, 16, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(16, 24, 3, padding=1)
        self.head = nn.Conv2d(24, OUTPUTS, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 1, 12, 12) to logits (B, 10)."""
        maps = F.relu(self.conv1(images))  # (B, 14, 6, 6)
        maps = F.relu(self.conv2(maps))  # (B, 16, 3, 3)
        maps = F.relu(self.conv3(maps))  # (B, 24, 3, 3)
        return self.head(maps).flatten(1)


class CNN5(nn.Module):
    """Five convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1)
        self.conv3 = nn.Conv2d(12, 16, 3, stride=2, padding=1)
        self.conv4 = nn.Conv2d(16, 16, 3, padding=1)
        self.conv5 = nn.Conv2d(16, 12, 3, padding=1)
        self.head = nn.Conv2d(12, OUTPUTS, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 1, 12, 12) to logits (B, 10)."""
        maps = F.relu(self.conv1(images))  # (B, 8, 6, 6)
        maps = F.relu(self.conv2(maps))  # (B, 12, 6, 6)
        maps = F.relu(self.conv3(maps))  # (B, 16, 3, 3)
        maps = F.relu(self.conv4(maps))  # (B, 16, 3, 3)
        maps = F.relu(self.conv5(maps))  # (B, 12, 3, 3)
        return self.head(maps).flatten(1)


class ResCNN(nn.Module):
    """A stem and two residual blocks of one width, at 6x6 and at 3x3."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 13, 5, stride=2, padding=2)
        self.block1_in = nn.Conv2d(13, 13, 3, padding=1)
        self.block1_out = nn.Conv2d(13, 13, 3, padding=1)
        self.block2_in = nn.Conv2d(13, 13, 3, padding=1)
        self.block2_out = nn.Conv2d(13, 13, 3, padding=1)
        self.head = nn.Conv2d(13, OUTPUTS, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 1, 12, 12) to logits (B, 10)."""
        stream = F.relu(self.stem(images))  # (B, 13, 6, 6)
        stream = F.relu(stream + self.block1_out(F.relu(self.block1_in(stream))))
        stream = F.avg_pool2d(stream, 2)  # (B, 13, 3, 3)
        stream = F.relu(stream + self.block2_out(F.relu(self.block2_in(stream))))
        return self.head(stream).flatten(1)


class MixerBlock(nn.Module):
    """Mixes tokens, then channels, each by a residual two-layer perceptron."""

    def __init__(self, tokens: int, width: int, token_hidden: int, channel_hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.token_in = nn.Linear(tokens, token_hidden)
        self.token_out = nn.Linear(token_hidden, tokens)
        self.norm2 = nn.LayerNorm(width)
        self.channel_in = nn.Linear(width, channel_hidden)
        self.channel_out = nn.Linear(channel_hidden, width)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        """Map a stream (B, tokens, width) to one of the same shape."""
        across = self.norm1(stream).transpose(1, 2)  # (B, width, tokens)
        stream = stream + self.token_out(F.relu(self.token_in(across))).transpose(1, 2)
        return stream + self.channel_out(F.relu(self.channel_in(self.norm2(stream))))


class Mixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al. 2021) of two blocks over 16 patches of 3x3 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(9, 24)
        self.block1 = MixerBlock(tokens=16, width=24, token_hidden=24, channel_hidden=56)
        self.block2 = MixerBlock(tokens=16, width=24, token_hidden=24, channel_hidden=56)
        self.norm = nn.LayerNorm(24)
        self.head = nn.Linear(24, OUTPUTS)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 1, 12, 12) to logits (B, 10)."""
        patches = images.reshape(-1, 4, 3, 4, 3).transpose(2, 3).flatten(3).flatten(1, 2)  # (B, 16, 9)
        stream = self.block2(self.block1(self.embed(patches)))  # (B, 16, 24)
        return self.head(self.norm(stream).mean(dim=1))


FAMILIES: dict[str, type[nn.Module]] = {"cnn3": CNN3, "cnn5": CNN5, "rescnn": ResCNN, "mlp": MLP, "mixer": Mixer}


def build_family(name: str) -> nn.Module:
    """Build a network of a family, with PyTorch's own initial weights.

    Args:
        name: a key of `FAMILIES`.

    Raises:
        ValueError: an unknown name.
    """
    if name not in FAMILIES:
        raise ValueError(f"there is no family {name!r}; allowed: {', '.join(FAMILIES)}.")
    return FAMILIES[name]()


@cache
def family_shapes(name: str) -> dict[str, torch.Size]:
    """Return the parameters of a family by name, with their shapes, in the order of a flat vector.

    Raises:
        ValueError: an unknown name.
    """
    with torch.device("meta"):  # no weights are drawn: the caller's random state is as before
        return {key: parameter.shape for key, parameter in build_family(name).named_parameters()}


def permutation_groups(family: str) -> list[PermutationGroup]:
    """List the hidden widths of a family whose units may be reordered without changing what the network computes.

    Reordering a group means one permutation, applied along every (parameter, axis) of it; groups are independent.
    Example of a layer's outputs: `[("layer1.weight", 0), ("layer1.bias", 0), ("layer2.weight", 1)]`.

    Args:
        family: a key of `FAMILIES`.

    Returns:
        One list of (parameter name, axis) for each hidden width.

    Raises:
        ValueError: an unknown name.
    """
    if family not in FAMILIES:
        raise ValueError(f"there is no family {family!r}; allowed: {', '.join(FAMILIES)}.")
    if family == "mlp":
        return _chain("layer1", "layer2", "head")
    if family == "cnn3":
        return _chain("conv1", "conv2", "conv3", "head")
    if family == "cnn5":
        return _chain("conv1", "conv2", "conv3", "conv4", "conv5", "head")
    if family == "rescnn":
        # What writes to the residual stream and what reads from it share one order.
        stream = _written_by("stem", "block1_out", "block2_out") + _read_by("block1_in", "block2_in", "head")
        return [stream, *_chain("block1_in", "block1_out"), *_chain("block2_in", "block2_out")]
    stream = _written_by("embed", "norm") + _read_by("head")
    inner = []
    for block in ("block1", "block2"):
        stream += _written_by(f"{block}.channel_out", f"{block}.norm1", f"{block}.norm2")
        stream += _read_by(f"{block}.channel_in")
        inner += _chain(f"{block}.token_in", f"{block}.token_out")
        inner += _chain(f"{block}.channel_in", f"{block}.channel_out")
    return [stream, *inner]


def _written_by(*layers: str) -> PermutationGroup:
    return [(f"{layer}.{parameter}", 0) for layer in layers for parameter in ("weight", "bias")]


def _read_by(*layers: str) -> PermutationGroup:
    return [(f"{layer}.weight", 1) for layer in layers]


def _chain(*layers: str) -> list[PermutationGroup]:
    """Return the hidden widths between layers that follow each other."""
    return [_written_by(before) + _read_by(after) for before, after in pairwise(layers)]
