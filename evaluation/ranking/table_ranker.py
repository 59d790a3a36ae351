"""A ranker for tables of results, where no weights exist: which model for a dataset that no model was tried on."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from data.data_error import DataError
from data.performance_table import PerformanceTable

_BANDWIDTHS = (0.15, 0.3, 0.6)  # of a neighbour's weight, in units of the median distance between training datasets
_PENALTIES = np.logspace(-2.5, 2, 10)
_CLIP = 10.0  # standard deviations; a failed run may be far out, and counts, but not without bound
_SMALL = 1e-9


class TableRanker:
    """Ranks models for a dataset from what is known of other datasets, of the models, and from scores of the pairs.

    A pair (model, dataset) is described by the model's mean result on the other datasets, plain and weighted by
    how near these are, by what is known of the model, by where it comes from, and by the given scores. Three learners
    of low capacity predict normal scores of ranks and z-scores of values: the mean that did best (plain or nearest
    neighbours), ridge regression, and extremely randomized trees (Geurts et al. 2006, Machine Learning 63). What is
    chosen (bandwidth, penalty) is chosen by leave-one-dataset-out among the training datasets; the rest is fixed. The
    six standardized predictions are added up, which gives the order; the z-scores predicted give the spacing.
    """

    def __init__(self, seed: int = 0, trees: int = 100, max_rows: int = 8000):
        """Set what is fixed.

        Args:
            seed: seed of the trees, and of the pairs drawn for them.
            trees: number of trees.
            max_rows: pairs that the trees see at most; the other learners see all.
        """
        self.seed, self.trees, self.max_rows = seed, trees, max_rows

    def fit(self, table: PerformanceTable, train_datasets: Sequence[str]) -> "TableRanker":
        """Learn from training datasets. Values of other datasets are not read.

        Args:
            table: the table, with what is known of models and datasets.
            train_datasets: names of two datasets or more.

        Returns:
            The ranker itself.

        Raises:
            DataError: a dataset is unknown, or there are fewer than two.
        """
        if unknown := sorted(set(train_datasets) - set(table.datasets)):
            raise DataError(f"the table has no dataset {unknown[0]!r}; its datasets: {', '.join(table.datasets)}.")
        if len(set(train_datasets)) < 2:
            raise DataError(f"a ranker learns from 2 datasets or more; given {len(set(train_datasets))}.")
        # In order of names, so that sums and the trees' draws don't depend on the order in the file.
        self._order = np.argsort(np.array(table.models))
        self._columns = {name: number for number, name in enumerate(sorted(table.datasets))}
        train = self._train = np.array([name in set(train_datasets) for name in self._columns])
        known = _known_pairs(table, self._order, list(self._columns), train)
        names, features = _pair_features(known)  # (M, D, F)
        rows = np.isfinite(known.ranks) & train
        x = _standardize(features, rows | ~train)
        self._predictions = np.zeros((6, *rows.shape))
        trees = self._trees(x, rows, np.stack([known.ranks, known.values], axis=-1))
        for index, (kind, target) in enumerate((("rank", known.ranks), ("value", known.values))):
            moments = _moments(x, np.where(rows, target, 0.0), rows, train)
            means = [column for column, name in enumerate(names) if name.startswith(f"mean {kind}")]
            self._predictions[index] = x[..., _best_mean(moments, means)]
            self._predictions[2 + index] = x @ _ridge(*moments)
            self._predictions[4 + index] = trees[..., index]
        return self

    def predict(self, dataset: str) -> np.ndarray:
        """Score all models for a dataset that was not in the training.

        Args:
            dataset: name of the dataset.

        Returns:
            (M,) float64 in the order of the table's models, higher is better: predicted z-scores, of no unit.

        Raises:
            DataError: the dataset is unknown, or was in the training.
        """
        if dataset not in self._columns:
            raise DataError(f"the table has no dataset {dataset!r}; its datasets: {', '.join(self._columns)}.")
        if self._train[self._columns[dataset]]:
            raise DataError(f"{dataset!r} was in the training; leave it out of train_datasets to predict it.")
        parts = [_unit(part) for part in self._predictions[..., self._columns[dataset]]]
        spacing = np.sort(sum(parts[1::2]) / 3)
        order = rankdata(np.round(sum(parts), 9))  # rounded: equal models stay equal
        scores = np.empty(len(self._order))
        scores[self._order] = np.interp(order, np.arange(1, len(order) + 1), spacing)
        return scores

    def _trees(self, x: np.ndarray, rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
        from sklearn.ensemble import ExtraTreesRegressor  # scikit-learn takes a second to import

        models, datasets = np.nonzero(rows)
        weights = 1.0 / rows.sum(0)[datasets]  # each dataset counts the same
        if len(models) > self.max_rows:
            drawn = np.random.default_rng(self.seed).choice(len(models), self.max_rows, replace=False)
            models, datasets, weights = models[drawn], datasets[drawn], weights[drawn]
        forest = ExtraTreesRegressor(self.trees, min_samples_leaf=5, max_features=0.5, random_state=self.seed)
        forest.fit(x[models, datasets], targets[models, datasets], weights)
        predictions = np.zeros(targets.shape)
        held = ~(rows.any(0))  # training datasets need no prediction
        if held.any():
            predictions[:, held] = forest.predict(x[:, held].reshape(-1, x.shape[-1])).reshape(-1, held.sum(), 2)
        return predictions


@dataclass(frozen=True)
class _KnownPairs:
    """What the ranker may know, models and datasets in order of names; `ranks`, `values` are NaN outside training."""

    ranks: np.ndarray  # (M, D) normal scores of the ranks within a dataset, unit variance
    values: np.ndarray  # (M, D) z-scores within a dataset, clipped
    datasets: list[str]
    train: np.ndarray  # (D,) bool
    distances: dict[str, np.ndarray]  # name -> (D, D), NaN where unknown
    words: list[set[str]]  # for each dataset, names that it goes by and parts of its description
    origins: list[str] | None  # for each model, the name of the dataset that it comes from
    origin_distances: np.ndarray | None  # (M, D)
    categories: dict[str, np.ndarray]  # name -> (M, K) one-hot
    numbers: dict[str, np.ndarray]  # name -> (M,)
    scores: dict[str, np.ndarray]  # name -> (M, D)


def _known_pairs(table: PerformanceTable, order: np.ndarray, datasets: list[str], train: np.ndarray) -> _KnownPairs:
    columns = np.array([table.datasets.index(name) for name in datasets])
    values = np.where(train, table.values[order][:, columns], np.nan)
    found = np.isfinite(values)
    ranks = np.full(values.shape, np.nan)
    for column in np.flatnonzero(found.any(0)):
        rows = found[:, column]
        ranks[rows, column] = ndtri((rankdata(values[rows, column]) - 0.5) / rows.sum())
    distances, words = {}, [{name.lower()} for name in datasets]
    if table.distances:
        near = table.distances
        distances["distance"] = np.array([[near.get((a, b), np.nan) for b in datasets] for a in datasets])
    for name, column in table.dataset_columns.items():
        matrix, bags = description_distances([column[index] for index in columns])
        if matrix is not None:
            distances[name] = matrix
            words = [known | bag for known, bag in zip(words, bags, strict=True)]
    categories, numbers = {}, {}
    for name, column in table.model_columns.items():
        cells = [column[index] for index in order]
        numeric = _numbers(cells)
        if numeric is not None:
            numbers[name] = numeric
        counts = Counter(cells)
        if (numeric is None or len(counts) <= 20) and len(counts) > 1 and max(counts.values()) > 1:
            categories[name] = np.eye(len(counts))[np.unique(cells, return_inverse=True)[1]]
    origins = _origins(table, words, categories)
    origins = [origins[index] for index in order] if origins else None
    away = None
    if origins and table.distances:
        folded = {(a, b.lower()): distance for (a, b), distance in table.distances.items()}
        away = np.array([[folded.get((dataset, origin), np.nan) for dataset in datasets] for origin in origins])
    return _KnownPairs(
        ranks=_scaled(ranks, np.inf), values=_scaled(values, _CLIP), datasets=datasets, train=train,
        distances=distances, words=words, origins=origins,
        origin_distances=away, categories=categories, numbers=numbers,
        scores={name: score[order][:, columns] for name, score in table.scores.items()},
    )  # fmt: skip


def _scaled(values: np.ndarray, clip: float) -> np.ndarray:
    """Centre and scale each column over what is finite in it; NaN stays."""
    found = np.isfinite(values)
    count = np.maximum(found.sum(0), 1)
    centred = values - np.where(found, values, 0.0).sum(0) / count
    spread = np.sqrt((np.where(found, centred, 0.0) ** 2).sum(0) / count)
    # Rounding must not make a spread out of equal values.
    flat = spread <= _SMALL * np.abs(np.where(found, values, 0.0)).max(0)
    return np.clip(np.where(flat, centred * 0.0, centred / np.where(flat, 1.0, spread)), -clip, clip)


def _numbers(cells: list[str]) -> np.ndarray | None:
    try:
        numbers = np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        return None
    numbers[~np.isfinite(numbers)] = np.nan
    known = numbers[np.isfinite(numbers)]
    if not known.size or known.min() == known.max():
        return None
    # Sizes spread over orders of magnitude: a factor counts, not a difference.
    return np.log(numbers) if known.min() > 0 and known.max() > 50 * known.min() else numbers


def description_distances(cells: list[str]) -> tuple[np.ndarray | None, list[set[str]]]:
    """Distances between datasets by a column: numbers by difference, text by the words that two descriptions share."""
    numbers = _numbers(cells)
    if numbers is not None:
        return np.abs(numbers[:, None] - numbers), [set() for _ in cells]
    bags = [set(re.findall(r"[a-z0-9]+", cell.lower())) for cell in cells]
    counts = Counter(word for bag in bags for word in bag)
    bags = [{word for word in bag if 1 < counts[word] < len(cells)} for bag in bags]
    vocabulary = sorted(set().union(*bags))
    if not vocabulary:
        return None, bags
    weights = np.log(len(cells) / np.array([counts[word] for word in vocabulary]))
    vectors = np.array([[word in bag for word in vocabulary] for bag in bags]) * weights
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _SMALL)
    return np.sqrt(np.maximum(2.0 - 2.0 * vectors @ vectors.T, 0.0)), bags


def _origins(table: PerformanceTable, words: list[set[str]], categories: dict[str, np.ndarray]) -> list[str] | None:
    """Find the column that says what a model was trained on: the one most of whose entries name datasets."""
    names = set().union(*words) | {name.lower() for pair in table.distances for name in pair}
    hits = {name: len({cell.lower() for cell in table.model_columns[name]} & names) for name in categories}
    best = max(hits, key=hits.get, default=None)
    return [cell.lower() for cell in table.model_columns[best]] if best is not None and hits[best] else None


def _pair_features(known: _KnownPairs) -> tuple[list[str], np.ndarray]:
    """Describe all pairs; a pair's own dataset never enters its description.

    Args:
        known: facts of the pairs that the ranker may know.

    Returns:
        Names (F), and features (M, D, F), NaN where unknown.
    """
    datasets = known.ranks.shape[1]
    others = np.where(np.eye(datasets, dtype=bool), 0.0, known.train)  # (D, D): row d, weights of the datasets for d
    found = np.isfinite(known.ranks).astype(float)

    def mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        total = found @ weights.T
        summed = np.where(found > 0, values, 0.0) @ weights.T
        return np.where(total > 1e-12, summed / np.maximum(total, 1e-12), np.nan)

    features = {"mean rank": mean(known.ranks, others), "mean value": mean(known.values, others)}
    for name, distance in known.distances.items():
        for bandwidth, weights in neighbour_weights(distance, others):
            features[f"mean rank, {name} {bandwidth}"] = mean(known.ranks, weights)
            features[f"mean value, {name} {bandwidth}"] = mean(known.values, weights)
    static = np.nan_to_num(features["mean rank"])
    tried = np.isfinite(features["mean rank"]).astype(float)
    for name, kind in known.categories.items():
        # How the other models of this kind did, towards nothing where there are few.
        features[f"kind {name}"] = (kind @ (kind.T @ static) - static) / (kind @ (kind.T @ tried) - tried + 1.0)
    for name, numbers in known.numbers.items():
        features[f"number {name}"] = np.repeat(numbers[:, None], datasets, axis=1)
    if known.origins is not None:
        features |= _origin_features(known, static, others, found)
    features |= {f"score {name}": score for name, score in known.scores.items()}
    return list(features), np.stack(list(features.values()), axis=-1)


def neighbour_weights(distance: np.ndarray, others: np.ndarray) -> list[tuple[float, np.ndarray]]:
    usable = (others > 0) & np.isfinite(distance)
    if not usable.any():
        return []
    unit = np.median(distance[usable])
    scaled = distance / (unit if unit > 0 else 1.0)
    middle = [np.median(row[use]) if use.any() else 1.0 for row, use in zip(scaled, usable, strict=True)]
    scaled = np.where(usable, scaled, np.array(middle)[:, None])
    nearest = np.where(others > 0, scaled, np.inf).min(1, keepdims=True)
    nearest = np.where(np.isfinite(nearest), nearest, 0.0)
    return [(width, np.exp(-np.maximum(scaled - nearest, 0.0) / width) * others) for width in _BANDWIDTHS]


def _origin_features(
    known: _KnownPairs, static: np.ndarray, others: np.ndarray, found: np.ndarray
) -> dict[str, np.ndarray]:
    """Features from the dataset that a model comes from.

    `born here`: it comes from this dataset. `exchange`: models that come from this dataset do well on the one that
    this model comes from, which tends to hold both ways.
    """
    born = np.array([[origin in words for words in known.words] for origin in known.origins], dtype=float)  # (M, D)
    features = {"born here": born}
    if known.origin_distances is not None:
        features["origin distance"] = known.origin_distances
    count = born.T @ found
    results = born.T @ np.where(found > 0, known.ranks, 0.0) / np.maximum(count, 1.0)
    usual = (born * static).sum(0) / np.maximum(born.sum(0), 1.0)
    exchange = np.where((count > 0) & (others > 0), results - usual[:, None], np.nan)  # (from d, on e)
    places = {name.lower(): place for place, name in enumerate(known.datasets)}
    named = [places.get(origin, -1) for origin in known.origins]
    features["exchange"] = np.where(np.array(named)[:, None] >= 0, exchange[:, named].T, np.nan)
    return features


def _standardize(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Centre and scale each feature within each dataset over its rows; unknown becomes 0, the mean."""
    scaled = np.empty(features.shape)
    for index in range(features.shape[-1]):  # one at a time: the whole would take several copies of a large array
        scaled[..., index] = np.nan_to_num(_scaled(np.where(rows, features[..., index], np.nan), _CLIP))
    return scaled


