"""Which of the images that were found make the dataset: drawn, without copies between parts, of classes with enough."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from constants.counting import counted
from data.images.decoding import WHITE_16_BIT
from data.images.found_images import TRAIN, VALIDATION, FoundImages

FEWEST_IMAGES = 2
"""Of a class: an only image can't be both learnt from and tested on."""
_NARROWER = (255, 1023, 4095)  # levels of 8, 10 and 12 bits, which cameras and scanners keep in 16
_NAMED = 5  # classes that a note names


def draw_images(found: FoundImages, max_images: int | None, seed: int) -> np.ndarray:
    """Draw images of each class, and part, in proportion.

    Args:
        found: all images.
        max_images: the most that are drawn; at least 2 of each class and part are, where it has them. None takes all.
        seed: seed of which are drawn. A larger `max_images` adds to those of a smaller one, up to rounding.

    Returns:
        Their rows, ascending.
    """
    count = len(found.keys)
    if max_images is None or count <= max_images:
        return np.arange(count)
    strata: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in range(count):
        strata[(found.parts[row] if found.parts else "", found.classes[row])].append(row)
    names = sorted(strata)
    sizes = np.array([len(strata[name]) for name in names])
    quota = np.minimum(sizes, FEWEST_IMAGES)
    rest = max_images - int(quota.sum())
    if rest > 0:
        shares = rest * (sizes - quota) / max(1, int((sizes - quota).sum()))
        quota = quota + np.floor(shares).astype(int)
        order = np.argsort(-(shares - np.floor(shares)), kind="stable")
        quota[order[: max_images - int(quota.sum())]] += 1
    drawn = []
    for name, number in zip(names, quota.tolist(), strict=True):
        rng = np.random.default_rng([seed, *"/".join(name).encode("utf-8", "surrogateescape")])
        drawn.append(np.array(strata[name])[rng.permutation(len(strata[name]))[:number]])
    return np.sort(np.concatenate(drawn))


@dataclass
class Copies:
    """Images with the same bytes.

    Attributes:
        left_out: index of each image of a later part that is in an earlier one too, and the index of that.
        notes: sentences on them, and on those of two classes or twice in one.
    """

    left_out: dict[int, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_copies(
    rows: Sequence[int],
    keys: Sequence[str],
    classes: Sequence[str],
    parts: Sequence[str] | None,
    digests: Sequence[str],
) -> Copies:
    """Find images that are in the dataset more than once.

    Args:
        rows: the images that are looked at.
        keys: path or row of each image.
        classes: name of each image's class.
        parts: train, val or test for each image; None where there are no parts.
        digests: SHA-256 of each image.
    """
    copies = Copies()
    same: dict[str, list[int]] = defaultdict(list)
    for index in rows:
        same[digests[index]].append(index)
    between: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    two_classes, in_class = [], []
    for indices in same.values():
        if len(indices) == 1:
            continue
        if parts is not None:
            indices = sorted(indices, key=lambda index: (_order(parts[index]), index))
            first = indices[0]
            for index in indices[1:]:
                if parts[index] != parts[first]:
                    copies.left_out[index] = first
                    between[parts[first], parts[index]].append((first, index))
            indices = [index for index in indices if index not in copies.left_out]
        by_class: dict[str, list[int]] = defaultdict(list)
        for index in sorted(indices):
            by_class[classes[index]].append(index)
        if len(by_class) > 1:
            two_classes.append([own[0] for own in by_class.values()])
        in_class += [own for own in by_class.values() if len(own) > 1]
    for (part, other), pairs in sorted(between.items()):
        first, index = pairs[0]
        copies.notes.append(
            f"{counted(len(pairs), 'image')} of {other} {'is' if len(pairs) == 1 else 'are'} in {part} too, byte for "
            f"byte, and left out of {other}: {keys[index]} is {keys[first]}"
        )
    if two_classes:
        first, second = two_classes[0][:2]
        copies.notes.append(
            f"{counted(len(two_classes), 'image')} {'is' if len(two_classes) == 1 else 'are'} in two classes or more, "
            f"byte for byte: {keys[first]} ({classes[first]}) is {keys[second]} ({classes[second]}); one label must be "
            "wrong"
        )
    if in_class:
        extra = sum(len(indices) - 1 for indices in in_class)
        first, second = in_class[0][:2]
        copies.notes.append(
            f"{counted(extra, 'image')} {'is a copy' if extra == 1 else 'are copies'} of another of the class, byte "
            f"for byte: {keys[second]} is {keys[first]}"
        )
    return copies


def _order(part: str) -> int:
    return (TRAIN, VALIDATION).index(part) if part in (TRAIN, VALIDATION) else 2


def classes_left_out(found: FoundImages, classes: Sequence[str], parts: Sequence[str] | None) -> dict[str, str]:
    """Find the classes that have too few images to be learnt and tested.

    Args:
        found: what a reader has found, with the names of all classes.
        classes: class of each image that can be used.
        parts: part of each of these images; None where there are no parts.

    Returns:
        The reason for each class that is left out, as `class dog has 1 image`.
    """
    before, usable = Counter(found.classes), Counter(classes)
    trained = Counter(
        name for name, part in zip(classes, parts or [TRAIN] * len(classes), strict=True) if part == TRAIN
    )
    reasons = {}
    for name in found.class_names:
        if not before[name]:
            reasons[name] = f"class {name} has no image"
        elif not usable[name]:
            reasons[name] = f"class {name} has no image that can be used"
        elif usable[name] < FEWEST_IMAGES:
            reasons[name] = f"class {name} has {counted(usable[name], 'image')}"
        elif not trained[name] and any(trained.values()):
            reasons[name] = f"class {name} has no image in train"
    return reasons


def told_classes(reasons: dict[str, str]) -> list[str]:
    """Say which classes are left out, each of the first few by its name."""
    said = [f"{reason}, and is left out" for reason in list(reasons.values())[:_NAMED]]
    if len(reasons) > _NAMED:
        names = list(reasons)[_NAMED : 4 * _NAMED]
        more = ", ..." if len(reasons) > 4 * _NAMED else ""
        few = counted(len(reasons) - _NAMED, "more class", "more classes")
        said.append(f"{few} with too few images left out: {', '.join(names)}{more}")
    return said


def similar_classes(names: Sequence[str]) -> list[str]:
    """Say which classes differ only in how their names are written."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike["".join(name.casefold().replace("_", " ").replace("-", " ").split())].append(name)
    return [
        f"classes {' and '.join(repr(name) for name in same)} differ only in how they are written: are they one?"
        for same in alike.values()
        if len(same) > 1
    ][:_NAMED]


def white_of(brightest: int) -> int:
    """Return the level of 16-bit grey that stands for white in a dataset whose highest level is `brightest`."""
    return next((level for level in _NARROWER if brightest <= level), WHITE_16_BIT)
