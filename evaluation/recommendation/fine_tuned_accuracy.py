"""What measured results add to the probes: how far fine-tuning goes beyond them, and which models do well elsewhere.

One Gaussian model of all there is, in logits of accuracies. Fine-tuning model i on dataset t reaches

    f(i, t) = level of t + quality of i + what the two have with one another;

a measured result is that with a little noise, and a probe is that less a gap of the dataset and with noise of its own.
How large each of these parts is, is learned from the table and from the probes at hand, with weak priors: a few results
move little, many move much. Another budget of fine-tuning has a level of its own, as another dataset has: three epochs
say which models are good, and not what ten reach.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from constants.counting import counted
from evaluation.recommendation.ranking import Expectation
from evaluation.recommendation.results_table import MeasuredResult, names_of

_EDGE = 0.005  # accuracies are kept this far from 0 and 1, where logits are infinite
_LEVEL = 2.0  # standard deviation of what is common to all results, and of what is common to a dataset's
_GAP = 1.0  # standard deviation of the mean gap between fine-tuning and probe
_USUAL = {"quality": 0.3, "pair": 0.25, "gap": 0.3, "probe": 0.3}
"""Where the standard deviations of the parts are looked for first; a factor of e to either side is a usual one."""
_MEASURED, _PROBED = 0.1, 0.15  # noise of a measured result, and of a table's probe of unknown size
_PAIRS = 3  # results with a probe from which on the level after fine-tuning is told
_MOST_ROWS, _MOST_FITTED = 1500, 400
_ACCURACIES = ("acc", "top1", "top-1", "top_1", "recall", "f1")


@dataclass(frozen=True)
class Knowledge:
    """Results of a table about the models of a zoo.

    Attributes:
        path: the table.
        models: place of each result's model in the zoo.
        datasets: number of each result's dataset and budget; -1 for the dataset that is asked about, with the budget
            that it was last fine-tuned with.
        values: accuracy of each result, from 0 to 1.
        probes: accuracy of its probe; NaN where there is none.
        images: images that its probe was scored on; NaN where unknown.
        ignored: results that could not be used, as a sentence; "" where there are none.
    """

    path: Path
    models: np.ndarray
    datasets: np.ndarray
    values: np.ndarray
    probes: np.ndarray
    images: np.ndarray
    ignored: str = ""

    def __len__(self) -> int:
        return len(self.values)

    def quality(self, models: int) -> np.ndarray:
        """Return by how much each model is better than those it was measured beside, shrunk; 0 where unknown.

        Args:
            models: number of models of the zoo.
        """
        return self._means(models)[0]

    def remarks(self, models: int) -> tuple[str, ...]:
        """Say of each model what the results say.

        Args:
            models: number of models of the zoo.
        """
        _, means, counts = self._means(models)
        here = {
            int(m): float(value) for m, value, t in zip(self.models, self.values, self.datasets, strict=True) if t < 0
        }
        texts = []
        for model in range(models):
            parts = [f"fine-tuned on these images before: {here[model]:.3f}"] if model in here else []
            if counts[model]:
                what = counted(int(counts[model]), "other dataset or budget", "other datasets or budgets")
                parts.append(f"{100 * means[model]:+.1f} points from the mean of those measured on {what}")
            texts.append("; ".join(parts))
        return tuple(texts)

    def _means(self, models: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sums, counts = np.zeros(models), np.zeros(models)
        logits = np.zeros(models)
        for dataset in np.unique(self.datasets[self.datasets >= 0]):
            rows = self.datasets == dataset
            if len(np.unique(self.models[rows])) > 1:
                np.add.at(sums, self.models[rows], self.values[rows] - self.values[rows].mean())
                own = logit(self.values[rows])
                np.add.at(logits, self.models[rows], own - own.mean())
                np.add.at(counts, self.models[rows], 1)
        return logits / (counts + 2), sums / np.maximum(counts, 1), counts


def logit(accuracies: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)), with p at least 0.005 away from 0 and 1."""
    kept = np.clip(accuracies, _EDGE, 1 - _EDGE)
    return np.log(kept / (1 - kept))


