"""What a few results on a dataset say of the models that were not tried there, given a table of other datasets.

The value of model m on dataset d is `level(d) + spread(d) * (usual(m) + own(m, d))`. `usual` follows the static order;
`own` is Gaussian, with covariances between models that are learnt from the other datasets and shrunk as far as these
disagree about them. Level and spread of a new dataset are like those of one of the others, more or less.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr
from scipy.stats import rankdata

_CLIP = 3.0  # spreads from the level; beyond, a failed run counts no more
_WEIGHT = 1.0  # results that a model's usual value is drawn to 0 by
_VARIANCE_WEIGHT = 8.0  # results that a model's variance is drawn to that of its like by
_LIKE = 0.15  # share of the static order within which models are of a like
_STATIC_SHARE = 0.1  # of the usual value: the static order itself, so that it decides between equals
_LEAST_OWN = 0.1  # share of the variance that no other model tells
_TEMPER = 0.3  # power of the likelihood of levels and spreads: the few models measured are not drawn at random
_SPREAD_STEPS = (-1.2, 0.0, 1.2)  # widths of a kernel around the log spread of each known dataset
_LEVEL_WIDTH = 0.7  # of Silverman's width of the kernel around the level of each known dataset
_LOOSER = 2.0  # times that width once a result is known: it says more of the level than other datasets do
_MOST_LEVELS = 24  # known datasets whose levels and spreads are tried, spread over all
_SMALL = 1e-9
COVARIATE_NOISE = 1.0
"""Variance of a covariate's error before any dataset has shown it: it then correlates with the values by about 0.7."""
_COVARIATE_WEIGHT = 20  # pairs of value and covariate that this guess counts as


@dataclass(frozen=True)
class ValuePosterior:
    """Distribution of the values of all models on one dataset: a mixture over its possible levels and spreads.

    Attributes:
        weights: (A,) probability of each pair of level and spread.
        means: (A, M) expected values, in the unit of the table.
        deviations: (A, M) standard deviations; 0 for measured models.
        draws: (S, M) joint draws, of all the mixture.
        spread: expected spread of the models' values on the dataset.
    """

    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray
    draws: np.ndarray
    spread: float

    def expected(self) -> np.ndarray:
        """Return the expected value of each model, (M,); that of a measured one to the last digit."""
        return np.where(self.deviations[0] > 0, self.weights @ self.means, self.means[0])

    def deviation(self) -> np.ndarray:
        """Return the standard deviation of each model's value, (M,)."""
        away = self.means - self.expected()
        return np.sqrt(self.weights @ (self.deviations**2 + away**2))

    def quantile(self, share: float) -> np.ndarray:
        """Return the value that each model is below with this probability, (M,)."""
        reach = 8 * self.deviations
        low, high = (self.means - reach).min(0), (self.means + reach).max(0)
        for _ in range(40):  # bisection: 40 halvings leave a 1e-12th
            middle = (low + high) / 2
            below = self._below(middle) < share
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return (low + high) / 2

    def _below(self, values: np.ndarray) -> np.ndarray:
        deviations = np.maximum(self.deviations, _SMALL * (1 + np.abs(self.means)))
        return self.weights @ ndtr((values - self.means) / deviations)

    def expected_gain(self, best: float, highest: float = np.inf) -> np.ndarray:
        """Return by how much each model's value is expected to exceed `best`, counting no loss, (M,).

        Args:
            best: the value to exceed.
            highest: greatest value that there can be; above it nothing is gained.
        """
        gains = self._excess(best) - (self._excess(highest) if np.isfinite(highest) else 0.0)
        return np.where(self.deviations[0] > 0, np.maximum(gains, 0.0), 0.0)

    def _excess(self, value: float) -> np.ndarray:
        deviations = np.maximum(self.deviations, _SMALL)
        z = (self.means - value) / deviations
        return self.weights @ (deviations * (z * ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)))

    def chance_best(self) -> np.ndarray:
        """Return the probability that each model is the best one, (M,); equals share it."""
        top = self.draws >= self.draws.max(1, keepdims=True)
        return (top / top.sum(1, keepdims=True)).mean(0)


