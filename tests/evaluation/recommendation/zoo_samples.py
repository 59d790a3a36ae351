"""Images and models for tests of `python recommend.py photos/ --zoo zoo.yaml`, made on the spot."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

NETWORKS = '''
import time
from pathlib import Path

import torch
from torch import nn


class Looks(nn.Module):
    """Mean colours in a grid of cells, through a random layer: the finer the grid, the more it knows."""

    def __init__(self, cells=4, waits_for=None):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(cells)
        self.mix = nn.Linear(3 * cells * cells, 24)
        self.head = nn.Linear(24, 5)
        self.waits_for = waits_for

    def forward(self, images):
        if self.waits_for:
            Path(self.waits_for + ".begun").touch()
            while not Path(self.waits_for).exists():
                time.sleep(0.02)
        return self.head(torch.relu(self.mix(self.pool(images).flatten(1))))


class Broken(Looks):
    def forward(self, images):
        return super().forward(images / 0)


class Blind(Looks):
    def forward(self, images):
        return super().forward(images * 0)
'''


def write_photos(folder: Path, images: int = 30, side: int = 40, seed: int = 0) -> Path:
    """Write PNGs of three classes that differ in where they are bright, with much noise.

    Args:
        folder: folder to make.
        images: images of each class.
        side: sides of the images in pixels.
        seed: seed of the noise.
    """
    generator = np.random.default_rng(seed)
    for number, name in enumerate(("left", "right", "middle")):
        (folder / name).mkdir(parents=True)
        for image in range(images):
            pixels = generator.normal(110, 70, (side, side, 3))
            width = side // 4
            start = (0, side - width, (side - width) // 2)[number]
            pixels[:, start : start + width] += 28 + generator.normal(0, 22)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{image:03}.png")
    return folder


def write_zoo(folder: Path, *models: dict) -> Path:
    """Write a manifest of small networks, their module and their weights.

    Args:
        folder: folder to write to.
        models: for each its name, `kind` (Looks, Broken, Blind), `arguments`, and facts of manifests.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "look_networks.py").write_text(NETWORKS)
    rows = []
    for number, model in enumerate(models):
        own = dict(model)
        arguments = own.pop("arguments", {})
        cells = arguments.get("cells", 4)
        torch.manual_seed(number)
        shapes = {"mix.weight": (24, 3 * cells**2), "mix.bias": (24,), "head.weight": (5, 24), "head.bias": (5,)}
        save_file({key: torch.randn(shape) / 3 for key, shape in shapes.items()}, folder / f"{own['name']}.safetensors")
        own |= {
            "module": f"look_networks:{own.pop('kind', 'Looks')}", "arguments": arguments,
            "weights": f"{own['name']}.safetensors",
            "input": {"size": [32, 32], "channels": 3, "mean": 0.5, "std": 0.25},
        }  # fmt: skip
        rows.append(f"  - {json.dumps(own)}\n")
    (folder / "zoo.yaml").write_text("models:\n" + "".join(rows))
    return folder / "zoo.yaml"
