"""Zoos of users in the laboratory: networks of a manifest, fed with its small grey images.

The manifest is that of `data.pretrained.zoo_manifest`, whatever its models are from.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from data.pretrained.pretrained_model import load_network
from data.pretrained.zoo_manifest import ZooEntry, read_zoo_manifest


@dataclass(frozen=True)
class UserModel:
    """A network of a user's zoo.

    Attributes:
        name: name of the network, unique in the manifest.
        network: network that maps (n, channels, H, W) to logits (n, K).
        size: (H, W) of the images that the network reads.
        channels: channels of the images that the network reads, 1 or 3.
        mean: number subtracted from pixels (from 0 to 1), one for each channel.
        std: number that pixels are divided by after the subtraction of `mean`, one for each channel.
        classes: number of outputs that mean something, the first ones; None for all.
        source_accuracy: accuracy of the network on its source data, from 0 to 1; None if unknown.
    """

    name: str
    network: nn.Module = field(repr=False)
    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int | None = None
    source_accuracy: float | None = None

    @property
    def parameters(self) -> int:
        """How many numbers it has learnt."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def prepare(self, images: np.ndarray) -> torch.Tensor:
        """Turn grey images (n, h, w) uint8 into what the network reads: (n, channels, H, W) float32."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).float().div(255)[:, None]
        pixels = F.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (pixels.expand(-1, self.channels, -1, -1) - mean) / std


def load_user_zoo(path: Path) -> list[UserModel]:
    """Read a manifest and build all of its networks.

    Args:
        path: the YAML file.

    Returns:
        The networks, in evaluation mode.

    Raises:
        DataError: the manifest, a module or a weights file is missing, damaged, or they don't fit each other.
    """
    return [_open(entry) for entry in read_zoo_manifest(path)]


def _open(entry: ZooEntry) -> UserModel:
    loaded = load_network(entry)
    spec = loaded.input
    return UserModel(entry.name, loaded.network, spec.size, spec.channels, spec.mean, spec.std, entry.classes,
                     entry.source_accuracy)  # fmt: skip
