"""What a classifier gets wrong on validation images: which classes for which, and the images with the highest loss."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from data.images.image_dataset import ImageDataset
from data.loaders import EpochLoader

_SIDE = 96  # pixels of the longer side of a thumbnail


@dataclass(frozen=True)
class ImageReview:
    """What became of the images of a loader.

    Attributes:
        class_names: names of the classes.
        counts: (classes, classes) images by true class (row) and predicted class (column).
        keys: names of the worst images, the worst first.
        labels: true classes of these, (n,).
        predicted: classes that these were taken for, (n,).
        confidences: probabilities of these classes, (n,) float32.
        losses: cross-entropy of each, (n,) float32.
        thumbnails: (n, 96, 96, 3) uint8, each in the middle of white.
    """

    class_names: tuple[str, ...]
    counts: np.ndarray
    keys: tuple[str, ...]
    labels: np.ndarray
    predicted: np.ndarray
    confidences: np.ndarray
    losses: np.ndarray
    thumbnails: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of all images that were recognised."""
        return float(np.trace(self.counts) / max(self.counts.sum(), 1))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return it as arrays for a file."""
        return {
            "class_names": np.array(self.class_names), "counts": self.counts, "keys": np.array(self.keys, dtype=str),
            "labels": self.labels, "predicted": self.predicted, "confidences": self.confidences,
            "losses": self.losses, "thumbnails": self.thumbnails,
        }  # fmt: skip


def review_errors(
    model: nn.Module, loader: EpochLoader, images: ImageDataset, device: torch.device, worst: int
) -> ImageReview:
    """Look at what a model makes of the images of a loader.

    Args:
        model: classifier, whose mode is left as it is afterwards.
        loader: loader of labelled images.
        images: dataset that the images' numbers are of.
        device: device of the model.
        worst: most images with the highest loss that are kept.
    """
    training = model.training
    model.eval()
    columns: list[list[torch.Tensor]] = [[] for _ in range(5)]
    for batch in loader:
        labels = batch["label"].to(device)
        logits = model(batch["image"].to(device)).float()
        confidence, predicted = logits.softmax(1).max(1)
        loss = nn.functional.cross_entropy(logits, labels, reduction="none")
        for column, value in zip(columns, (batch["index"], labels, predicted, confidence, loss), strict=True):
            column.append(value.cpu())  # host-device synchronisation
    model.train(training)
    index, labels_of, predicted_of, confidences, losses = (torch.cat(column).numpy() for column in columns)
    names = images.class_names
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (labels_of, predicted_of), 1)
    order = np.argsort(-losses, kind="stable")[:worst]
    thumbnails = [thumbnail(images, int(number)) for number in index[order]]
    return ImageReview(
        names, counts, tuple(images.keys[number] for number in index[order]), labels_of[order], predicted_of[order],
        confidences[order], losses[order],
        np.stack(thumbnails) if thumbnails else np.zeros((0, _SIDE, _SIDE, 3), np.uint8),
    )  # fmt: skip


def thumbnail(images: ImageDataset, index: int) -> np.ndarray:
    """Return a small picture of an image, (96, 96, 3) uint8, whole, in the middle of white.

    Args:
        images: dataset of the image.
        index: number of the image.
    """
    from PIL import Image, ImageOps

    small = ImageOps.pad(images.image(index, 2 * _SIDE), (_SIDE, _SIDE), Image.Resampling.BILINEAR, color="white")
    return np.array(small, dtype=np.uint8)
