"""A user's images with their classes: read from a folder, a table or arrays, checked once, opened one at a time."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from constants.counting import counted
from data.data_error import DataError
from data.images.decoding import ImageError
from data.images.found_images import LAYOUTS, FoundImages, LeftOut
from data.images.image_checks import check_images
from data.images.image_reader import find_images
from data.images.image_selection import (
    FEWEST_IMAGES,
    classes_left_out,
    draw_images,
    find_copies,
    similar_classes,
    told_classes,
    white_of,
)
from data.images.image_sources import ImageSource

__all__ = ["ImageDataset", "LeftOut", "read_image_dataset"]


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
        """(n,) int64, equal for copies of one image, by their first: a fair split keeps a group on one side."""
        numbers = {digest: number for number, digest in enumerate(dict.fromkeys(self.digests))}
        return np.array([numbers[digest] for digest in self.digests], np.int64)

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
    path: Path,
    *,
    labels: str | None = None,
    images: str | None = None,
    max_images: int | None = None,
    seed: int = 0,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageDataset:
    """Read a user's images: a folder with a sub-folder for each class, a CSV, an .npz, Parquet or IDX files.

    Every image of the result was opened once. What can't be opened is in `left_out`; what was done besides, in `notes`.

    Args:
        path: the file or folder.
        labels: name of the column or array of labels; None finds it.
        images: name of the column or array of images; None finds it.
        max_images: the most images that are taken, of each class in proportion, at least 2; None takes all.
        seed: seed of which are taken.
        cache: folder in which the digests of files are remembered: a file that hasn't changed isn't read again. None
            remembers nothing.
        progress: called with the number of images that were opened, and of all, at most 200 times.

    Returns:
        The dataset: at least 2 classes with at least 2 images each.

    Raises:
        DataError: it is missing, in no form that is read, or too little; the text says what to do.
    """
    path = Path(path).expanduser()
    if max_images is not None and max_images < 2 * FEWEST_IMAGES:
        raise DataError(f"max_images is {max_images}; at least {2 * FEWEST_IMAGES} are needed: 2 of each of 2 classes.")
    found = find_images(path, labels, images)
    rows = draw_images(found, max_images, seed)
    notes = list(found.notes)
    if len(rows) < len(found.keys):
        notes.append(
            f"{len(rows):,} of {len(found.keys):,} images were drawn, of each class in proportion (seed {seed})"
        )
    source = found.source.chosen(rows)
    checks = check_images(source, cache, progress)
    left_out = [*found.left_out]
    left_out += [LeftOut(found.keys[row], check.reason)
                 for row, check in zip(rows, checks, strict=True) if check.reason]  # fmt: skip
    source, told = _scaled(source, max((check.brightest for check in checks), default=0))
    notes += told

    usable = [index for index, check in enumerate(checks) if not check.reason]
    keys = [found.keys[rows[index]] for index in usable]
    classes = [found.classes[rows[index]] for index in usable]
    parts = [found.parts[rows[index]] for index in usable] if found.parts else None
    digests = [_with_scaling(checks[index].digest, source.scaling) for index in usable]

    few = classes_left_out(found, classes, parts)
    kept = [index for index, name in enumerate(classes) if name not in few]
    copies = find_copies(kept, keys, classes, parts, digests)
    left_out += [LeftOut(keys[index], f"the same image as {keys[first]}") for index, first in copies.left_out.items()]
    kept = [index for index in kept if index not in copies.left_out]
    kept_parts = [parts[index] for index in kept] if parts else None
    few = classes_left_out(found, [classes[index] for index in kept], kept_parts) | few
    class_names = [name for name in found.class_names if name not in few]
    notes += [*told_classes(few), *similar_classes(class_names), *copies.notes]
    if len(class_names) < 2:
        raise DataError(_too_few(path, found, classes, left_out))
    number_of = {name: number for number, name in enumerate(class_names)}
    kept = [index for index in kept if classes[index] in number_of]
    return ImageDataset(
        path.resolve().name if path.is_dir() else path.stem, path, tuple(keys[index] for index in kept),
        np.array([number_of[classes[index]] for index in kept], np.int64), tuple(class_names),
        tuple(digests[index] for index in kept), tuple(left_out), tuple(notes),
        source.chosen(np.array(usable)[kept]),
        np.array([parts[index] for index in kept]) if parts else None,
    )  # fmt: skip


def _scaled(source: ImageSource, brightest: int) -> tuple[ImageSource, list[str]]:
    """Choose what white is in images of 16-bit grey, by the highest level of all."""
    white = white_of(brightest)
    if not brightest or white_of(white + 1) == white:  # there are none, or they use all 16 bits
        return source, []
    return source.with_white(white), [f"levels of 16-bit images end at {brightest:,}: {white:,} is taken as white"]


def _with_scaling(digest: str, scaling: str) -> str:
    return hashlib.sha256(f"{digest} {scaling}".encode()).hexdigest() if scaling else digest


def _too_few(path: Path, found: FoundImages, classes: list[str], left_out: list[LeftOut]) -> str:
    counts = [f"{name} {classes.count(name):,}" for name in found.class_names[:10]]
    more = f" and {len(found.class_names) - 10:,} more" if len(found.class_names) > 10 else ""
    broken = ""
    if left_out:
        unusable = counted(len(left_out), "image")
        broken = f" {unusable} can't be used, such as {left_out[0].key}: {left_out[0].reason}."
    return (
        f"{path}: at least 2 classes with at least {FEWEST_IMAGES} images each are needed; there are "
        f"{', '.join(counts) or 'none'}{more}.{broken} {_what_to_do(found, left_out)}"
    )


def _what_to_do(found: FoundImages, left_out: list[LeftOut]) -> str:
    if len(found.class_names) < 2:
        return f"Add a folder, or label, for a second class.{found.hint}\n{LAYOUTS}"
    if len(left_out) > len(found.keys) / 2:
        return "Mend these, or add others."
    return f"Add images to the classes.{found.hint}"