class FewResultsModel:
    """Predicts values on a dataset from the results on other datasets, and from those on the dataset itself.

    Attributes:
        usual: (M,) expected value of each model, in spreads from the level.
        covariance: (M, M) of what is a model's own on a dataset, in squared spreads.
        levels: (D,) level of each dataset, in the unit of the table.
        spreads: (D,) spread of each dataset.
        trust: 0 to 1, how far the covariances of the datasets agree with one another.
    """

    def __init__(self, values: np.ndarray, level_columns: np.ndarray | None = None):
        """Learn from the results on other datasets.

        Args:
            values: (M, D) higher is better; NaN where nothing was measured. Columns with fewer than two values, or
                with equal ones, teach nothing and are left out.
            level_columns: (D,) bool, datasets whose level and spread are in the unit of the new one; None means all.

        Raises:
            ValueError: fewer than two datasets remain.
        """
        useful = np.array([_tells(column) for column in values.T], dtype=bool)
        if useful.sum() < 2:
            raise ValueError(f"{useful.sum()} datasets tell models apart; at least 2 are needed.")
        values = values[:, useful]
        comparable = np.ones(len(values.T), bool) if level_columns is None else level_columns[useful]
        self.levels, self.spreads, raw, scaled = _standardized(values)
        self._counts = np.isfinite(scaled).sum(1)
        self.usual = _in_static_order(raw, mean_ranks(values), self._counts)
        self._learn_covariance(np.where(np.isfinite(scaled), scaled - self.usual[:, None], 0.0))
        self._possible_levels(comparable if comparable.sum() >= 2 else np.ones(len(comparable), bool))

    def _learn_covariance(self, rest: np.ndarray) -> None:
        """Shrink the covariances of what is left, by how well each dataset's are told by those of the others."""
        count = rest.shape[1]
        own = (rest**2).T @ (rest**2)
        # Products of datasets' matrices of covariances without their diagonals, (D, D).
        products = (rest.T @ rest) ** 2 - own
        between = products - np.diag(products.diagonal())
        told = between.sum() / (count * (count - 1))
        power = (products.sum() - 2 * products.sum(1) + products.diagonal()).mean() / (count - 1) ** 2
        self.trust = float(np.clip(told / power, 0.0, 1.0)) if power > 0 else 0.0
        variances, common = self._variances((rest**2).sum(1))
        shared = self.trust / count * rest @ rest.T
        alone = np.maximum(variances - shared.diagonal(), _LEAST_OWN * common)
        unsure = variances / (self._counts + _WEIGHT)  # of the usual value itself
        self.covariance = shared + np.diag(alone + unsure + _SMALL)

    def _variances(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Estimate the variance of each model, and that of models near it in the static order, both (M,).

        Good models vary less than bad ones, which fail in more ways.
        """
        free = np.maximum(self._counts - 1, 0)
        overall = squares.sum() / max(free.sum(), 1)
        place = np.argsort(np.argsort(self.usual, kind="stable"), kind="stable") / max(len(squares) - 1, 1)
        near = np.exp(-0.5 * ((place[:, None] - place) / _LIKE) ** 2)
        like = (near @ squares + 3 * overall) / (near @ free + 3)
        return (_VARIANCE_WEIGHT * like + squares) / (_VARIANCE_WEIGHT + free), like

    def _possible_levels(self, comparable: np.ndarray) -> None:
        order = np.flatnonzero(comparable)[np.argsort(self.levels[comparable], kind="stable")]
        order = order[np.linspace(0, len(order) - 1, min(len(order), _MOST_LEVELS)).astype(int)]
        levels, logs = self.levels[order], np.log(self.spreads[order])
        width = 1.06 * len(levels) ** -0.2
        steps = np.array(_SPREAD_STEPS) * max(width * logs.std(), 0.1)
        self._level_of = np.repeat(levels, len(steps))
        self._spread_of = np.exp((logs[:, None] + steps).ravel())
        self._level_error = max(_LEVEL_WIDTH * width * levels.std(), 0.1 * float(np.exp(np.median(logs))))

    def shift_usual(self, shift: np.ndarray) -> None:
        """Expect models to be better or worse than usual, (M,) in standard deviations between usual values."""
        self.usual = self.usual + self.usual.std() * shift

    def observe_covariate(self, covariate: np.ndarray, noise: float = COVARIATE_NOISE) -> None:
        """Learn from a number that was found cheaply for models on the new dataset, such as a linear probe's accuracy.

        It says of a model what its value says, up to level, spread and an error of its own.

        Args:
            covariate: (M,) higher is better, in any unit; NaN where there is none.
            noise: variance of its error, in squared spreads; see `covariate_noise`.
        """
        seen = np.flatnonzero(np.isfinite(covariate))
        if len(seen) < 3 or not _tells(covariate):
            return
        inner = self.covariance[np.ix_(seen, seen)]
        # Brought to the mean and spread that values of these models are expected to have.
        usual = self.usual[seen]
        spread = np.sqrt(usual.var() + inner.diagonal().mean() + noise)
        scaled = usual.mean() + spread * (covariate[seen] - covariate[seen].mean()) / covariate[seen].std()
        gain = np.linalg.solve(inner + noise * np.eye(len(seen)), self.covariance[seen]).T  # (M, K)
        self.usual = self.usual + gain @ (scaled - usual)
        rest = self.covariance - gain @ self.covariance[seen]
        self.covariance = (rest + rest.T) / 2 + _SMALL * np.eye(len(rest))

    def posterior(self, known: np.ndarray, values: np.ndarray, draws: int = 0, seed: int = 0) -> ValuePosterior:
        """Return the distribution of all values, given some.

        Args:
            known: (K,) int, which models were measured.
            values: (K,) what they reached.
            draws: number of joint draws, which `chance_best` needs.
            seed: seed of the draws.

        Returns:
            The distribution; for no results, that before any is known.
        """
        known, values = np.asarray(known, int), np.asarray(values, float)
        to_known = self.covariance[:, known]  # (M, K)
        inner = to_known[known] + 1e-6 * np.eye(len(known))
        # The error of the level is common to all models, so that one inverse does for all levels (Sherman-Morrison).
        inverse = np.linalg.inv(inner)
        ones = inverse.sum(0)
        looser = _LOOSER if len(known) else 1.0
        error = (looser * self._level_error / self._spread_of) ** 2  # (A,) variance of the level, in squared spreads
        grown = 1 + error * ones.sum()
        away = (values - self._level_of[:, None]) / self._spread_of[:, None] - self.usual[known]
        fit = ((away @ inverse) * away).sum(1) - error / grown * (away @ ones) ** 2 + np.log(grown)
        fit = -0.5 * fit - len(known) * np.log(self._spread_of)
        weights = np.exp(_TEMPER * (fit - fit.max()))
        kept = weights > 1e-4 * weights.sum()
        weights, level, spread, error, grown = (
            part[kept] for part in (weights, self._level_of, self._spread_of, error, grown)
        )
        weights = weights / weights.sum()
        given = _Given(known, values, level, spread, error, error / grown, inverse, ones)
        means = level[:, None] + spread[:, None] * (
            self.usual + self._shift(given, given.away(self.usual), slice(None))
        )
        alone = self.covariance.diagonal() - ((to_known @ inverse) * to_known).sum(1)
        variances = alone + given.shrunk[:, None] * (1 - to_known @ ones) ** 2
        deviations = spread[:, None] * np.sqrt(np.maximum(variances, _SMALL))
        means[:, known], deviations[:, known] = values, 0.0
        sample = self._draw(given, weights, draws, seed)
        return ValuePosterior(weights, means, deviations, sample, float(weights @ spread))

    def _shift(self, given: "_Given", away: np.ndarray, rows: slice | np.ndarray) -> np.ndarray:
        """Tell from what is known how far all models are from their usual values, (rows, M)."""
        solved = away @ given.inverse - (given.shrunk[rows] * (away @ given.ones))[:, None] * given.ones
        return solved @ self.covariance[:, given.known].T + (given.error[rows] * solved.sum(1))[:, None]

    def _draw(self, given: "_Given", weights: np.ndarray, draws: int, seed: int) -> np.ndarray:
        """Draw from the prior, and correct each draw by what it gets wrong of the known (Matheron's rule)."""
        if not draws:
            return np.empty((0, len(self.usual)))
        generator = np.random.default_rng(seed)
        place = generator.choice(len(weights), draws, p=weights)
        drawn = generator.normal(size=(draws, len(self.usual))) @ np.linalg.cholesky(self.covariance).T + self.usual
        drawn += generator.normal(size=(draws, 1)) * np.sqrt(given.error[place])[:, None]
        drawn += self._shift(given, given.away(drawn, place), place)
        drawn = given.level[place, None] + given.spread[place, None] * drawn
        drawn[:, given.known] = given.values
        return drawn


@dataclass(frozen=True)
class _Given:
    """What is known of a dataset, and its possible levels and spreads (A of them)."""

    known: np.ndarray  # (K,) int
    values: np.ndarray  # (K,)
    level: np.ndarray  # (A,)
    spread: np.ndarray  # (A,)
    error: np.ndarray  # (A,) variance of the level, in squared spreads
    shrunk: np.ndarray  # (A,) what is left of it, were the known results all that there is
    inverse: np.ndarray  # (K, K) of the covariances of the known models
    ones: np.ndarray  # (K,) sums of its rows

    def away(self, usual: np.ndarray, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Return how far the known values are from `usual`, (M,) or (rows, M), in spreads: (rows, K)."""
        return (self.values - self.level[rows, None]) / self.spread[rows, None] - usual[..., self.known]


def covariate_noise(values: np.ndarray, covariates: np.ndarray) -> float:
    """Estimate how far a covariate is from what it stands for, on datasets where both were found.

    Args:
        values: (M, D) measured values, NaN where there is none.
        covariates: (M, D) the covariate of the same models and datasets, NaN where there is none.

    Returns:
        Variance of the error in squared spreads, drawn to `COVARIATE_NOISE` where there are few pairs.
    """
    total, count = _COVARIATE_WEIGHT * (1 + COVARIATE_NOISE) ** -0.5, float(_COVARIATE_WEIGHT)
    for value, covariate in zip(values.T, covariates.T, strict=True):
        both = np.isfinite(value) & np.isfinite(covariate)
        if both.sum() >= 3 and _tells(value[both]) and _tells(covariate[both]):
            total += both.sum() * float(np.corrcoef(value[both], covariate[both])[0, 1])
            count += both.sum()
    return 1 / max(total / count, 1e-3) ** 2 - 1


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Rank models by their mean rank over datasets, from 0 (worst) to 1: the static order.

    Args:
        values: (M, D) higher is better; NaN where nothing was measured.

    Returns:
        (M,) float64; 0.5 for a model that was measured nowhere.
    """
    total, count = np.zeros(len(values)), np.zeros(len(values))
    for column in values.T:
        found = np.isfinite(column)
        if found.any():
            total[found] += (rankdata(column[found]) - 0.5) / found.sum()
            count[found] += 1
    return np.where(count > 0, total / np.maximum(count, 1), 0.5)


def _tells(column: np.ndarray) -> bool:
    found = column[np.isfinite(column)]
    return len(found) >= 2 and bool(np.ptp(found) > _SMALL * max(np.abs(found).max(), _SMALL))


def _standardized(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find level and spread of each dataset, the mean of each model, and the values in these terms, clipped.

    A dataset where good models were measured has a high mean for that reason: its level is what is left after the
    models' own means, which are found in turn with it.
    """
    found = np.isfinite(values)
    levels, spreads, clipped = np.empty(len(values.T)), np.empty(len(values.T)), values.copy()
    for number, column in enumerate(values.T):
        rows = found[:, number]
        tenth, low, middle, high, ninetieth = np.quantile(column[rows], [0.1, 0.25, 0.5, 0.75, 0.9])
        # Failed runs must not widen it, and a majority of equals not make it nothing.
        rough = max((high - low) / 1.349, (ninetieth - tenth) / 2.563) or column[rows].std()
        clipped[rows, number] = np.clip(column[rows], middle - _CLIP * rough, middle + _CLIP * rough)
        levels[number], spreads[number] = clipped[rows, number].mean(), clipped[rows, number].std()
    spreads = np.maximum(spreads, 0.03 * np.median(spreads))
    centres = levels.copy()
    for _ in range(1 if found.all() else 4):
        scaled = np.where(found, np.clip((values - levels) / spreads, -_CLIP - 1, _CLIP), np.nan)
        means = np.nan_to_num(scaled).sum(1) / (found.sum(1) + _WEIGHT)
        levels = centres - spreads * np.array([means[rows].mean() for rows in found.T])
    return levels, spreads, means, scaled


def _in_static_order(means: np.ndarray, static: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Fit the means by a rising function of the static order (pool adjacent violators), with a little of it itself."""
    order = np.argsort(static, kind="stable")
    pools: list[list[float]] = []
    for index in order:
        pools.append([means[index], counts[index] + 1e-6, 1])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            value, weight, size = pools.pop()
            total = pools[-1][1] + weight
            pools[-1] = [(pools[-1][0] * pools[-1][1] + value * weight) / total, total, pools[-1][2] + size]
    fitted = np.empty(len(means))
    fitted[order] = np.repeat([pool[0] for pool in pools], [int(pool[2]) for pool in pools])
    for value in np.unique(static):  # equals stay equal
        fitted[static == value] = fitted[static == value].mean()
    deviation = static.std()
    slope = means.std() / deviation if deviation > _SMALL else 0.0
    return (1 - _STATIC_SHARE) * fitted + _STATIC_SHARE * slope * (static - static.mean())
