"""All that is known of a benchmark: tasks, models, measured accuracies, descriptions; and who may see what of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from constants import PERFORMANCE_PATH, ZOO_DIR, command
from data.benchmark_results import load_results
from data.benchmark_tasks import BenchmarkTask, LabelledImages, plan_benchmark
from data.data_error import DataError
from data.image_encoder import ImageEncoder
from data.model_zoo import load_zoo
from data.zoo_descriptions import load_descriptions, probe_sets
from data.zoo_images import load_domains

SPLITS = {
    "A": "unseen tasks",
    "B": "tasks of an unseen domain",
    "C": "unseen models",
    "D": "unseen tasks and models",
    "E": "an unseen family, on unseen tasks",
}
FOLDS = {"A": 1, "B": 4, "C": 4, "D": 4, "E": 5}
WHOLE = ("all", "foreign")
"""Not of the protocol: rankers for use, trained on everything."""
_FOLD_SEED = 3
_VALIDATION_PARTS = 5


@dataclass(frozen=True)
class EncodedImages:
    """A labelled set of images as the fixed encoder sees it.

    Attributes:
        features: (n, D) float32 features of the images.
        labels: (n,) int64 class of each image, from 0 to C - 1.
    """

    features: torch.Tensor
    labels: torch.Tensor

    @property
    def mean(self) -> np.ndarray:
        """Mean of each feature, (D,) float64."""
        return self.features.double().mean(0).numpy()

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation of each feature, (D,) float64."""
        return self.features.double().std(0, correction=0).numpy()


def encode(images: LabelledImages, encoder: ImageEncoder) -> EncodedImages:
    """Encode a labelled set of images.

    Raises:
        DataError: the encoder gives something else than a row of finite numbers for each image.
    """
    features = encoder(images.images)
    if features.ndim != 2 or len(features) != len(images) or not torch.isfinite(features).all():
        raise DataError(
            f"the encoder {type(encoder).__name__} gives {tuple(features.shape)} for {len(images)} images; needed is "
            "one row of finite numbers for each image."
        )
    return EncodedImages(features.float(), torch.from_numpy(images.labels))


@dataclass(frozen=True)
class RankingWorld:
    """A benchmark with all that is known of it.

    Attributes:
        models: names of the N models.
        families: architecture name of each of the N models.
        parameters: (N,) number of parameters of each model.
        source_accuracy: (N,) accuracy of each model on held-out source images, from 0 to 1.
        tasks: the T tasks of the benchmark.
        truth: (T, N) measured test accuracy, mean over seeds, from 0 to 1.
        seeds: (T, N, S) measured test accuracy of each fine-tuning, from 0 to 1.
        tolerance: (T,) differences of accuracy that are no more than chance.
        encoded: the training images of each task.
        probes: K encoded probe sets.
        probe_domains: name of the domain of each probe set.
        probe_scores: (K, N) scores by name: how well each model tells the classes of each probe set apart.
        task_scores: (T, N) scores by name: how well each model tells the classes of each task apart; known only to who
            runs each model on the task.
    """

    models: tuple[str, ...]
    families: tuple[str, ...]
    parameters: np.ndarray
    source_accuracy: np.ndarray
    tasks: tuple[BenchmarkTask, ...]
    truth: np.ndarray = field(repr=False)
    seeds: np.ndarray = field(repr=False)
    tolerance: np.ndarray = field(repr=False)
    encoded: tuple[EncodedImages, ...] = field(repr=False)
    probes: tuple[EncodedImages, ...] = field(repr=False)
    probe_domains: tuple[str, ...] = field(repr=False)
    probe_scores: dict[str, np.ndarray] = field(repr=False)
    task_scores: dict[str, np.ndarray] = field(repr=False)


def load_world(encoder: ImageEncoder, zoo_dir: Path = ZOO_DIR, performance: Path = PERFORMANCE_PATH) -> RankingWorld:
    """Read a zoo, its images, descriptions and measured accuracies, and put them together.

    Args:
        encoder: encoder that makes the dataset tokens.
        zoo_dir: folder of the zoo.
        performance: table of measured accuracies.

    Raises:
        DataError: a file is missing or damaged, or they don't fit each other.
    """
    zoo, domains, results = load_zoo(zoo_dir), load_domains(zoo_dir / "images.npz"), load_results(performance)
    names = tuple(entry.name for entry in zoo)
    descriptions = load_descriptions(zoo_dir / "descriptions.npz", names)
    if results.models != names or results.about.get("zoo_digest") != zoo.digest:
        raise DataError(
            f"{performance} was measured with other networks than those of the zoo in {zoo_dir}. Measure it again: "
            f"`{command('train')} GroundTruthTrainer publish=on` (twelve minutes)."
        )
    if descriptions.zoo_digest != zoo.digest:
        raise DataError(
            f"{zoo_dir / 'descriptions.npz'} describes other networks than those of the zoo. Compute it again: "
            "`python -m evaluation.describe_zoo` (two minutes)."
        )
    planned = {task.name: task for task in plan_benchmark(domains)}
    if unknown := [task for task in results.tasks if task not in planned or task not in descriptions.tasks]:
        raise DataError(f"{performance} has tasks that the benchmark does not have: {unknown[:3]}.")
    rows = [descriptions.tasks.index(task) for task in results.tasks]
    tasks = tuple(planned[task] for task in results.tasks)
    probes = probe_sets(domains)
    return RankingWorld(
        models=names,
        families=tuple(entry.family for entry in zoo),
        parameters=np.array([entry.parameters for entry in zoo], float),
        source_accuracy=np.array([entry.source_accuracy[-1] for entry in zoo]),
        tasks=tasks,
        truth=results.mean,
        seeds=results.accuracy,
        tolerance=results.tolerance,
        encoded=tuple(encode(task.train, encoder) for task in tasks),
        probes=tuple(encode(probe.images, encoder) for probe in probes),
        probe_domains=tuple(probe.domain for probe in probes),
        probe_scores=descriptions.probe_scores,
        task_scores={name: scores[rows] for name, scores in descriptions.task_scores.items()},
    )


