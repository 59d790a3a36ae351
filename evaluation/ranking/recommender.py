"""Ranks the models of a zoo for a dataset that nothing was ever measured on."""

import contextlib
import copy
import math
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from data.benchmark_tasks import MOST_CLASSES, SHOTS, BenchmarkTask, LabelledImages
from data.data_error import DataError
from data.model_zoo import load_zoo
from data.ranking_evidence import HYBRID_SCORES, Evidence
from data.ranking_world import EncodedImages, Fold, RankingWorld, by_row, encode
from data.similarity_lists import ListMaker
from data.user_zoo import UserModel
from data.zoo_descriptions import probe_sets
from data.zoo_images import load_domains
from evaluation.ranking.describe_zoo import score_responses, score_sets, zoo_networks
from evaluation.ranking.expected_accuracy import AccuracyModel, dataset_facts
from evaluation.ranking.responses import Responses, respond
from evaluation.ranking.saved_ranker import load_ranker

MOST_IMAGES = 2000
"""Of a dataset that are looked at: more say no more, and scores of all of them would not fit the memory."""
_NEIGHBOURS = 3
_FORWARD_BATCH = 64
_USER_FAMILY = "of your own"


@dataclass(frozen=True)
class Neighbour:
    """A dataset of the benchmark near the one that is asked about.

    Attributes:
        name: name of the benchmark task.
        distance: distance between means and spreads of image features, in standard deviations.
        accuracy: accuracy of the recommended model on this dataset, from 0 to 1, measured by fine-tuning; None where it
            was never measured.
    """

    name: str
    distance: float
    accuracy: float | None


@dataclass(frozen=True)
class Recommendation:
    """A model with its place.

    Attributes:
        name: name of the model.
        rank: place of the model in the ranking; 1 is best.
        score: score that the ranker gave, in standard deviations from the mean model of the ranker's zoo.
        expected_accuracy: expected accuracy after fine-tuning as in the benchmark, from 0 to 1.
        low: lower end of the expected accuracy's 90 % interval.
        high: upper end of the expected accuracy's 90 % interval.
        family: architecture of the model.
        domain: name of the image domain that the model was trained on; None for a user's model.
        view: one of `VIEWS`, the form in which images were shown to the model in training; None for a user's model.
        nearest: known datasets nearest to the one asked about.
    """

    name: str
    rank: int
    score: float
    expected_accuracy: float
    low: float
    high: float
    family: str
    domain: str | None
    view: str | None
    nearest: tuple[Neighbour, ...]


