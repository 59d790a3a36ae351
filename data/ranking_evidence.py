"""What training tasks and probe sets say about models on a new dataset, without running any model on it.

A dataset has a place: mean and spread of its images' features. Sets that lie near each other rank models alike, so
evidence about a new dataset is a weighted mean over known sets, and the weights fall with the distance. The numbers
below were chosen on the training tasks alone, each left out in turn.
"""

from dataclasses import dataclass

import numpy as np

from data.ranking_world import EncodedImages, Fold, RankingWorld, by_row, other_tasks, visible_probes

_NARROW = 0.1  # bandwidth of weighted means, in mean squared deviations of an image feature
_WIDE = 1.0  # length scale of the Gaussian process
_AGREEMENT = 0.7  # prior correlation between measured accuracy and probe score at one place
_NOISE = 0.3  # variance of what is measured on one set, beside 1 of what varies smoothly
_KIN_PENALTY = 1.0
_KIN_FAMILY = 0.3  # prior covariance of two models for being of one family; that of their probe scores is about 1
_PROBE_EVIDENCE = ("log_me", "nearest_centroid")
HYBRID_SCORES = ("log_me", "nearest_centroid")
"""Scores that hybrid rankers see, computed on the new dataset itself."""


@dataclass(frozen=True)
class Context:
    """What a list may learn from.

    Attributes:
        places: (K, D) standardised features of the known sets: tasks, then probe sets.
        measured: number of tasks among the K known sets; they come first.
        values: (tasks, N) standardised performance of each model on each known task, by name of the evidence.
        solved: (K, N) solution of the Gaussian process, by name of the evidence; a new place's covariances are
            multiplied with it.
        prior: (N,) prior mean of the Gaussian process, by name of the evidence.
        probe_scores: (probe sets, N) standardised scores of each model on each visible probe set, by name of the score.
    """

    places: np.ndarray
    measured: int
    values: dict[str, np.ndarray]
    solved: dict[str, np.ndarray]
    prior: dict[str, np.ndarray]
    probe_scores: dict[str, np.ndarray]


