"""What a dataset is like, in some hundred numbers, kept beside a table of results: so that datasets can be compared."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from data.image_encoder import GradientEncoder
from data.images.image_dataset import ImageDataset
from storage.file_lock import FolderLock
from storage.files import write_json

ENCODER = "64x64: grey levels and gradients by 4x4 cells, colours by 4x4 cells; version 1"
"""Which numbers the features are; those of others can't be compared with them."""
_SIDE = 64
_MOST_IMAGES = 256
_COLOUR_CELLS = 4


def describe_dataset(images: ImageDataset) -> dict[str, object]:
    """Describe a dataset; the same images are described by the same numbers.

    Args:
        images: the dataset. Up to 256 images, spread evenly over it, are opened.

    Returns:
        Plain data: `digest`, `images`, `classes`, `largest_class` (share of the images), `encoder`, `features`, the
        mean over images, and `spread`, their standard deviation, 368 numbers each.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), _MOST_IMAGES)).round().astype(int))
    pixels = np.stack([_small(images, int(index)) for index in chosen])
    colours = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255)
    grey = (pixels @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
    features = torch.cat(
        [GradientEncoder()(grey), F.adaptive_avg_pool2d(colours, _COLOUR_CELLS).flatten(1),
         F.adaptive_avg_pool2d(colours.square(), _COLOUR_CELLS).flatten(1)], 1
    ).double()  # fmt: skip
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    return {
        "digest": images.digest,
        "images": len(images),
        "classes": len(images.class_names),
        "largest_class": round(float(counts.max() / counts.sum()), 6),
        "encoder": ENCODER,
        "features": [round(value, 6) for value in features.mean(0).tolist()],
        "spread": [round(value, 6) for value in features.std(0, unbiased=False).tolist()],
    }


def _small(images: ImageDataset, index: int) -> np.ndarray:
    from PIL import Image

    return np.array(images.image(index, _SIDE).resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.uint8)


def descriptions_file(table: Path) -> Path:
    """Return the file beside a table of results that describes its datasets."""
    return table.with_name(f"{table.stem}_datasets.json")


def read_descriptions(table: Path) -> dict[str, dict[str, object]]:
    """Return what is known of the datasets of a table, by digest; nothing where no file is there, or none that fits.

    Args:
        table: file of the table.
    """
    try:
        content = json.loads(descriptions_file(table).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    datasets = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(datasets, dict):
        return {}
    return {digest: each for digest, each in datasets.items() if isinstance(each, dict)}


def add_description(table: Path, name: str, description: Mapping[str, object]) -> None:
    """Add what a dataset is like to the file beside a table. Several processes may add at a time.

    Args:
        table: file of the table.
        name: name of the dataset in the table.
        description: what `describe_dataset` has found.

    Raises:
        OutputError: it can't be written.
    """
    table.parent.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(table.parent)
    lock.take(wait=True)
    try:
        known = read_descriptions(table)
        known[str(description["digest"])] = {"name": name, **description}
        write_json(descriptions_file(table), {"schema_version": 1, "datasets": known})
    finally:
        lock.release()


def dataset_distance(one: Mapping[str, object], other: Mapping[str, object]) -> float | None:
    """Return how far two datasets are from each other, 0 for the same; None where they can't be compared.

    The distance between normal distributions with the means and deviations of the features, each by itself
    (2-Wasserstein).

    Args:
        one: description of a dataset.
        other: description of another one.
    """
    if one.get("encoder") != other.get("encoder"):
        return None
    rows = [np.array([each["features"], each["spread"]], dtype=float) for each in (one, other)]
    return float(np.sqrt(np.square(rows[0] - rows[1]).sum()))