class Recommender:
    """A trained ranker that answers questions.

    Args:
        folder: folder of the run that trained the ranker.
        user_models: models to rank, which were never measured, instead of the zoo that the ranker was trained on. The
            ranker must have been trained for models of unseen families.

    Raises:
        DataError: a file of the ranker is damaged or fits no more, the ranker is for something else, or a user's model
            can't be run.
    """

    def __init__(self, folder: Path, user_models: Sequence[UserModel] = ()) -> None:
        self._ranker = load_ranker(folder)
        self.file, self.world, self.fold = self._ranker.file, self._ranker.world, self._ranker.fold
        self._user_models = list(user_models)
        self._zoo = load_zoo(self.file.zoo)
        if self._user_models:
            self._check_foreign()
            self._maker = ListMaker(self._extended_world(), self.fold, self.file.hybrid)
        else:
            if self.fold.cold:
                raise DataError(
                    f"the ranker in {folder} was trained with split={self.file.split}, for models that were never "
                    "measured (`--zoo`); for the zoo itself train one with split=all."
                )
            self._maker = self._ranker.maker

    @property
    def tasks(self) -> dict[str, BenchmarkTask]:
        """The benchmark's tasks by name."""
        return {task.name: task for task in self.world.tasks}

    def measured(self, task: str) -> dict[str, float]:
        """Return what fine-tuning really reached on a task of the benchmark, which `recommend` never reads.

        Args:
            task: name of the task.

        Returns:
            Accuracy of each of the zoo's models by its name, from 0 to 1, the mean over seeds.
        """
        row = self.world.truth[[known.name for known in self.world.tasks].index(task)]
        return dict(zip(self.world.models, row.tolist(), strict=False))  # a user's models come after the zoo's

    def recommend(self, images: LabelledImages, task: str | None = None) -> list[Recommendation]:
        """Rank the models for a dataset.

        Args:
            images: the dataset, any order of images and classes.
            task: name of the dataset where it is a task of the benchmark: accuracies measured on it stay hidden.

        Returns:
            All models, the best first.

        Raises:
            DataError: the encoder or a model fails on these images.
        """
        images = _thinned(images)
        encoded = encode(images, self._ranker.encoder)
        number = None if task is None else [known.name for known in self.world.tasks].index(task)
        domain = None if number is None else self.world.tasks[number].domain
        scores = self._measure(images) if self.file.hybrid else None
        fold = _without(self.fold, number)
        raw = self._score(_with_fold(self._maker, fold), encoded, number, domain, scores)
        # Standardised over the models that the ranker was trained on: one model alone has a place among them.
        known = raw[: len(self.world.models)]
        standard = (raw - known.mean()) / (known.std() or 1.0)
        asked = np.arange(len(raw))[len(self.world.models) :] if self._user_models else np.arange(len(raw))
        expected, low, high = self._fit_accuracy(fold).predict(dataset_facts(encoded), standard[asked])
        near = self._nearest(encoded, task)
        order = np.argsort(-standard[asked], kind="stable")
        return [
            self._describe(
                int(asked[place]), rank, standard[asked[place]], near, expected[place], low[place], high[place]
            )
            for rank, place in enumerate(order.tolist(), start=1)
        ]

    def was_trained_on(self, task: str) -> bool:
        """Say whether a task of the benchmark, named by its name, is one of those that the ranker learnt from."""
        return any(self.world.tasks[index].name == task for index in self.fold.train_tasks)

    def notes(self, images: LabelledImages, task: str | None = None) -> list[str]:
        """Say where a dataset lies outside of what the ranker learnt from."""
        notes = []
        counts = np.bincount(images.labels)
        least = min(len(known.classes) for known in self.world.tasks)
        if not least <= len(counts) <= MOST_CLASSES:
            notes.append(
                f"the ranker learnt from tasks of {least} to {MOST_CLASSES} classes; for {len(counts)} classes the "
                "accuracies are extrapolated."
            )
        if counts.max() > max(SHOTS):
            notes.append(
                f"expected accuracies are those of fine-tuning on {max(SHOTS)} images of each class, the most that was "
                "ever measured; with all images they may be higher."
            )
        if counts.min() < min(SHOTS):
            notes.append(
                f"a class has {counts.min()} images, fewer than the {min(SHOTS)} of the smallest measured task: the "
                "accuracies are extrapolated."
            )
        if self.file.stale:
            notes.append(f"{self.file.stale}; train it again: {self.file.command}")
        if task is not None and self.was_trained_on(task):
            notes.append(f"the ranker was trained on {task}, so this ranking is no test of it.")
        if self._user_models:
            fewest, most = self.world.parameters.min(), self.world.parameters.max()
            notes.append(
                "none of these models was ever measured; expected accuracies are what networks of the ranker's zoo "
                f"with such scores get ({fewest:.0f} to {most:.0f} parameters)."
            )
        return notes

    # ------------------------------------------------------------------------------------------------------- parts

    def _fit_accuracy(self, fold: Fold) -> AccuracyModel:
        """Fit expected accuracies on the ranker's training tasks, each with its own accuracies hidden."""
        world, tasks, known = self.world, list(fold.train_tasks), list(fold.train_models)
        maker, rows = _with_fold(self._ranker.maker, fold), []
        for task in tasks:
            scores = {name: values[task] for name, values in world.task_scores.items()}
            raw = self._score(maker, world.encoded[task], task, world.tasks[task].domain, scores)
            rows.append(by_row(raw)[known])
        return AccuracyModel(
            facts=np.stack([dataset_facts(world.encoded[task]) for task in tasks]),
            scores=np.stack(rows),
            accuracy=world.truth[np.ix_(tasks, known)],
            domains=tuple(world.tasks[task].domain for task in tasks),
            unseen=tuple(tasks.index(task) for task in fold.val_tasks),
        )

    @torch.no_grad()
    def _score(
        self, maker: ListMaker, images: EncodedImages, task: int | None, domain: str | None,
        scores: dict[str, np.ndarray] | None,
    ) -> np.ndarray:  # fmt: skip
        """Score all of a maker's models, (N,) float64: the mean over the ensemble."""
        tokens = maker.dataset_tokens(images)
        # Training never met a larger class; the ranker must not guess what its count means.
        tokens[:, -1].clamp_(max=math.log(max(SHOTS) / 10))
        pairs = maker.pair_features(images, task, domain, scores)
        scored = self._ranker.network(tokens[None], maker.model_tokens[None], pairs[None], None, None)
        result = scored.mean(0)[0].double().numpy()
        if not np.isfinite(result).all():
            raise DataError(f"the ranker in {self.file.folder} gives scores that are not finite; train another.")
        return result

    def _measure(self, images: LabelledImages) -> dict[str, np.ndarray]:
        """Run every model on the images, for what hybrid rankers read: by name, (N,)."""
        scores = {name: row[0] for name, row in score_sets(zoo_networks(self._zoo), [images], HYBRID_SCORES).items()}
        if self._user_models:
            own = _score_user_models(self._user_models, [images], HYBRID_SCORES)
            scores = {name: np.concatenate([scores[name], own[name][0]]) for name in HYBRID_SCORES}
        return scores

    def _nearest(self, images: EncodedImages, task: str | None) -> list[tuple[str, float]]:
        near = self._ranker.maker.evidence.neighbours(images, _NEIGHBOURS + 1)
        return [(name, distance) for name, distance in near if name != task][:_NEIGHBOURS]

    def _describe(
        self, model: int, rank: int, score: float, near: list[tuple[str, float]], expected: float, low: float,
        high: float,
    ) -> Recommendation:  # fmt: skip
        known = model < len(self.world.models)
        entry = self._zoo.entries[model] if known else None
        names = [task.name for task in self.world.tasks]
        measured = [float(self.world.truth[names.index(name), model]) if known else None for name, _ in near]
        return Recommendation(
            name=entry.name if entry else self._user_models[model - len(self.world.models)].name,
            rank=rank, score=float(score), expected_accuracy=float(expected), low=float(low), high=float(high),
            family=entry.family if entry else _USER_FAMILY,
            domain=entry.domain if entry else None, view=entry.view if entry else None,
            nearest=tuple(Neighbour(name, far, got) for (name, far), got in zip(near, measured, strict=True)),
        )  # fmt: skip

    def _check_foreign(self) -> None:
        if self.fold.unseen != "family":
            raise DataError(
                f"the ranker in {self.file.folder} was trained with split={self.file.split}; models of your own need "
                "one that was trained with split=foreign."
            )
        if self._ranker.codes is not None:
            raise DataError(
                f"the ranker in {self.file.folder} reads autoencoder codes, which models of your own don't have; train "
                f"one without: `{self.file.command}`."
            )

    def _extended_world(self) -> RankingWorld:
        """Add the user's models after those of the zoo; what was never measured of them is NaN."""
        world, own = self.world, self._user_models
        sets = [probe.images for probe in probe_sets(load_domains(self.file.zoo / "images.npz"))]
        scores = _score_user_models(own, sets, list(world.probe_scores))
        usual = float(world.source_accuracy[list(self.fold.train_models)].mean())
        accuracy = [usual if model.source_accuracy is None else model.source_accuracy for model in own]
        unknown = np.full((len(world.tasks), len(own)), np.nan)
        return replace(
            world,
            models=world.models + tuple(model.name for model in own),
            families=world.families + (_USER_FAMILY,) * len(own),
            parameters=np.concatenate([world.parameters, [model.parameters for model in own]]),
            source_accuracy=np.concatenate([world.source_accuracy, accuracy]),
            truth=np.concatenate([world.truth, unknown], axis=1),
            seeds=np.concatenate([world.seeds, np.repeat(unknown[..., None], world.seeds.shape[2], axis=2)], axis=1),
            probe_scores={
                name: np.concatenate([known, scores[name]], axis=1) for name, known in world.probe_scores.items()
            },
            task_scores={name: np.concatenate([known, unknown], axis=1) for name, known in world.task_scores.items()},
        )


