"""What descriptions of networks know of them: statistics, hyperparameters, probes, tokens, held to one another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from data.network_population import HYPERPARAMETERS, Population
from data.population_batches import PopulationSplit, centred, task_numbers, within_task
from model.weight_tokens import STATISTICS, layer_columns, weight_statistics
from model.zoo_families import FAMILIES, family_shapes

_ALPHAS = np.logspace(-3, 5, 17)
_RESAMPLES = 2000
_TREES = 300


@dataclass(frozen=True)
class Reading:
    """What one description says of the test networks.

    Attributes:
        predicted: (n,) predicted logit of the accuracy, less the task's mean.
        r2: share of the variance within tasks that is explained.
        alone: the same of each reader alone, by its name.
        weights: weight of each reader in the prediction.
    """

    predicted: np.ndarray = field(repr=False)
    r2: float
    alone: dict[str, float]
    weights: dict[str, float]


def describe(population: Population) -> dict[str, np.ndarray]:
    """Return descriptions of all networks of a population, (N, F) each, by their name.

    Each also has a column for each family. `statistics`: mean, variance and five quantiles of each parameter tensor.
    `hyperparameters`: how the network was trained. `probes`: entropy and margin of its probabilities on each of 64
    fixed images, and its agreement there with other networks of its domain.
    """
    count = len(population)
    places = max(len(family_shapes(name)) for name in FAMILIES)
    statistics = np.zeros((count, places * STATISTICS))
    for name in FAMILIES:
        vectors = population.family_vectors(name)
        if len(vectors):
            own = layer_columns(weight_statistics(vectors, family_shapes(name)), places)
            statistics[population.members(name)] = own.numpy()
    planned = [[float(getattr(network, name)) for name in HYPERPARAMETERS] for network in population.planned]
    hyper = np.array(planned)
    positive = [number for number, name in enumerate(HYPERPARAMETERS) if name != "label_noise"]
    hyper[:, positive] = np.log(hyper[:, positive])
    shared = np.array([[float(network.shared)] for network in population.planned])
    parts = {
        "statistics": statistics,
        "hyperparameters": np.concatenate([hyper, shared], axis=1),
        "probes": _probes(population),
    }
    return {name: with_family(population, part) for name, part in parts.items()}


def with_family(population: Population, rows: np.ndarray) -> np.ndarray:
    """Add a column for each family to a description (N, F)."""
    family = np.array([list(FAMILIES).index(network.family) for network in population.planned])
    return np.concatenate([rows, np.eye(len(FAMILIES))[family]], axis=1)


def _probes(population: Population) -> np.ndarray:
    probabilities = population.outputs.float().softmax(2).numpy()  # (N, 64, 10)
    entropy = -(probabilities * np.log(probabilities + 1e-9)).sum(2)
    ordered = np.sort(probabilities, axis=2)
    margin = ordered[:, :, -1] - ordered[:, :, -2]
    answers = probabilities.argmax(2)
    domains = np.unique([network.domain for network in population.planned], return_inverse=True)[1]
    agreement = np.zeros_like(entropy)
    for domain in np.unique(domains):
        own = np.flatnonzero(domains == domain)
        votes = np.stack([(answers[own] == label).sum(0) for label in range(probabilities.shape[2])])  # (10, 64)
        # Without the network's own vote.
        agreement[own] = (votes[answers[own], np.arange(votes.shape[1])] - 1) / max(1, len(own) - 1)
    return np.concatenate([entropy, margin, agreement], axis=1)


def readers(population: Population, rows: np.ndarray, split: PopulationSplit, seed: int = 0) -> dict[str, np.ndarray]:
    """Fit each reader on the training part of a description, (N, F); return what it predicts of all networks, (N,)."""
    truth, tasks = within_task(population), task_numbers(population)
    return {
        "ridge": _ridge(rows, truth, tasks, split),
        "trees": _trees(rows, truth, split, seed),
        "boosting": _boosting(rows, truth, split, seed),
    }


def read(population: Population, predictions: Mapping[str, np.ndarray], split: PopulationSplit) -> Reading:
    """Put the predictions of several readers together and hold them to the truth.

    Args:
        population: networks that are described.
        predictions: (N,) what each reader predicts, by its name.
        split: the validation part decides how much each reader counts (not negative); the test part is reported.
    """
    from scipy.optimize import nnls

    truth, tasks = within_task(population), task_numbers(population)
    columns = {
        part: np.stack([centred(values[own], tasks[own]) for values in predictions.values()], axis=1)
        for part, own in (("val", split.val), ("test", split.test))
    }
    known = centred(truth[split.val], tasks[split.val])
    # As if ten more networks had said that all readers count alike: a small validation part must not decide alone.
    prior = known.std() * np.sqrt(10 / len(predictions)) * np.eye(len(predictions))
    weights = nnls(
        np.concatenate([columns["val"], prior]),
        np.concatenate([known, prior.sum(1) / len(predictions)]),
    )[0]
    own = tasks[split.test]
    return Reading(
        columns["test"] @ weights,
        within_r2(truth[split.test], columns["test"] @ weights, own),
        {name: within_r2(truth[split.test], values[split.test], own) for name, values in predictions.items()},
        dict(zip(predictions, weights.round(3).tolist(), strict=True)),
    )


def _ridge(rows: np.ndarray, truth: np.ndarray, tasks: np.ndarray, split: PopulationSplit) -> np.ndarray:
    from sklearn.linear_model import Ridge  # scikit-learn takes a second to import
    from sklearn.model_selection import GridSearchCV, GroupKFold

    known = rows[split.train]
    scaled = ((rows - known.mean(0)) / np.maximum(known.std(0), 1e-6)).clip(-5, 5)
    folds = GroupKFold(min(5, len(set(tasks[split.train]))))
    search = GridSearchCV(Ridge(), {"alpha": _ALPHAS}, cv=folds, scoring="neg_mean_squared_error")
    search.fit(scaled[split.train], truth[split.train], groups=tasks[split.train])
    return search.predict(scaled)


def _trees(rows: np.ndarray, truth: np.ndarray, split: PopulationSplit, seed: int) -> np.ndarray:
    from sklearn.ensemble import ExtraTreesRegressor

    trees = ExtraTreesRegressor(_TREES, max_features=0.5, min_samples_leaf=2, random_state=seed)
    return trees.fit(rows[split.train], truth[split.train]).predict(rows)


def _boosting(rows: np.ndarray, truth: np.ndarray, split: PopulationSplit, seed: int) -> np.ndarray:
    from sklearn.ensemble import HistGradientBoostingRegressor

    boosting = HistGradientBoostingRegressor(
        learning_rate=0.05, max_iter=200, max_leaf_nodes=15, l2_regularization=1.0, random_state=seed
    )
    return boosting.fit(rows[split.train], truth[split.train]).predict(rows)


def within_r2(truth: np.ndarray, predicted: np.ndarray, tasks: np.ndarray) -> float:
    """Return the share of the variance within tasks that predictions explain; both are centred by task."""
    truth, predicted = centred(truth, tasks), centred(predicted, tasks)
    return float(1 - ((truth - predicted) ** 2).sum() / max((truth**2).sum(), 1e-12))


def paired_difference(
    truth: np.ndarray, first: np.ndarray, second: np.ndarray, groups: np.ndarray | None = None, seed: int = 0
) -> tuple[float, float, float]:
    """Return the R2 of one prediction less that of another, with a 95 % interval of a paired bootstrap.

    Args:
        truth: (n,) truth, centred by task.
        first: (n,) the one prediction, centred by task.
        second: (n,) the other.
        groups: (n,) what is drawn, such as tasks; None draws networks.
        seed: seed of the draws.
    """
    draw = np.random.default_rng(seed)
    wrong = np.stack([(truth - first) ** 2, (truth - second) ** 2, truth**2])
    sums = wrong if groups is None else np.stack([np.bincount(groups, part) for part in wrong])
    sums = sums[:, sums[2] > 0]
    drawn = sums[:, draw.integers(0, sums.shape[1], size=(_RESAMPLES, sums.shape[1]))].sum(2)
    low, high = np.percentile((drawn[1] - drawn[0]) / drawn[2], [2.5, 97.5])
    total = sums.sum(1)
    return float((total[1] - total[0]) / total[2]), float(low), float(high)


def joined_difference(
    parts: Sequence[tuple[Population, PopulationSplit, Mapping[str, Reading]]], first: str, second: str
) -> dict[str, tuple[float, float, float]]:
    """Compare two descriptions over the test parts of several splits together: networks drawn, and tasks drawn."""
    truth, tasks, one, other = [], [], [], []
    for population, split, readings in parts:
        own = task_numbers(population)[split.test]
        truth.append(centred(within_task(population)[split.test], own))
        tasks.append(own)
        one.append(readings[first].predicted)
        other.append(readings[second].predicted)
    columns = [np.concatenate(column) for column in (truth, one, other)]
    return {
        "networks": paired_difference(*columns),
        "tasks": paired_difference(*columns, groups=np.concatenate(tasks)),
    }


def as_rows(tokens: torch.Tensor) -> np.ndarray:
    """Return tokens (N, K) as float64 rows."""
    return tokens.detach().double().cpu().numpy()  # synchronisation
