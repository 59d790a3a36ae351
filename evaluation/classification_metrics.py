"""How well classes are told apart, from counts of which class was taken for which."""

import numpy as np


def balanced_accuracy(counts: np.ndarray) -> float:
    """Return the mean over classes of the share of each that was recognised; classes without samples don't count.

    Args:
        counts: (classes, classes) samples by true class (row) and predicted class (column).
    """
    there = counts.sum(1) > 0
    return float((np.diag(counts)[there] / counts.sum(1)[there]).mean()) if there.any() else float("nan")


def macro_f1(counts: np.ndarray) -> float:
    """Return the mean F1 over the classes that have samples or were predicted; of a class never right it is 0.

    Args:
        counts: (classes, classes) samples by true class (row) and predicted class (column).
    """
    both = counts.sum(1) + counts.sum(0)
    there = both > 0
    return float((2 * np.diag(counts)[there] / both[there]).mean()) if there.any() else float("nan")
