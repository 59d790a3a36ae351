"""Which images are trained on, validated with and tested on: the same for the same images, however they are called."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from constants.counting import counted
from data.data_error import DataError

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class ImageSplit:
    """Indices of images, each in the order of the data.

    Attributes:
        train: images to train on, (n,) int64.
        val: images to validate with.
        test: images to test on; none where nobody wants a test.
        notes: sentences on what was done that nobody has asked for.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...] = ()


def split_images(
    labels: np.ndarray,
    digests: Iterable[str],
    parts: np.ndarray | None,
    val_share: float,
    test_share: float,
    seed: int,
    class_names: tuple[str, ...],
) -> ImageSplit:
    """Divide images into three parts; copies of an image are always in one.

    A part that the data has is taken as it is, without its copies of images of a part that measures (test before val
    before train). A part that it lacks is set apart from its training images, by class: of a class with two images one
    validates, of one with three one tests too, and at least one is left to train on.

    Args:
        labels: classes, (n,) int64.
        digests: of each image a text that copies of it share.
        parts: of each image `train`, `val` or `test`, (n,); None where the data has no parts.
        val_share: share of each class's images to validate with.
        test_share: share of each class's images to test on; 0 for none.
        seed: what decides which images of a class are set apart.
        class_names: names of the classes, for messages.

    Raises:
        DataError: a part would be empty, or a class has no image to train on.
    """
    digests = tuple(digests)
    part = np.full(len(labels), "train", dtype="<U5") if parts is None else np.asarray(parts, dtype="<U5").copy()
    given = [name for name in PARTS if parts is not None and (part == name).any()]
    notes = _drop_copies(part, digests) if len(given) > 1 else []
    shares = {"test": 0.0 if "test" in given else test_share, "val": 0.0 if "val" in given else val_share}
    if sum(shares.values()) >= 1:
        raise DataError(f"val_share {val_share:g} and test_share {test_share:g} leave nothing to train on; give less.")
    missing = [name for name, share in shares.items() if share]
    if given and missing:
        notes.append(f"the data has no part {' and no part '.join(missing)}: set apart from its training images")
    copies: dict[str, list[int]] = {}
    for index in np.flatnonzero(part == "train").tolist():
        copies.setdefault(digests[index], []).append(index)
    for label in range(len(class_names)):
        # Copies under several classes belong to that of the first one.
        own = [digest for digest, indices in copies.items() if labels[indices[0]] == label]
        for name, chosen in _chosen(own, shares, seed).items():
            part[[index for digest in chosen for index in copies[digest]]] = name
    split = ImageSplit(*(np.flatnonzero(part == name) for name in PARTS), notes=tuple(notes))
    _require_parts(split, labels, class_names)
    return split


def _drop_copies(part: np.ndarray, digests: tuple[str, ...]) -> list[str]:
    """Take images out of a part whose copies are in a part that measures more."""
    notes, known = [], set[str]()
    for name, before in (("test", ()), ("val", ("test",)), ("train", ("val", "test"))):
        mine = np.flatnonzero(part == name)
        copies = [index for index in mine if digests[index] in known]
        part[copies] = "out"
        if copies:
            notes.append(
                f"{counted(len(copies), 'image')} of {name} left out: the same image is in {' or '.join(before)} too"
            )
        known |= {digests[index] for index in mine}
    return notes


def _chosen(digests: list[str], shares: dict[str, float], seed: int) -> dict[str, list[str]]:
    """Choose the different images of a class that are set apart, by part."""
    order = sorted(digests, key=lambda digest: hashlib.sha256(f"{seed} {digest}".encode()).digest())
    least = {"val": 2, "test": 3 if shares["val"] else 2}  # images of a class from which on one is for that part
    wanted = {
        name: max(1, round(share * len(order))) if share and len(order) >= least[name] else 0
        for name, share in shares.items()
    }
    while sum(wanted.values()) and sum(wanted.values()) >= len(order):  # one is left to train on
        wanted[max(wanted, key=lambda name: wanted[name])] -= 1
    ends = np.cumsum([0, *wanted.values()]).tolist()
    return {name: order[start:end] for name, start, end in zip(wanted, ends, ends[1:], strict=False)}


def _require_parts(split: ImageSplit, labels: np.ndarray, class_names: tuple[str, ...]) -> None:
    if not len(split.train):
        raise DataError("there are no images to train on: the data has a part for validation or test alone.")
    unseen = [class_names[label] for label in range(len(class_names)) if not (labels[split.train] == label).any()]
    if unseen:
        raise DataError(
            f"{counted(len(unseen), 'class')} without an image to train on: {', '.join(unseen[:5])}. Add images to the "
            "training part, or leave the class out."
        )
    if not len(split.val):
        raise DataError(
            f"no image is left to validate with: the {counted(len(class_names), 'class')} have one different image "
            "each. Give at least two images of a class."
        )
