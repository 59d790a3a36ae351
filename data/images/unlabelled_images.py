"""Images whose classes nobody knows, or asks for: what a classifier is to predict."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constants.counting import counted
from data.data_error import DataError
from data.images.image_dataset import read_image_dataset

if TYPE_CHECKING:
    from PIL.Image import Image

    from data.images.image_sources import ImageSource


@dataclass(frozen=True)
class UnlabelledImages:
    """Images by number.

    Attributes:
        keys: path of each image relative to the folder, or its row.
        source: opens the images, in the order of `keys`.
        notes: sentences on what was left out.
    """

    keys: tuple[str, ...]
    source: "ImageSource"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def image(self, index: int, at_least: int | None = None) -> "Image":
        """Open an image as RGB; `at_least` as `ImageDataset.image` has it."""
        return self.source.image(index, at_least)


def read_unlabelled_images(path: Path, images: str | None = None, labels: str | None = None) -> UnlabelledImages:
    """Find the images of a folder and of all folders in it, whatever these are called; or one image file.

    Each is opened once: one that can't be is left out, and told.

    Args:
        path: the folder, or a file of images with labels, as a dataset to train on is.
        images: column of images in a table; None finds it.
        labels: column of labels in a table; None finds it.

    Raises:
        DataError: there are no images, or they can't be read.
    """
    from data.images.decoding import IMAGE_SUFFIXES  # needs Pillow
    from data.images.image_checks import check_images
    from data.images.image_folder import list_folder, shown
    from data.images.image_sources import FileImages

    path = path.expanduser()
    if not path.exists():
        raise DataError(f"there is nothing at {path}: predict_data names a folder of images, or an image.")
    if path.is_file() and path.suffix.lower() not in IMAGE_SUFFIXES:
        known = read_image_dataset(path, labels=labels, images=images)
        return UnlabelledImages(known.keys, known.source, known.notes)
    if path.is_file():
        keys, paths, left_out = [path.name], [str(path)], []
    else:
        found = list_folder(path)
        keys = [shown(way) for way in found.images]
        paths = [os.path.join(path, *way) for way in found.images]
        left_out = [f"{each.key}: {each.reason}" for each in found.left_out]
    source = FileImages(paths)
    reasons = [check.reason for check in check_images(source)]
    left_out += [f"{key}: {reason}" for key, reason in zip(keys, reasons, strict=True) if reason]
    kept = [row for row, reason in enumerate(reasons) if not reason]
    if not kept:
        why = f": {left_out[0]}" if left_out else ""
        raise DataError(f"{path} has no image that can be read{why}.")
    notes = [f"{counted(len(left_out), 'image')} left out: {'; '.join(left_out[:5])}"] if left_out else []
    return UnlabelledImages(tuple(keys[row] for row in kept), FileImages([paths[row] for row in kept]), tuple(notes))
