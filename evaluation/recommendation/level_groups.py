"""Which models can't be told apart: from draws of how good each may be."""

from dataclasses import dataclass

import numpy as np

COVERAGE = 0.9
"""Share of intervals that hold the truth."""
KEPT = 0.95
"""Probability with which the truly best model is in the first group."""
_DRAWS = 4000
_TIE = 1e-12  # a smaller difference is one of rounding
_AT_ONCE = 250  # draws of weights in memory


@dataclass(frozen=True)
class Standing:
    """Where one of several models stands.

    Attributes:
        expected: what is expected of it.
        low: lower end of its 90 % interval.
        high: upper end.
        group: 1 for the models of which each may be the best, 2 for those that may be the best of the rest, ...
        chance: probability that it is the best of all.
    """

    expected: float
    low: float
    high: float
    group: int
    chance: float


def accuracy_draws(hits: np.ndarray, groups: np.ndarray, seed: int = 0, draws: int = _DRAWS) -> np.ndarray:
    """Draw how accurate models may be on all images of the kind, given how they did on some: paired over images.

    The Bayesian bootstrap (Rubin 1981): each draw weighs the images anew, and all models by the same weights, so that
    models which are wrong on the same images rise and fall together. One more image, which every model has half right,
    keeps the draws of a model that is always right away from certainty: for one model they are those of Jeffreys'
    interval.

    Args:
        hits: (M, n) float, 1 where a model was right, 0 where it was wrong, shares between where it was asked often. Or
            (M, R, n), where all was repeated: each draw takes one of the repeats, so that what luck in the dealing of
            few images does is in the draws too.
        groups: (n,) int, images of one number are copies of one another and count together.
        seed: seed of the weights.
        draws: number of draws B.

    Returns:
        (B, M) float64 from 0 to 1.
    """
    generator = np.random.default_rng(seed)
    _, of_image, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    # Sums over copies, so that copies get one weight.
    repeated = hits[:, None] if hits.ndim == 2 else hits
    rows = repeated.reshape(-1, repeated.shape[-1])
    summed = np.stack([np.bincount(of_image, row, len(sizes)) for row in rows]).reshape(*repeated.shape[:2], -1)
    parts = []
    for start in range(0, draws, _AT_ONCE):
        count = min(_AT_ONCE, draws - start)
        weights = generator.standard_exponential((count, len(sizes)))
        right, wrong = generator.standard_gamma(0.5, (2, count))
        total = weights @ sizes + right + wrong
        # Draw b takes repeat b mod R, of all models.
        sums = np.empty((count, len(hits)))
        for repeat in range(summed.shape[1]):
            mine = np.arange(start, start + count) % summed.shape[1] == repeat
            sums[mine] = weights[mine] @ summed[:, repeat].T
        parts.append((sums + right[:, None]) / total[:, None])
    return np.concatenate(parts)


def standings(draws: np.ndarray) -> list[Standing]:
    """Say where models stand.

    Args:
        draws: (B, M) draws of how good each of M models is, together.

    Returns:
        One for each model, in the order of the columns.
    """
    expected = draws.mean(0)
    edge = (1 - COVERAGE) / 2
    low, high = np.quantile(draws, (edge, 1 - edge), axis=0)
    leads = draws >= draws.max(1, keepdims=True) - _TIE  # who is right on the same images shares the chance
    best = (leads / leads.sum(1, keepdims=True)).mean(0)
    groups = level_groups(draws)
    return [
        Standing(float(expected[m]), float(low[m]), float(high[m]), int(groups[m]), float(best[m]))
        for m in range(draws.shape[1])
    ]


def level_groups(draws: np.ndarray, kept: float = KEPT) -> np.ndarray:
    """Part models into groups that can't be told apart.

    A model is level with the best one unless some other is better than it by more than chance allows: the largest of
    its differences to all others, each over its standard error, is compared with what that largest one is in the draws
    about their mean. So the truly best model is in the first group with the probability `kept`, however many models
    there are (the max-statistic of Hansen, Lunde & Nason 2011, "The Model Confidence Set"). Whoever is expected to be
    better than a model of the group is in it too. The rest is parted in the same way.

    Args:
        draws: (B, M) draws of how good each model is, together.
        kept: probability with which the truly best model is in the first group.

    Returns:
        (M,) int64, the number of each model's group, from 1.
    """
    expected = draws.mean(0)
    order = np.argsort(-expected, kind="stable")
    numbers = np.zeros(len(order), np.int64)
    number = 0
    while len(order):
        number += 1
        last = max(place for place, model in enumerate(order) if _may_be_best(draws, model, order, kept))
        numbers[order[: last + 1]] = number
        order = order[last + 1 :]
    return numbers


def _may_be_best(draws: np.ndarray, model: int, rivals: np.ndarray, kept: float) -> bool:
    others = rivals[rivals != model]
    if not len(others):
        return True
    ahead = draws[:, others] - draws[:, [model]]  # (B, M - 1)
    mean, error = ahead.mean(0), ahead.std(0)
    told = error > _TIE  # two models that are right on the same images don't differ
    if not told.any():
        return bool((mean <= _TIE).all())
    largest = ((ahead[:, told] - mean[told]) / error[told]).max(1)
    return bool((mean[told] / error[told]).max() <= np.quantile(largest, kept))