def _without(fold: Fold, task: int | None) -> Fold:
    """Take a task out of a fold, as if it had never been measured."""
    if task not in fold.train_tasks:
        return fold
    kept = {name: tuple(t for t in getattr(fold, name) if t != task) for name in ("train_tasks", "val_tasks")}
    return replace(fold, **kept)


def _with_fold(maker: ListMaker, fold: Fold) -> ListMaker:
    """Give a maker other evidence; how it writes tokens must stay as the ranker learnt it."""
    if maker.fold is fold:
        return maker
    other = copy.copy(maker)
    other.fold, other.evidence = fold, Evidence(maker.world, fold)
    return other


def _thinned(images: LabelledImages) -> LabelledImages:
    """Keep at most `MOST_IMAGES`, as many of each class, chosen by their content and not by their place."""
    if len(images) <= MOST_IMAGES:
        return images
    most = max(2, MOST_IMAGES // len(images.class_names))
    digests = np.array([zlib.crc32(image.tobytes()) for image in images.images])
    rows = []
    for label in range(len(images.class_names)):
        own = np.flatnonzero(images.labels == label)
        rows.append(own[np.argsort(digests[own], kind="stable")[:most]])
    kept = np.sort(np.concatenate(rows))
    return LabelledImages(images.images[kept], images.labels[kept], images.class_names)


def _score_user_models(
    models: Sequence[UserModel], sets: Sequence[LabelledImages], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Compute transferability scores of U models on S sets of images: by name, (S, U) float64."""
    rows = []
    for images in sets:
        answers = [_respond(model, images.images) for model in models]
        rows.append(score_responses(answers, torch.from_numpy(images.labels), names))
    return {name: np.stack([row[name] for row in rows]) for name in names}


def _respond(model: UserModel, images: np.ndarray) -> Responses:
    """Run a user's model on images (n, 12, 12) uint8, some at a time: they may be large for it."""
    parts = []
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a model prints is not the program's answer
            for start in range(0, len(images), _FORWARD_BATCH):
                inputs = model.prepare(images[start : start + _FORWARD_BATCH])
                parts.append(respond(model.network, inputs, model.classes))
        features = torch.cat([part.features for part in parts])
        probabilities = torch.cat([part.probabilities for part in parts])
    except Exception as error:  # the model is the user's code, and may raise anything
        shape = (model.channels, *model.size)
        raise DataError(
            f"model {model.name} can't be run on images (n, {', '.join(map(str, shape))}): {type(error).__name__}: "
            f"{error}."
        ) from error
    fits = features.ndim == probabilities.ndim == 2 and len(features) == len(probabilities) == len(images)
    if not fits or features.shape[1] == 0 or probabilities.shape[1] < (model.classes or 1):
        raise DataError(
            f"model {model.name} gives features {tuple(features.shape)} and outputs {tuple(probabilities.shape)} for "
            f"{len(images)} images; needed are a row for each image, and at least {model.classes or 1} outputs."
        )
    if not (torch.isfinite(features).all() and torch.isfinite(probabilities).all()):
        raise DataError(f"model {model.name} gives values that are not finite on the probe images.")
    return Responses(features, probabilities)
