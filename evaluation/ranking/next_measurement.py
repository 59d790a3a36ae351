"""Which model to measure next, and how far the gains that are expected of it come true on known datasets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.ranking.few_results import FewResultsModel, ValuePosterior

_STEPS = 3  # measurements that are tried on each known dataset
_MOST_TRIED = 12  # known datasets, spread over the table
_DRAWS = 100
_WEIGHT = 3.0  # datasets that the guesses below count as
_USUAL_GAIN, _USUAL_SHORT = 0.3, 0.5  # on public tables; a Gaussian's upper tail is heavier than that of good models


def next_to_measure(
    posterior: ValuePosterior, known: Sequence[int], values: Sequence[float], candidates: np.ndarray, highest: float
) -> tuple[int | None, float]:
    """Choose the model whose value is expected to exceed the best known one by most; at first the best expected one.

    Args:
        posterior: distribution of the values, given what is known.
        known: the models that were measured.
        values: what they reached.
        candidates: (M,) bool, the models that may be measured.
        highest: greatest value that there can be.

    Returns:
        The model, None where none is left; and the expected gain, 0 before any result.
    """
    left = candidates.copy()
    left[list(known)] = False
    if not left.any():
        return None, 0.0
    expected = posterior.expected()
    if not len(known):
        return int(np.argmax(np.where(left, expected, -np.inf))), 0.0
    gains = posterior.expected_gain(max(values), highest)
    best = np.lexsort((-expected, -gains, ~left))[0]  # equal gains: the better expected one
    return int(best), float(gains[best])


@dataclass(frozen=True)
class GainShares:
    """How far expectations come true, on datasets that were left out in turn.

    Attributes:
        gain: realised gains of the next measurement, as a share of the expected ones.
        short: by how much the best known model was below the best of all, as a share of what was expected.
    """

    gain: float
    short: float


def gain_shares(values: np.ndarray, highest: Callable[[int], float]) -> GainShares:
    """Leave out known datasets, measure a few models on each, and compare gains with what was expected.

    Args:
        values: (M, D) the known datasets, NaN where nothing was measured.
        highest: greatest value that there can be on a dataset, by its column.

    Returns:
        The shares, drawn to what is usual where there are few datasets; never above 1.
    """
    gains, shorts = [], []
    columns = np.unique(np.linspace(0, values.shape[1] - 1, min(values.shape[1], _MOST_TRIED)).astype(int))
    for column in columns:
        truth = values[:, column]
        candidates = np.isfinite(truth)
        try:
            model = FewResultsModel(np.delete(values, column, axis=1))
        except ValueError:
            continue
        spread = float(np.median(model.spreads))
        known: list[int] = []
        for _ in range(_STEPS + 1):
            posterior = model.posterior(np.array(known, int), truth[known], _DRAWS)
            place, expected = next_to_measure(posterior, known, truth[known].tolist(), candidates, highest(column))
            if place is None:
                break
            if known:
                best = truth[known].max()
                gains.append((expected / spread, max(truth[place] - best, 0.0) / spread))
                drawn = np.minimum(posterior.draws[:, candidates].max(1), highest(column))
                shorts.append((max(drawn.mean() - best, 0.0) / spread, (truth[candidates].max() - best) / spread))
            known.append(place)
    return GainShares(_share(gains, _USUAL_GAIN), _share(shorts, _USUAL_SHORT))


def _share(pairs: list[tuple[float, float]], usual: float) -> float:
    if not pairs:
        return usual
    expected, found = np.array(pairs).T
    weight = _STEPS * _WEIGHT * max(float(expected.mean()), 1e-9)
    return float(min((found.sum() + usual * weight) / (expected.sum() + weight), 1.0))
