"""What datasets near the new one say of models, used only as far as it has helped on the known ones.

Nearness comes from given distances and from what is known of datasets. Without a clear gain on datasets left out, the
order stays the static one: a kernel that fits by chance costs more than there is to win.
"""

from collections.abc import Iterator

import numpy as np

from data.performance_table import PerformanceTable
from evaluation.ranking.few_results import mean_ranks
from evaluation.ranking.ranking_metrics import weighted_kendall
from evaluation.ranking.table_ranker import description_distances, neighbour_weights

_MOST_TRIED = 24  # known datasets on which the gain is found, spread over all
_FEWEST = 6
_MOST_GAIN = 0.1  # weighted Kendall; more on one dataset must not make up for losses on several
_SHARES = (0.5, 1.0)  # of what near datasets say
_LEAST_GAIN = 0.01  # in weighted Kendall
_LEAST_ERRORS = 3.0  # standard errors that the gain must be above nothing; several kernels are tried


def related_shift(table: PerformanceTable, target: int) -> tuple[np.ndarray, str | None]:
    """Return by how much models should be better or worse on a dataset than usual, by the datasets near it.

    Args:
        table: the results, distances and what is known of datasets. Values of the target are not read.
        target: index of the dataset.

    Returns:
        (M,) float64 in standard deviations between models, 0 where nothing helps; and the name of what helps.
    """
    values = table.values.copy()
    values[:, target] = np.nan
    ranks = _scaled_ranks(values)
    known = np.flatnonzero(np.isfinite(ranks).sum(0) >= 2)
    nothing = np.zeros(len(values))
    if len(known) < _FEWEST or not (table.distances or table.dataset_columns):
        return nothing, None
    tried = known[np.linspace(0, len(known) - 1, min(len(known), _MOST_TRIED)).astype(int)]
    static = {int(dataset): mean_ranks(np.delete(values, dataset, axis=1)) for dataset in tried}
    base = {dataset: weighted_kendall(*_both(order, values[:, dataset])) for dataset, order in static.items()}
    best, chosen = _LEAST_GAIN, (nothing, None)
    for name, weights in _kernels(table, known):
        apart = _what_is_near(ranks, weights)
        for share in _SHARES:
            gains = np.array([
                weighted_kendall(*_both(_unit(order) + share * apart[:, dataset], values[:, dataset])) - base[dataset]
                for dataset, order in static.items()
            ])  # fmt: skip
            capped = np.minimum(gains, _MOST_GAIN)
            clear = capped.mean() > _LEAST_ERRORS * capped.std(ddof=1) / np.sqrt(len(capped))
            if clear and gains.mean() > best:
                best, chosen = float(gains.mean()), (share * apart[:, target], name)
    return chosen


def _kernels(table: PerformanceTable, known: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Weights of the known datasets for each dataset, (D, D), by each kind of distance and for several widths."""
    count = len(table.datasets)
    others = np.zeros((count, count))
    others[:, known] = 1.0
    np.fill_diagonal(others, 0.0)
    distances = {}
    if table.distances:
        given = [[table.distances.get((a, b), np.nan) for b in table.datasets] for a in table.datasets]
        distances["distances"] = np.array(given)
    for name, column in table.dataset_columns.items():
        matrix, _ = description_distances(list(column))
        if matrix is not None:
            distances[name] = matrix
    for name, matrix in distances.items():
        for _, weights in neighbour_weights(matrix, others):
            yield name, weights


def _what_is_near(ranks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return how far models are from their mean on the datasets near each dataset, (M, D)."""
    found = np.isfinite(ranks).astype(float)
    filled = np.where(found > 0, ranks, 0.0)
    others = (weights > 0).astype(float)
    mean = (filled @ others.T) / np.maximum(found @ others.T, 1.0)
    weight = found @ weights.T
    shown = weight / (weights.sum(1) + 1e-12)  # a model without results near is as usual
    return (filled @ weights.T) / np.maximum(weight, 1e-12) * shown - mean * shown


def _scaled_ranks(values: np.ndarray) -> np.ndarray:
    """Replace values by ranks within their dataset, of mean 0 and variance 1; NaN stays."""
    columns = []
    for column in values.T:
        ranks = np.where(np.isfinite(column), mean_ranks(column[:, None]), np.nan)
        found = ranks[np.isfinite(ranks)]
        spread = found.std() if len(found) else 0.0
        columns.append((ranks - found.mean()) / spread if spread > 0 else ranks * np.nan)
    return np.stack(columns, axis=1)


def _unit(order: np.ndarray) -> np.ndarray:
    spread = order.std()
    return (order - order.mean()) / spread if spread > 0 else order * 0.0


def _both(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = np.isfinite(truth)
    return scores[found], truth[found]