class Evidence:
    """Computes the pair features of a fold.

    Args:
        world: the benchmark.
        fold: tasks, models and probe sets that may be seen. Accuracies of models that are not in the fold's training
            models are never read.
    """

    def __init__(self, world: RankingWorld, fold: Fold) -> None:
        self.world, self.fold = world, fold
        features = np.concatenate([world.probes[index].features.numpy() for index in fold.probes]).astype(np.float64)
        self._centre, self._scale = features.mean(0), features.std(0) + 1e-6
        self._probe_places = np.stack([self.place(probe) for probe in world.probes])
        self._task_places = np.stack([self.place(task) for task in world.encoded])
        places = np.concatenate([self._task_places, self._probe_places])
        # Once for all lists, and a row at a time: all differences at once would be half a gigabyte.
        self._between = np.stack([np.sqrt(((places - place) ** 2).mean(1)) for place in places])
        known = list(fold.train_models)
        # Standardised over training models; the others' accuracies are unknown here.
        self._performance = np.full(world.truth.shape, np.nan)
        self._performance[:, known] = by_row(world.truth[:, known])
        self._kin = self._kin_weights()
        self._contexts: dict[tuple[int | None, str | None], Context] = {}

    @property
    def names(self) -> list[str]:
        """Names of the pair features, in their order."""
        over_tasks = ["kin"] if self.fold.cold else ["own", "kin"]
        kinds = [f"{kind} {form}" for kind in over_tasks for form in ("mean", "near", "process")]
        return kinds + [f"probe {name}" for name in _PROBE_EVIDENCE]

    def place(self, images: EncodedImages) -> np.ndarray:
        """Return where a set of images lies: mean and spread of its features, (2 D,)."""
        return np.concatenate([(images.mean - self._centre) / self._scale, images.spread / self._scale - 1])

    def pair_features(self, images: EncodedImages, task: int | None = None, domain: str | None = None) -> np.ndarray:
        """Compute what is known about all N models on a dataset.

        Args:
            images: encoded images of the dataset.
            task: index of the dataset where it is a task of the benchmark, so that its own accuracies stay hidden; None
                for a new dataset.
            domain: name of the dataset's domain, None where unknown; hidden too where the fold is about unseen domains.

        Returns:
            (N, P) float64, each column standardised over the training models.
        """
        context = self._context(task, domain)
        squared = ((context.places - self.place(images)) ** 2).mean(1)
        distances = np.sqrt(squared)
        near_tasks, near_probes = _weights(distances[: context.measured]), _weights(distances[context.measured :])
        covariance = np.exp(-distances / _WIDE)
        covariance[context.measured :] *= _AGREEMENT
        columns = []
        for name, values in context.values.items():
            columns += [values.mean(0), near_tasks @ values, context.prior[name] + covariance @ context.solved[name]]
        columns += [near_probes @ context.probe_scores[name] for name in _PROBE_EVIDENCE]
        return by_row(np.stack(columns), self.fold.train_models).T

    def neighbours(self, images: EncodedImages, count: int = 3) -> list[tuple[str, float]]:
        """Name the nearest training tasks and their distances."""
        tasks = list(self.fold.train_tasks)
        distances = np.sqrt(((self._task_places[tasks] - self.place(images)) ** 2).mean(1))
        return [(self.world.tasks[tasks[i]].name, float(distances[i])) for i in np.argsort(distances)[:count]]

    # ------------------------------------------------------------------------------------------------------- parts

    def _context(self, task: int | None, domain: str | None) -> Context:
        key = (task, domain)
        if key not in self._contexts:
            self._contexts[key] = self._make_context(task, domain)
        return self._contexts[key]

    def _make_context(self, task: int | None, domain: str | None) -> Context:
        tasks = list(self.fold.train_tasks) if task is None else other_tasks(self.world, self.fold, task)
        probes = list(visible_probes(self.world, self.fold, domain))
        places = np.concatenate([self._task_places[tasks], self._probe_places[probes]])
        rows = tasks + [len(self._task_places) + probe for probe in probes]
        covariance = np.exp(-self._between[np.ix_(rows, rows)] / _WIDE)
        covariance[: len(tasks), len(tasks) :] *= _AGREEMENT
        covariance[len(tasks) :, : len(tasks)] *= _AGREEMENT
        covariance += _NOISE * np.eye(len(places))
        known = self.fold.train_models
        scores = {name: by_row(self.world.probe_scores[name][probes], known) for name in _PROBE_EVIDENCE}
        together = by_row(sum(scores.values()), known)
        measured = self._performance[tasks]
        values = {} if self.fold.cold else {"own": measured}
        values["kin"] = np.nan_to_num(measured) @ self._kin.T
        prior, solved = {}, {}
        for name, own in values.items():
            prior[name] = own.mean(0)
            offsets = np.concatenate([own - prior[name], together - together.mean(0)])
            solved[name] = np.linalg.solve(covariance, offsets)
        return Context(places, len(tasks), values, solved, prior, scores)

    def _kin_weights(self) -> np.ndarray:
        """Say how a model's performance follows from that of the training models which answer to probes as it does.

        Kernel ridge regression on probe scores and family. A training model is predicted from the others alone (from
        the other families, where the fold is about unseen families), as a model is that was never measured.

        Returns:
            (N, N); row m holds the weights of the training models for model m, 0 for all others.
        """
        world, fold = self.world, self.fold
        known = np.array(fold.train_models)
        rows = [by_row(scores[list(fold.probes)], known).T for scores in world.probe_scores.values()]
        profile = np.concatenate(rows, axis=1)  # (N, probe sets x scores)
        profile = (profile - profile[known].mean(0)) / profile[known].std()
        same = np.array(world.families)[:, None] == np.array(world.families)[None]
        covariance = profile @ profile.T / profile.shape[1] + _KIN_FAMILY * same
        weights = np.zeros((len(world.models), len(world.models)))
        for model in range(len(world.models)):
            hidden = same[model, known] if fold.unseen == "family" else known == model
            others = known[~hidden]
            inner = covariance[np.ix_(others, others)] + _KIN_PENALTY * np.eye(len(others))
            weights[model, others] = np.linalg.solve(inner, covariance[others, model])
        return weights


def _weights(distances: np.ndarray) -> np.ndarray:
    """Return weights that fall with the distance from the nearest, and sum to 1."""
    weights = np.exp(-(distances - distances.min()) / _NARROW)
    return weights / weights.sum()