def gather(
    results: Sequence[MeasuredResult], path: Path, zoo: Sequence[tuple[str, str]], digest: str
) -> Knowledge | None:
    """Take from a table what is about a zoo's models.

    Args:
        results: the table.
        path: its file.
        zoo: reference and name of each model.
        digest: digest of the dataset that is asked about.

    Returns:
        The results; None where there are none.
    """
    place: dict[str, int] = {}
    for number, (reference, name) in enumerate(zoo):
        for known in names_of(reference, name):
            place.setdefault(known, number)
    about = [each for each in results if each.model in place]
    accurate = [each for each in about if any(word in each.metric.lower() for word in _ACCURACIES)]
    # In percent, where one value of a dataset is above 1.
    highest: dict[str, float] = {}
    for each in accurate:
        highest[each.dataset] = max(highest.get(each.dataset, 0.0), each.value)
    usable = [each for each in accurate if each.value >= 0 and highest[each.dataset] <= 100][-_MOST_ROWS:]
    if not usable:
        return None
    numbers: dict[tuple[str, str, str], int] = {}
    here = [each.budget for each in usable if digest and each.dataset_digest == digest]
    datasets = [
        -1 if here and (each.dataset_digest, each.budget) == (digest, here[-1])
        else numbers.setdefault((each.dataset, each.dataset_digest, each.budget), len(numbers))
        for each in usable
    ]  # fmt: skip
    left = len(about) - len(usable)
    return Knowledge(
        path, np.array([place[each.model] for each in usable]), np.array(datasets),
        np.array([each.value / (100.0 if highest[each.dataset] > 1 else 1.0) for each in usable]),
        np.array([math.nan if each.probe_accuracy is None else each.probe_accuracy for each in usable]),
        np.array([math.nan if each.images is None else float(each.images) for each in usable]),
        f"{counted(left, 'result')} of {path} not used: no accuracy" if left else "",
    )  # fmt: skip


def expect(knowledge: Knowledge, models: Sequence[int], draws: np.ndarray, zoo_size: int, seed: int = 0) -> Expectation:
    """Say what fine-tuning will reach.

    Args:
        knowledge: results about models of the zoo.
        models: (M,) place in the zoo of each model that was probed.
        draws: (B, M) draws of their probes' accuracies.
        zoo_size: number of models in the zoo.
        seed: seed of the draws that are returned.

    Returns:
        Draws of what each reaches; on the level of the probes where too few results have one beside them.
    """
    rows = _Rows.of(knowledge, np.asarray(models), draws)
    parts = _fit(rows)
    paired = np.isfinite(knowledge.probes) | (knowledge.datasets < 0)
    known = int(paired.sum()) >= _PAIRS
    query = np.asarray(models)
    here = np.full(len(query), -1)
    whole = rows.covariance(parts)
    cross = _between(
        rows.models, rows.datasets, rows.probe, query, here, np.full(len(query), not known), parts, same=False
    )
    own = _between(query, here, np.full(len(query), not known), query, here, np.full(len(query), not known), parts,
                   same=False)  # fmt: skip
    solved = np.linalg.solve(whole, np.column_stack([rows.values, cross]))
    mean = cross.T @ solved[:, 0]
    spread = own - cross.T @ solved[:, 1:]
    values, vectors = np.linalg.eigh((spread + spread.T) / 2)
    noise = np.random.default_rng(seed).standard_normal((len(draws), len(query)))
    sampled = mean + (noise * np.sqrt(np.maximum(values, 0))) @ vectors.T
    count = len(knowledge)
    where = len(np.unique(knowledge.datasets))
    texts = knowledge.remarks(zoo_size)
    return Expectation(
        1 / (1 + np.exp(-sampled)), f"{counted(count, 'result')} on {counted(where, 'dataset')} in {knowledge.path}",
        tuple(texts[m] for m in models), known,
    )  # fmt: skip


