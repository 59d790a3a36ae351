"""How accurate a model will be, not only which one is best: fitted on the tasks that a ranker was trained on.

The logit of a model's accuracy on a dataset is the dataset's level plus what sets the model apart. The level follows
from facts that need no model; the rest from the ranker's score. Logits, because accuracies near 1 lie close together.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from data.benchmark_tasks import SHOTS
from data.ranking_world import EncodedImages, by_row
from evaluation.ranking.transferability import nearest_centroid

COVERAGE = 0.9
"""Share of measured accuracies that an interval is made to hold."""
_RIDGE = 1.0  # penalty, as a number of tasks
_EDGE = 0.01  # accuracies are kept this far from 0 and 1, where logits are infinite


def logit(accuracy: np.ndarray | float) -> np.ndarray:
    """Return log(p / (1 - p)), with p at least 0.01 away from 0 and 1."""
    kept = np.clip(accuracy, _EDGE, 1 - _EDGE)
    return np.log(kept / (1 - kept))


def from_logit(values: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-np.asarray(values, np.float64)))


def dataset_facts(images: EncodedImages) -> np.ndarray:
    """Describe how hard a dataset is, by what needs no model.

    Args:
        images: the dataset. Of each class no more images count than a task of the benchmark has, because what is
            predicted is the accuracy after fine-tuning on so many.

    Returns:
        (3,) float64: log of the number of classes, mean log of images of a class, logit of the leave-one-out accuracy
        of the nearest centroid of the encoder's features.
    """
    rows = []
    for label in images.labels.unique():
        own = torch.where(images.labels == label)[0]
        # By content, not by place: the same images in another order give the same facts.
        order = images.features[own].double().sum(1).argsort()
        step = max(1.0, len(own) / max(SHOTS))
        rows.append(own[order[(torch.arange(min(len(own), max(SHOTS))) * step).long()]])
    shots = float(np.mean([math.log(len(own)) for own in rows]))
    kept = torch.cat(rows)
    features = images.features[kept]
    accuracy = float(nearest_centroid(features[None], images.labels[kept])[0])
    return np.array([math.log(len(rows)), shots, float(logit(accuracy))])


@dataclass(frozen=True)
class AccuracyModel:
    """Predicts accuracies.

    Args:
        facts: (T, 3) facts of the training tasks, as `dataset_facts` gives them.
        scores: (T, N) scores that the ranker gave, standardised over models.
        accuracy: (T, N) measured accuracies from 0 to 1.
        domains: name of the domain of each training task. A new dataset is of a domain of its own, so errors are those
            on tasks of a domain left out.
        unseen: indices of the training tasks whose accuracies taught the ranker nothing: the spread is fitted on these.
    """

    facts: np.ndarray = field(repr=False)
    scores: np.ndarray = field(repr=False)
    accuracy: np.ndarray = field(repr=False)
    domains: tuple[str, ...]
    unseen: tuple[int, ...]

    def predict(self, facts: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, ...]:
        """Predict accuracies on a dataset.

        Args:
            facts: (3,) facts of the dataset, as `dataset_facts` gives them.
            scores: (M,) scores of the models that are asked about, standardised as those of the training tasks.

        Returns:
            Expected accuracy, lower and upper end of the interval, each (M,) float64 from 0 to 1.
        """
        kept = list(range(len(self.facts)))
        centre = self._centre(kept, facts, scores)
        errors = []
        for task in kept:
            others = [other for other in kept if self.domains[other] != self.domains[task]]
            errors.append(logit(self.accuracy[task]) - self._centre(others, self.facts[task], self.scores[task]))
        width = _half_width(np.stack(errors), len({self.domains[task] for task in kept}))
        return from_logit(centre), from_logit(centre - width), from_logit(centre + width)

    def _centre(self, tasks: list[int], facts: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Predict logits from some of the training tasks, (M,)."""
        levels = logit(self.accuracy[tasks]).mean(1)
        mean, scale = self.facts[tasks].mean(0), self.facts[tasks].std(0) + 1e-9
        rows = (self.facts[tasks] - mean) / scale
        inner = rows.T @ rows + _RIDGE * np.eye(rows.shape[1])
        slopes = np.linalg.solve(inner, rows.T @ (levels - levels.mean()))
        level = levels.mean() + (facts - mean) / scale @ slopes
        honest = [task for task in tasks if task in self.unseen] or tasks
        truth = logit(self.accuracy[honest])
        correlation = float((by_row(truth) * by_row(self.scores[honest])).mean())
        return level + np.clip(scores, -3, 3) * truth.std(1).mean() * max(correlation, 0.0)


def _half_width(errors: np.ndarray, domains: int) -> float:
    """Return what `COVERAGE` of the errors (T, N) are below.

    With the finite-sample allowance of conformal prediction (Vovk et al. 2005), by the number of domains: the errors of
    one task, and of one domain, go together, so that there are few independent ones.
    """
    return float(np.quantile(np.abs(errors), min(1.0, COVERAGE * (1 + 1 / domains))))