@dataclass(frozen=True)
class Fold:
    """Who may see what: everything that is fitted sees training tasks and training models, and nothing else.

    Attributes:
        train_tasks: indices of the training tasks, whose accuracies are known.
        val_tasks: indices of those training tasks that no gradient comes from and early stopping looks at.
        test_tasks: indices of the test tasks, which are ranked and used for nothing else.
        train_models: indices of the training models, whose accuracies on the training tasks are known.
        test_models: indices of the models that are ranked; the training models, or others.
        unseen: the new thing about the test: `task`, `domain`, `model` or `family` (of the model). A training list
            hides the same from the evidence that its inputs are computed from.
        probes: indices of probe sets that may be used.
        hide_task: whether a list's own task is hidden from what its inputs are computed from. Only where test tasks are
            training tasks (split C) it is not: there the training models' accuracies on it are known.
    """

    train_tasks: tuple[int, ...]
    val_tasks: tuple[int, ...]
    test_tasks: tuple[int, ...]
    train_models: tuple[int, ...]
    test_models: tuple[int, ...]
    unseen: str
    probes: tuple[int, ...]
    hide_task: bool = True

    @property
    def cold(self) -> bool:
        """Whether the models that are ranked were never measured on any task."""
        return self.unseen in ("model", "family")


def make_fold(world: RankingWorld, split: str, number: int, validation_part: int = 2) -> Fold:
    """Make a fold of the protocol.

    Args:
        world: the benchmark.
        split: name of the split, a key of `SPLITS`; or `all` or `foreign`: no test, every task and model is for
            training, to rank the same models for new datasets, or the models of another zoo.
        number: number of the fold, from 0 to `FOLDS[split]` - 1; 0 of `all` and `foreign`.
        validation_part: number of the fifth of the training tasks that is for validation, 0 to 4.

    Raises:
        DataError: an unknown split or fold.
    """
    folds = FOLDS | dict.fromkeys(WHOLE, 1)
    if not (split in folds and 0 <= number < folds[split]):
        allowed = ", ".join(f"{name} (0 to {count - 1})" for name, count in folds.items())
        raise DataError(f"there is no fold {number} of split {split!r}; allowed: {allowed}.")
    train = [index for index, task in enumerate(world.tasks) if task.split == "train" or split in WHOLE]
    test = [index for index, task in enumerate(world.tasks) if task.split == "test" and split not in WHOLE]
    models = list(range(len(world.models)))
    held, probes, unseen = models, list(range(len(world.probes))), "task"
    draw = np.random.default_rng(_FOLD_SEED)
    if split == "B":
        domains = draw.permutation(list(dict.fromkeys(task.domain for task in world.tasks)))[number :: FOLDS["B"]]
        train = [index for index in train if world.tasks[index].domain not in domains]
        test = [index for index in test if world.tasks[index].domain in domains]
        probes = [index for index in probes if world.probe_domains[index] not in domains]
        unseen = "domain"
    elif split in ("C", "D"):
        members = [[m for m in models if world.families[m] == family] for family in dict.fromkeys(world.families)]
        held = [m for own in members for m in draw.permutation(own).tolist()[number :: FOLDS[split]]]
        test, unseen = (train if split == "C" else test), "model"
    elif split == "foreign":
        unseen = "family"
    elif split == "E":
        family = list(dict.fromkeys(world.families))[number]
        held, unseen = [m for m in models if world.families[m] == family], "family"
    return Fold(
        train_tasks=tuple(train),
        val_tasks=tuple(train[validation_part::_VALIDATION_PARTS]),
        test_tasks=tuple(test),
        train_models=tuple(models) if held is models else tuple(m for m in models if m not in held),
        test_models=tuple(sorted(held)),
        unseen=unseen,
        probes=tuple(probes),
        hide_task=split != "C",
    )


def by_row(values: np.ndarray, known: Sequence[int] | None = None) -> np.ndarray:
    """Standardise each row of (..., N); a constant row becomes zeros.

    Args:
        values: (..., N) rows to standardise.
        known: columns whose mean and deviation are taken, such as the training models; None for all.
    """
    reference = values if known is None else values[..., list(known)]
    spread = reference.std(-1, keepdims=True)
    return (values - reference.mean(-1, keepdims=True)) / np.where(spread > 1e-12, spread, 1.0)


def other_tasks(world: RankingWorld, fold: Fold, task: int) -> list[int]:
    """List the training tasks that a list of this task may learn from: not itself, nor its domain where that is new."""
    hidden = world.tasks[task].domain if fold.unseen == "domain" else None
    return [
        index
        for index in fold.train_tasks
        if not (fold.hide_task and index == task) and world.tasks[index].domain != hidden
    ]


def visible_probes(world: RankingWorld, fold: Fold, domain: str | None) -> Sequence[int]:
    """List the probe sets that a list of a domain may use."""
    if fold.unseen != "domain":
        return fold.probes
    return [index for index in fold.probes if world.probe_domains[index] != domain]
