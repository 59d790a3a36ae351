"""A user's images with their classes: read from a folder, a table or arrays, checked once, opened one at a time."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from constants.counting import counted
from data.data_error import DataError
from data.images.decoding import ImageError
from data.images.found_images import LAYOUTS, FoundImages, LeftOut
from data.images.image_arrays import read_idx_pairs, read_npz
from data.images.image_folder import list_folder, read_class_folders, refuse_folder
from data.images.image_sources import ImageSource

__all__ = ["ImageDataset", "LeftOut", "read_image_dataset"]

FEWEST_IMAGES = 2
"""Of a class: an only image can't be both learnt from and tested on."""
_THREADS = 8


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images with their classes; immutable, and can be sent to workers of a loader.

    Attributes:
        name: name of the file or folder, without suffix.
        origin: the file or folder that was read.
        keys: path of each image relative to the folder, or its row, such as `row 12`.
        labels: (n,) int64, number of each image's class.
        class_names: names of the classes by their numbers.
        digests: hexadecimal SHA-256 of each image's bytes (of its pixels where they come from an array).
        left_out: images that could not be used, each with the reason.
        notes: what was done with the data, each a sentence to be shown to the user.
        source: opens the images.
        parts: (n,) text, train, val or test for each image; None where the data have no parts.
    """

    name: str
    origin: Path
    keys: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    digests: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    source: ImageSource = field(repr=False)
    parts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of all images in their order, their labels and the names of the classes."""
        whole = hashlib.sha256()
        for text in (*self.class_names, "", *self.digests):
            whole.update(text.encode("utf-8", "surrogateescape") + b"\0")
        whole.update(self.labels.astype("<i8").tobytes())
        return whole.hexdigest()

    @cached_property
    def groups(self) -> np.ndarray:
        """(n,) int64, equal for copies of one image: a fair split keeps a group on one side."""
        return np.unique(np.array(self.digests), return_inverse=True)[1].reshape(-1).astype(np.int64)

    def image(self, index: int, at_least: int | None = None) -> Image.Image:
        """Open an image as RGB, the right way up, over white where it is transparent, 16 bits scaled to 8.

        Args:
            index: number of the image.
            at_least: pixels that the shorter side needs; lets a larger JPEG be decoded at a half, a quarter or an
                eighth, which is faster and not quite what resizing the whole gives. None decodes all of it.

        Returns:
            The image, mode RGB.

        Raises:
            DataError: it can't be opened any more: it could when the dataset was read.
        """
        try:
            return self.source.image(index, at_least)
        except ImageError as error:
            raise DataError(
                f"{self.origin}: {self.keys[index]} can't be opened any more: {error}. It could when the dataset was "
                "read; put it back, or start again: what can't be opened is then left out."
            ) from error

    def subset(self, indices: np.ndarray) -> "ImageDataset":
        """Return a dataset of some of the images, in that order, with the same classes.

        Args:
            indices: (m,) whole numbers, or (n,) bool.
        """
        rows = np.arange(len(self))[indices]
        return replace(
            self, keys=tuple(self.keys[row] for row in rows), labels=self.labels[rows],
            digests=tuple(self.digests[row] for row in rows), source=self.source.chosen(rows),
            parts=None if self.parts is None else self.parts[rows],
        )  # fmt: skip


def read_image_dataset(
    path: Path, *, labels: str | None = None, images: str | None = None, max_images: int | None = None, seed: int = 0
) -> ImageDataset:
    """Read a user's images: a folder with a sub-folder for each class, an .npz, IDX files, a CSV or parquet.

    Every image that is in the result was opened once. What can't be opened is in `left_out`; what was done besides, in
    `notes`.

    Args:
        path: the file or folder.
        labels: name of the column or array of labels; None finds it.
        images: name of the column or array of images; None finds it.
        max_images: the most images that are taken, of each class in proportion, at least 2; None takes all.
        seed: seed of which are taken.

    Returns:
        The dataset: at least 2 classes with at least 2 images each.

    Raises:
        DataError: it is missing, in no form that is read, or too little; the text says what to do.
    """
    path = Path(path).expanduser()
    if max_images is not None and max_images < 2 * FEWEST_IMAGES:
        raise DataError(f"max_images is {max_images}; at least {2 * FEWEST_IMAGES} are needed: 2 of each of 2 classes.")
    found = _find(path, labels, images)
    name = path.resolve().name if path.is_dir() else path.stem
    rows = _sampled(found, max_images, seed)
    if len(rows) < len(found.keys):
        found.notes.append(
            f"{len(rows):,} of {len(found.keys):,} images were drawn, of each class in proportion (seed {seed})"
        )
    source = found.source.chosen(rows)
    with ThreadPoolExecutor(min(_THREADS, 2 * (os.cpu_count() or 1))) as pool:
        checks = list(pool.map(source.check, range(len(rows))))
    good = np.array([not reason for _, reason in checks], bool)
    left_out = [
        *found.left_out,
        *(LeftOut(found.keys[row], reason) for row, (_, reason) in zip(rows, checks, strict=True) if reason),
    ]
    number_of = {name: number for number, name in enumerate(found.class_names)}
    numbers = np.array([number_of[found.classes[row]] for row in rows], np.int64)
    counts = np.bincount(numbers[good], minlength=len(found.class_names))
    notes = list(found.notes)
    few = [name for name, count in zip(found.class_names, counts.tolist(), strict=True) if count < FEWEST_IMAGES]
    for name_of_class in few:
        count = counts[number_of[name_of_class]]
        said = "an empty folder" if count == 0 else "1 image, which can't be both learnt from and tested on"
        notes.append(f"class {name_of_class} is left out: {said}")
    keep = good & (counts[numbers] >= FEWEST_IMAGES)
    kept = [name for name in found.class_names if name not in few]
    if len(kept) < 2:
        raise DataError(_too_few(path, found, counts, left_out))
    new_number = np.full(len(found.class_names), -1, np.int64)
    for number, name_of_class in enumerate(kept):
        new_number[number_of[name_of_class]] = number
    at = np.flatnonzero(keep)
    return ImageDataset(
        name, path, tuple(found.keys[rows[row]] for row in at), new_number[numbers[at]], tuple(kept),
        tuple(checks[row][0] for row in at), tuple(left_out), tuple(notes), source.chosen(at),
        None if found.parts is None else np.array([found.parts[rows[row]] for row in at]),
    )  # fmt: skip


def _find(path: Path, labels: str | None, images: str | None) -> FoundImages:
    if path.is_dir():
        found = read_idx_pairs(path) or read_class_folders(path)
        if found is None:
            raise refuse_folder(path, list_folder(path))
        return found
    if not path.exists():
        raise DataError(f"there is no file or folder {path}.")
    if path.suffix.lower() == ".npz":
        return read_npz(path, labels, images)
    raise DataError(f"{path} is not read.\n{LAYOUTS}")


def _sampled(found: FoundImages, max_images: int | None, seed: int) -> np.ndarray:
    return np.arange(len(found.keys))


def _too_few(path: Path, found: FoundImages, counts: np.ndarray, left_out: list[LeftOut]) -> str:
    said = ", ".join(f"{name} {count:,}" for name, count in zip(found.class_names, counts.tolist(), strict=True))
    broken = ""
    if left_out:
        unusable = counted(len(left_out), "image")
        broken = f" {unusable} can't be used, such as {left_out[0].key}: {left_out[0].reason}."
    return (
        f"{path}: at least 2 classes with at least {FEWEST_IMAGES} images each are needed; there are {said or 'none'}."
        f"{broken}"
    )