@dataclass(frozen=True)
class _Rows:
    """Everything that was observed: results, their probes, and the probes at hand."""

    models: np.ndarray
    datasets: np.ndarray
    probe: np.ndarray
    values: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(cls, knowledge: Knowledge, models: np.ndarray, draws: np.ndarray) -> "_Rows":
        elsewhere = np.isfinite(knowledge.probes) & (knowledge.datasets >= 0)
        probes = knowledge.probes[elsewhere]
        images = knowledge.images[elsewhere]
        kept = np.clip(probes, 0.02, 0.98)
        binomial = 1 / (np.maximum(images, 10) * kept * (1 - kept))
        probed = np.where(np.isfinite(images), binomial, _PROBED**2)
        at_hand = logit(draws)
        parts = [len(knowledge), len(probes), len(models)]
        noise = np.zeros((sum(parts), sum(parts)))
        first = parts[0] + parts[1]
        noise[:first, :first] = np.diag(np.concatenate([np.full(parts[0], _MEASURED**2), probed]))
        noise[first:, first:] = np.atleast_2d(np.cov(at_hand.T)) + 1e-6 * np.eye(parts[2])
        return cls(
            np.concatenate([knowledge.models, knowledge.models[elsewhere], models]),
            np.concatenate([knowledge.datasets, knowledge.datasets[elsewhere], np.full(len(models), -1)]),
            np.repeat([False, True, True], parts),
            np.concatenate([logit(knowledge.values), logit(probes), at_hand.mean(0)]),
            noise,
        )  # fmt: skip

    def covariance(self, parts: dict[str, float]) -> np.ndarray:
        me = (self.models, self.datasets, self.probe)
        return _between(*me, *me, parts, same=True) + self.noise

    def some(self, most: int) -> "_Rows":
        """Return the last rows: the probes at hand are among them."""
        return _Rows(*(values[-most:] for values in (self.models, self.datasets, self.probe, self.values)),
                     self.noise[-most:, -most:])  # fmt: skip


def _between(
    models: np.ndarray, datasets: np.ndarray, probe: np.ndarray, others: np.ndarray, their: np.ndarray,
    theirs: np.ndarray, parts: dict[str, float], same: bool,
) -> np.ndarray:  # fmt: skip
    """Return covariances without noise; `same`: a probe's own deviation is in both."""
    model = models[:, None] == others
    dataset = datasets[:, None] == their
    both = probe[:, None] & theirs
    pair = model & dataset
    covariance = _LEVEL**2 * (1.0 + dataset) + parts["quality"] ** 2 * model + parts["pair"] ** 2 * pair
    covariance += both * (_GAP**2 + parts["gap"] ** 2 * dataset)
    return covariance + (parts["probe"] ** 2 * (both & pair) if same else 0.0)


def _fit(rows: _Rows) -> dict[str, float]:
    """Find how large the parts are: the most probable standard deviations, given the rows and weak priors."""
    from scipy.optimize import minimize

    few = rows.some(_MOST_FITTED)
    names = list(_USUAL)
    usual = np.log([_USUAL[name] for name in names])

    def surprise(logs: np.ndarray) -> float:
        covariance = few.covariance(dict(zip(names, np.exp(logs), strict=True)))
        try:
            lower = np.linalg.cholesky(covariance + 1e-9 * np.eye(len(covariance)))
        except np.linalg.LinAlgError:
            return 1e12
        white = np.linalg.solve(lower, few.values)
        return float(white @ white / 2 + np.log(np.diag(lower)).sum() + ((logs - usual) ** 2).sum() / 2)

    found = minimize(surprise, usual, method="Nelder-Mead", options={"maxfev": 150, "xatol": 0.05, "fatol": 0.01})
    return dict(zip(names, np.exp(np.clip(found.x, usual - 3, usual + 3)), strict=True))
