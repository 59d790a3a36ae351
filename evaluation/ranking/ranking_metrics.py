"""How well scores rank the models of one task, against what the models really reach there."""

from math import comb

import numpy as np


def weighted_kendall(scores: np.ndarray, truth: np.ndarray) -> float:
    """Correlate two rankings, with more weight on the top (Vigna 2015, "A weighted correlation index for rankings").

    Hyperbolic weights, averaged over the two rankings: scipy's defaults.

    Args:
        scores: (N,) float, scores of the models, higher is better.
        truth: (N,) float, measured performance of the models, higher is better.

    Returns:
        -1 to 1. 0 where scores or truth are constant: a ranking that says nothing agrees with none, and the
        coefficient itself is 0/0 there (scipy gives nan), which would take a benchmark's mean along.

    Raises:
        ValueError: shapes differ, or a number is not finite.
    """
    from scipy.stats import weightedtau  # scipy's statistics take most of a second to import

    scores, truth = _check(scores, truth)
    if _constant(scores) or _constant(truth):
        return 0.0
    return float(weightedtau(scores, truth).statistic)


def ndcg_at_k(scores: np.ndarray, truth: np.ndarray, k: int = 5) -> float:
    """Normalised discounted cumulative gain of the top k (Järvelin & Kekäläinen 2002).

    A model's gain is its truth, scaled to 0..1 within the task; rank r, counted from 1, is discounted by log2(1 + r).
    Models with equal scores take every order among them with equal probability (McSherry & Najork 2008).

    Args:
        scores: (N,) float, scores of the models, higher is better.
        truth: (N,) float, measured performance of the models, higher is better.
        k: number of ranks that count.

    Returns:
        0 to 1: expected value over the orders of tied models. 1 where truth is constant: every order is the best one.

    Raises:
        ValueError: shapes differ, a number is not finite, or k is below 1.
    """
    scores, truth = _check(scores, truth, k)
    if _constant(truth):
        return 1.0
    gains = (truth - truth.min()) / (truth.max() - truth.min())
    discounts = 1 / np.log2(np.arange(len(gains)) + 2)
    discounts[k:] = 0
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    # By linearity of the expectation: each rank that a tied group covers gets the group's mean gain.
    shared = np.add.reduceat(discounts, ends - sizes)
    expected = (np.bincount(group, gains) / sizes * shared).sum()
    return float(expected / (np.sort(gains)[::-1] * discounts).sum())


def top1_regret(scores: np.ndarray, truth: np.ndarray) -> float:
    """What is lost by taking the model with the highest score instead of the best one.

    Args:
        scores: (N,) float, scores of the models, higher is better.
        truth: (N,) float, measured accuracies of the models, from 0 to 1.

    Returns:
        Percentage points, 0 or more: expected value over the models tied at the highest score.

    Raises:
        ValueError: shapes differ, or a number is not finite.
    """
    scores, truth = _check(scores, truth)
    return float(100 * (truth.max() - truth[scores == scores.max()]).mean())


def recall_at_k(scores: np.ndarray, truth: np.ndarray, k: int = 5, tolerance: float = 0.0) -> float:
    """Probability that a best model is among the k models with the highest scores.

    Models tied at the boundary take every order among them with equal probability, so how many of the best ones get in
    is hypergeometric.

    Args:
        scores: (N,) float, scores of the models, higher is better.
        truth: (N,) float, measured performance of the models, higher is better.
        k: number of models that are taken.
        tolerance: difference from the highest truth up to which a model counts as best.

    Returns:
        0 to 1.

    Raises:
        ValueError: shapes differ, a number is not finite, k is below 1, or the tolerance negative.
    """
    scores, truth = _check(scores, truth, k)
    if not tolerance >= 0:
        raise ValueError(f"tolerance {tolerance} is given; it must be 0 or more.")
    best = truth >= truth.max() - tolerance - 1e-12  # 0.9 - 0.1 must reach 0.8, whatever the last bit is
    boundary = np.sort(scores)[::-1][min(k, len(scores)) - 1]
    if best[scores > boundary].any():
        return 1.0
    tied = scores == boundary
    places = min(k, len(scores)) - int((scores > boundary).sum())
    size, good = int(tied.sum()), int(best[tied].sum())
    return 1 - comb(size - good, places) / comb(size, places)


def pearson(scores: np.ndarray, truth: np.ndarray) -> float:
    """Pearson's correlation coefficient.

    Args:
        scores: (N,) float, scores of the models.
        truth: (N,) float, measured accuracies of the models.

    Returns:
        -1 to 1. 0 where scores or truth are constant, as for `weighted_kendall`.

    Raises:
        ValueError: shapes differ, or a number is not finite.
    """
    scores, truth = _check(scores, truth)
    if _constant(scores) or _constant(truth):
        return 0.0
    # Scaled first: the squares of huge or tiny scores would overflow or vanish.
    a, b = (_unit(values) for values in (scores, truth))
    return float(np.clip(a @ b, -1, 1))


def ranking_metrics(scores: np.ndarray, truth: np.ndarray, k: int = 5, tolerance: float = 0.0) -> dict[str, float]:
    """Compute all metrics of one task.

    Args:
        scores: (N,) float, scores of the models, higher is better.
        truth: (N,) float, measured accuracies of the models, from 0 to 1.
        k: number of top ranks that `ndcg_at_k` and `recall_at_k` count.
        tolerance: accuracy by which a model may be below the highest one and still count as best in `recall_at_k`.

    Returns:
        `weighted_kendall`, `ndcg`, `top1_regret` (percentage points), `recall`, `pearson`.

    Raises:
        ValueError: shapes differ, a number is not finite, k is below 1, or the tolerance negative.
    """
    return {
        "weighted_kendall": weighted_kendall(scores, truth),
        "ndcg": ndcg_at_k(scores, truth, k),
        "top1_regret": top1_regret(scores, truth),
        "recall": recall_at_k(scores, truth, k, tolerance),
        "pearson": pearson(scores, truth),
    }


def _check(scores: np.ndarray, truth: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    scores, truth = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if scores.ndim != 1 or scores.shape != truth.shape or not len(scores):
        raise ValueError(
            f"scores have shape {scores.shape} and truth {truth.shape}; both must be (N,), one number a model, N >= 1."
        )
    for name, values in (("scores", scores), ("truth", truth)):
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            raise ValueError(
                f"{name} must be finite, but model {wrong[0]} has {values[wrong[0]]} ({len(wrong)} of {len(values)}); "
                "leave out models that have none."
            )
    if k < 1:
        raise ValueError(f"k is {k}; it must be 1 or more.")
    return scores, truth


def _constant(values: np.ndarray) -> bool:
    return bool(values.max() == values.min())  # a standard deviation would be 1e-17 for three times 0.1


def _unit(values: np.ndarray) -> np.ndarray:
    centred = values / np.abs(values).max()
    centred = centred - centred.mean()
    return centred / np.linalg.norm(centred)
