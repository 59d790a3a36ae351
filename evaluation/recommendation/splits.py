"""Which images a linear probe is trained on, and which it is scored on."""

from dataclasses import dataclass, field

import numpy as np

_FOLDS = 5
_REPEATS = ((200, 5), (500, 3))
"""Below so many images, cross-validation is repeated so many times: with few, much hangs on how they are dealt out."""


@dataclass(frozen=True)
class Splits:
    """Ways to part the images.

    Attributes:
        train: (S, n) bool, images that the probe of each split is trained on.
        test: (S, n) bool, images that it is scored on.
        reported: (S,) bool, splits whose scores are the answer; the others only choose the strength of the penalty.
    """

    train: np.ndarray = field(repr=False)
    test: np.ndarray = field(repr=False)
    reported: np.ndarray

    @property
    def scored(self) -> np.ndarray:
        """(n,) bool, images that have a score in the end."""
        return self.test[self.reported].any(0)


def cross_validation(labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> Splits:
    """Deal images out to five folds, of each class equally many to each; several times where there are few images.

    Args:
        labels: (n,) int, class of each image.
        groups: (n,) int, images of one number are copies of one another and come into the same fold.
        seed: seed of the dealing.
    """
    generator = np.random.default_rng(seed)
    repeats = next((times for below, times in _REPEATS if len(labels) < below), 1)
    folds = [_deal(labels, groups, generator) for _ in range(repeats)]
    tests = np.stack([fold == number for fold in folds for number in range(_FOLDS)])
    tests = tests[tests.any(1)]
    return Splits(train=~tests, test=tests, reported=np.ones(len(tests), bool))


def given_parts(labels: np.ndarray, groups: np.ndarray, held_out: np.ndarray, seed: int = 0) -> Splits:
    """Score on the part that a person has set apart; cross-validation inside the rest chooses the penalty.

    Args:
        labels: (n,) int, class of each image.
        groups: (n,) int, images of one number are copies of one another. Those in both parts are not scored.
        held_out: (n,) bool, the part that is set apart.
        seed: seed of the cross-validation.
    """
    rest = np.flatnonzero(~held_out)
    inner = cross_validation(labels[rest], groups[rest], seed)
    train, test = (np.zeros((len(inner.test) + 1, len(labels)), bool) for _ in range(2))
    train[:-1, rest], test[:-1, rest] = inner.train, inner.test
    train[-1] = ~held_out
    test[-1] = held_out & ~np.isin(groups, groups[rest])
    reported = np.zeros(len(train), bool)
    reported[-1] = True
    return Splits(train, test, reported)


def copies(digests: "list[str] | tuple[str, ...]") -> np.ndarray:
    """Number images so that copies have one number.

    Args:
        digests: digest of each image.

    Returns:
        (n,) int64.
    """
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], np.int64)


def _deal(labels: np.ndarray, groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the fold of each image, (n,)."""
    _, first, of_image, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    classes = labels[first]
    shuffled = generator.permutation(len(first))
    # Larger groups first, while there is room to even out; inside a class the order is random.
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    of_class = np.zeros((int(labels.max()) + 1, _FOLDS), np.int64)
    fold = np.empty(len(first), np.int64)
    noise = generator.random((len(first), _FOLDS))
    for group in order:
        counts = of_class[classes[group]]
        place = int(np.lexsort((noise[group], of_class.sum(0), counts))[0])
        fold[group] = place
        counts[place] += sizes[group]
    return fold[of_image]
