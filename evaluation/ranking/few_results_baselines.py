"""Plain ways to choose what to measure on a dataset, which a better one must beat.

Each takes the known datasets (M, D), the truth on the new one (M,), of which it looks at what it measures, the model to
begin with, how many to measure, and a seed; it returns the model that it would take after 1, 2, ... measurements.
"""

from collections.abc import Callable

import numpy as np

_NEAREST = 3
_RANK = 2
_RIDGE = 1.0
_NOISE = 0.1  # variance of a result, of the plain Gaussian process


def _nearest_datasets(values: np.ndarray, truth: np.ndarray, first: int, count: int, seed: int) -> list[int]:
    """Predict by the datasets whose results are nearest in the models known, after the static mean."""
    scaled = _filled(values)

    def predict(known: list[int]) -> np.ndarray:
        if len(known) < 2:
            return scaled.mean(1)
        away = ((scaled[known] - _unit(truth[known])[:, None]) ** 2).sum(0)
        return scaled[:, np.argsort(away, kind="stable")[:_NEAREST]].mean(1)

    return _best_first(predict, truth, first, count)


def _factorization(values: np.ndarray, truth: np.ndarray, first: int, count: int, seed: int) -> list[int]:
    """Predict by the mean and the first directions of the known datasets, fitted to what is known by ridge."""
    scaled = _filled(values)
    mean = scaled.mean(1)
    left, size, _ = np.linalg.svd(scaled - mean[:, None], full_matrices=False)
    directions = left[:, :_RANK] * size[:_RANK] / np.sqrt(scaled.shape[1])

    def predict(known: list[int]) -> np.ndarray:
        if len(known) < 2:
            return mean
        rows = directions[known] - directions[known].mean(0)
        rest = truth[known] / max(float(np.nanstd(values, axis=0).mean()), 1e-12) - mean[known]
        inner = rows.T @ rows + _RIDGE * np.eye(rows.shape[1])
        return mean + directions @ np.linalg.solve(inner, rows.T @ (rest - rest.mean()))

    return _best_first(predict, truth, first, count)


def _plain_process(values: np.ndarray, truth: np.ndarray, first: int, count: int, seed: int) -> list[int]:
    """Measure models drawn at random, and take the one that a Gaussian process over models expects to be best."""
    candidates = np.flatnonzero(np.isfinite(truth))
    scaled = _filled(values)
    away = ((scaled[:, None] - scaled[None]) ** 2).mean(-1)
    kernel = np.exp(-away / max(float(np.median(away[away > 0])) if (away > 0).any() else 1.0, 1e-12))
    drawn = np.random.default_rng(seed).permutation(candidates)[:count]
    taken = []
    for number in range(1, len(drawn) + 1):
        known = drawn[:number]
        inner = kernel[np.ix_(known, known)] + _NOISE * np.eye(number)
        expected = kernel[np.ix_(candidates, known)] @ np.linalg.solve(inner, _unit(truth[known]))
        taken.append(int(candidates[int(np.argmax(expected))]))
    return taken


BASELINES: dict[str, Callable[[np.ndarray, np.ndarray, int, int, int], list[int]]] = {
    "nearest datasets": _nearest_datasets,
    "factorization": _factorization,
    "process, random results": _plain_process,
}
"""Name -> method."""


def _best_first(predict: Callable[[list[int]], np.ndarray], truth: np.ndarray, first: int, count: int) -> list[int]:
    known = [first]
    for _ in range(count - 1):
        left = np.isfinite(truth)
        left[known] = False
        if not left.any():
            break
        known.append(int(np.argmax(np.where(left, predict(known), -np.inf))))
    return best_so_far(known, truth)


def best_so_far(measured: list[int], truth: np.ndarray) -> list[int]:
    """Return the best model of those measured after 1, 2, ... measurements."""
    return [max(measured[: number + 1], key=lambda place: truth[place]) for number in range(len(measured))]


def _filled(values: np.ndarray) -> np.ndarray:
    """Centre and scale each dataset; where nothing was measured, the model's mean, or 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = (values - np.nanmean(values, 0)) / np.nanstd(values, 0)
    scaled = scaled[:, np.isfinite(scaled).any(0)]
    found = np.isfinite(scaled)
    means = np.where(found, scaled, 0.0).sum(1) / np.maximum(found.sum(1), 1)
    return np.where(found, scaled, means[:, None])


def _unit(values: np.ndarray) -> np.ndarray:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else values * 0.0