def _moments(x: np.ndarray, target: np.ndarray, rows: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Second moments by training dataset: features with features (T, F, F), features with the target (T, F)."""
    use = (rows / np.maximum(rows.sum(0), 1)).T[train][..., None]  # (T, M, 1)
    by_dataset = x.transpose(1, 0, 2)[train]  # (T, M, F)
    weighted = (by_dataset * use).transpose(0, 2, 1)
    return weighted @ by_dataset, (weighted @ target.T[train][..., None])[..., 0]


def _best_mean(moments: tuple[np.ndarray, np.ndarray], candidates: list[int]) -> int:
    """Choose the mean that correlates best with the target over training datasets; none of them saw its target."""
    squares, products = moments
    spread = np.sqrt(np.maximum(squares[:, candidates, candidates], _SMALL))
    # Rounded: that of equal candidates the first is taken must not hang on the last bit.
    return candidates[int(np.argmax(np.round((products[:, candidates] / spread).mean(0), 9)))]


def _ridge(squares: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Fit ridge regression (F,); the penalty gives the best mean correlation on a dataset left out."""
    count, width = products.shape
    eye = np.eye(width)
    without = (squares.sum(0) - squares) / max(count - 1, 1), (products.sum(0) - products) / max(count - 1, 1)
    quality = []
    for penalty in _PENALTIES:
        weights = np.linalg.solve(without[0] + penalty * eye, without[1][..., None])[..., 0]  # (T, F)
        power = np.einsum("tf,tfg,tg->t", weights, squares, weights)
        quality.append(((weights * products).sum(1) / np.sqrt(np.maximum(power, 1e-12))).mean())
    penalty = _PENALTIES[int(np.argmax(np.round(quality, 9)))]
    return np.linalg.solve(squares.mean(0) + penalty * eye, products.mean(0))


def _unit(values: np.ndarray) -> np.ndarray:
    spread = values.std()
    return (values - values.mean()) / spread if spread > _SMALL else np.zeros(len(values))
