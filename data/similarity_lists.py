"""Lists to be ranked, as batches: dataset tokens, model tokens, what is known of each pair, and the true ranks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from data.data_error import DataError
from data.image_encoder import GradientEncoder
from data.ranking_evidence import HYBRID_SCORES, Evidence
from data.ranking_world import EncodedImages, Fold, RankingWorld, by_row, load_world, make_fold
from data.sharding import own_part

FEATURES_VERSION = 1
"""Of what rankers read. Raise it where tokens or pair features change, and make the shipped rankers anew."""
_FEWEST_CLASSES, _FEWEST_SHOTS = 2, 3  # of a sub-sampled training task
_LEAST_MODELS = 0.5  # share of the models that a training list keeps


@dataclass(frozen=True)
class TokenSizes:
    """How many principal components tokens have.

    Attributes:
        dataset: number of components of a class's centre, and of its spread.
        model: number of components of a model's probe scores.
        code: number of components of a model's autoencoder code, where there are codes.
    """

    dataset: int = 16
    model: int = 16
    code: int = 8


class ListMaker:
    """Turns datasets into what a ranker reads. Everything is fitted on the fold's training tasks, models and probes.

    Args:
        world: the benchmark.
        fold: tasks, models and probe sets that may be seen.
        hybrid: whether to give also the scores of `HYBRID_SCORES`, computed on the dataset itself.
        sizes: number of principal components of each kind of token.
        codes: (N, W) autoencoder codes of the models, or None.
        shuffle_truth: whether to give each training task the accuracies of the models in a random order: a ranker must
            then learn nothing. For tests of the protocol.
        seed: seed of the random order of `shuffle_truth`.
    """

    def __init__(
        self,
        world: RankingWorld,
        fold: Fold,
        hybrid: bool = False,
        sizes: TokenSizes = TokenSizes(),
        codes: torch.Tensor | None = None,
        shuffle_truth: bool = False,
        seed: int = 0,
    ) -> None:
        if shuffle_truth:
            world = _with_shuffled_truth(world, fold, seed)
        self.world, self.fold, self.hybrid, self.sizes = world, fold, hybrid, sizes
        self.evidence = Evidence(world, fold)
        known = [world.probes[index].features for index in fold.probes]
        known += [world.encoded[index].features for index in fold.train_tasks]
        self._image_mean, self._image_axes = _principal_axes(torch.cat(known), sizes.dataset)
        self.model_tokens = self._make_model_tokens(codes)  # (N, Dm) float32

    @property
    def pair_names(self) -> list[str]:
        """Names of the pair features."""
        return self.evidence.names + ([f"measured {name}" for name in HYBRID_SCORES] if self.hybrid else [])

    def dataset_tokens(self, images: EncodedImages) -> torch.Tensor:
        """Describe a dataset by a token for each class: its centre, its spread, and how many images it has.

        Returns:
            (C, 2 Q + 1) float32.
        """
        tokens = []
        for label in images.labels.unique().tolist():
            own = (images.features[images.labels == label] - self._image_mean) @ self._image_axes
            spread = own.std(0, correction=0).log1p()
            tokens.append(torch.cat([own.mean(0), spread, torch.tensor([len(own) / 10]).log()]))
        return torch.stack(tokens)

    def pair_features(
        self, images: EncodedImages, task: int | None, domain: str | None, scores: dict[str, np.ndarray] | None
    ) -> torch.Tensor:
        """Gather what is known of the dataset with each model.

        Args:
            images: encoded images of the dataset.
            task: index of the dataset in the benchmark, whose accuracies are hidden (not in split C); None for a new
                dataset.
            domain: name of the dataset's domain, None where unknown.
            scores: (N,) score of each model on the dataset, by name; hybrid rankers need them.

        Returns:
            (N, P) float32, each column standardised over the training models.
        """
        columns = self.evidence.pair_features(images, task, domain)
        if self.hybrid:
            known = self.fold.train_models
            measured = np.stack([by_row(scores[name], known) for name in HYBRID_SCORES], axis=1)
            columns = np.concatenate([columns, measured], axis=1)
        return torch.from_numpy(columns).float()

    def _make_model_tokens(self, codes: torch.Tensor | None) -> torch.Tensor:
        world, known = self.world, list(self.fold.train_models)
        profile = [by_row(scores[list(self.fold.probes)], known).T for scores in world.probe_scores.values()]
        parts = [_components(torch.from_numpy(np.concatenate(profile, axis=1)).float(), known, self.sizes.model)]
        accuracy = torch.from_numpy(world.source_accuracy).float()[:, None]
        parts.append((accuracy - accuracy[known].mean()) / accuracy[known].std())
        if self.fold.unseen != "family":  # a family that training never met has no column
            families = list(dict.fromkeys(world.families))
            index = torch.tensor([families.index(family) for family in world.families])
            parts.append(torch.nn.functional.one_hot(index, len(families)).float())
        if codes is not None:
            parts.append(_components(codes.float(), known, self.sizes.code))
        return torch.cat(parts, dim=1)


class SimilarityLists:
    """Batches of lists; a sample of `dataset` is one list.

    Args:
        maker: maker of tokens and pair features.
        tasks: indices of the benchmark's tasks.
        models: indices of the models that are ranked.
        splits: name of the part of the fold that each task is in.
        batch_size: lists a batch.
        variants: number of times that each task is sub-sampled (classes, and images of each class); 0 takes the tasks
            as they are. Above 0 an epoch draws `per_epoch` of a task's variants, and each list keeps a random half to
            all of the models.
        per_epoch: lists of each task an epoch, where variants is above 0.
        seed: seed of all draws.
    """

    def __init__(
        self,
        maker: ListMaker,
        tasks: Sequence[int],
        models: Sequence[int],
        splits: Sequence[str],
        batch_size: int = 16,
        variants: int = 0,
        per_epoch: int = 4,
        seed: int = 0,
    ) -> None:
        if not tasks:
            raise DataError("there is no task to make lists of.")
        self.maker, self.batch_size, self.variants, self.seed = maker, batch_size, variants, seed
        self.models, self.per_epoch, self.epoch = list(models), per_epoch, 0
        self._share, self.stand_ins = (0, 1), set()
        draw = np.random.default_rng([seed, 1])
        self._lists: list[list[dict[str, Any]]] = []  # of each task: the whole one first, then its variants
        for task, split in zip(tasks, splits, strict=True):
            whole = maker.world.encoded[task]
            forms = [whole] + [_sub_sample(whole, draw) for _ in range(variants)]
            self._lists.append([self._make_list(task, split, form) for form in forms])

    @property
    def dataset(self) -> list[dict[str, Any]]:
        """The whole tasks, a list each."""
        return [forms[0] for forms in self._lists]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose lists the next pass gives."""
        self.epoch = epoch

    def shard_loader(self, rank: int, size: int) -> None:
        """Give one process's part of each batch from now on; of a batch without any, its first list.

        Args:
            rank: number of the process, from 0.
            size: number of processes that share each batch.
        """
        self._share, self.stand_ins = (rank, size), set()

    def __len__(self) -> int:
        count = len(self._lists) * (self.per_epoch if self.variants else 1)
        return -(-count // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        draw = np.random.default_rng([self.seed, 2, self.epoch])
        self.epoch += 1
        chosen = self.dataset
        if self.variants:
            chosen = [
                self._thin_out(forms[draw.integers(len(forms))], draw)
                for forms in self._lists
                for _ in range(self.per_epoch)
            ]
            chosen = [chosen[index] for index in draw.permutation(len(chosen))]
        for start in range(0, len(chosen), self.batch_size):
            whole = chosen[start : start + self.batch_size]
            part = whole[own_part(len(whole), *self._share)]
            if not part:  # see data/sharding.py
                self.stand_ins.add(start // self.batch_size)
            yield self.collate_fn(part or whole[:1])

    @staticmethod
    def collate_fn(lists: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Put lists together; those with fewer classes are padded, and masks say so."""
        longest = max(len(item["dataset_tokens"]) for item in lists)
        tokens = torch.zeros(len(lists), longest, lists[0]["dataset_tokens"].shape[1])
        mask = torch.zeros(len(lists), longest, dtype=torch.bool)
        for row, item in enumerate(lists):
            tokens[row, : len(item["dataset_tokens"])] = item["dataset_tokens"]
            mask[row, : len(item["dataset_tokens"])] = True
        stacked = ("model_tokens", "pair_features", "model_mask", "true_ranks", "truth", "accuracy", "model_indices")
        return {
            "dataset_tokens": tokens,
            "dataset_mask": mask,
            **{name: torch.stack([item[name] for item in lists]) for name in stacked},
            "model_names": lists[0]["model_names"],
            "dataset_names": [item["dataset_name"] for item in lists],
            "dataset_splits": [item["dataset_split"] for item in lists],
            "batch_size": len(lists),
        }

    def _make_list(self, task: int, split: str, images: EncodedImages) -> dict[str, Any]:
        world, models = self.maker.world, self.models
        scores = {name: values[task] for name, values in world.task_scores.items()}
        pairs = self.maker.pair_features(images, task, world.tasks[task].domain, scores)
        accuracy = world.truth[task, models]
        return {
            "dataset_tokens": self.maker.dataset_tokens(images),  # (M, D)
            "model_tokens": self.maker.model_tokens[models],  # (N, Dm)
            "pair_features": pairs[models],  # (N, P)
            "model_mask": torch.ones(len(models), dtype=torch.bool),
            "true_ranks": torch.from_numpy(_ranks(accuracy)).float(),  # (N,) 1 is best; equal ones share a rank
            "truth": torch.from_numpy(by_row(accuracy)).float(),  # (N,) standardised
            "accuracy": torch.from_numpy(accuracy).float(),  # (N,)
            "model_indices": torch.tensor(models),
            "model_names": [world.models[model] for model in models],
            "dataset_name": world.tasks[task].name,
            "dataset_split": split,
        }

    def _thin_out(self, item: dict[str, Any], draw: np.random.Generator) -> dict[str, Any]:
        kept = draw.random(len(self.models)) < draw.uniform(_LEAST_MODELS, 1.0)
        kept[draw.permutation(len(kept))[:2]] = True  # a list of fewer than two can't be ranked
        return item | {"model_mask": torch.from_numpy(kept)}


def build_combined_similarity_loader(
    splits: Sequence[str] = ("train",), maker: ListMaker | None = None, **options: Any
) -> SimilarityLists:
    """Build a loader over the lists of some parts of a fold.

    Args:
        splits: names of the parts: `train` (sub-sampled anew each epoch where it is the only one), `val`, `test`.
        maker: maker of tokens and pair features; None takes the shipped zoo with unseen tasks for the test, and the
            default encoder.
        options: further arguments of `SimilarityLists`.

    Returns:
        The loader. Its batches are dicts with `dataset_tokens` (B, M, D), `dataset_mask` (B, M), `model_tokens`
        (B, N, Dm), `pair_features` (B, N, P), `model_mask` (B, N), `true_ranks` (B, N), `truth` (B, N; accuracy
        standardised over the models), `accuracy` (B, N), `model_indices` (B, N), `model_names`, `dataset_names`,
        `dataset_splits`, `batch_size`.

    Raises:
        DataError: an unknown split, or one without tasks.
    """
    if maker is None:
        world = load_world(GradientEncoder())
        maker = ListMaker(world, make_fold(world, "A", 0))
    fold = maker.fold
    held = set(fold.val_tasks)
    parts = {
        "train": [task for task in fold.train_tasks if task not in held],
        "val": list(fold.val_tasks),
        "test": list(fold.test_tasks),
    }
    if unknown := [split for split in splits if split not in parts]:
        raise DataError(f"there is no split {unknown[0]!r}; allowed: {', '.join(parts)}.")
    tasks = [(task, split) for split in splits for task in parts[split]]
    if "test" in splits and len(splits) > 1 and fold.test_models != fold.train_models:
        raise DataError("this fold tests other models than it trains on; ask for its test lists alone.")
    models = fold.test_models if tuple(splits) == ("test",) else fold.train_models
    if tuple(splits) == ("train",):
        options = {"variants": 32} | options
    return SimilarityLists(maker, [task for task, _ in tasks], models, [split for _, split in tasks], **options)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank values, the highest first; equal ones get the mean of their ranks."""
    above = (values[None] > values[:, None]).sum(1)
    equal = (values[None] == values[:, None]).sum(1)
    return above + (equal + 1) / 2


def _sub_sample(images: EncodedImages, draw: np.random.Generator) -> EncodedImages:
    """Draw some of the classes, and some of the images of each."""
    count = int(images.labels.max()) + 1
    kept = draw.permutation(count)[: int(draw.integers(min(_FEWEST_CLASSES, count), count + 1))]
    share, rows = draw.uniform(0.4, 1.0), []
    for label in kept.tolist():
        own = np.flatnonzero(images.labels.numpy() == label)
        rows.append(draw.permutation(own)[: max(min(_FEWEST_SHOTS, len(own)), round(share * len(own)))])
    chosen = np.concatenate(rows)
    return EncodedImages(images.features[chosen], images.labels[chosen])


def _principal_axes(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean (D,) of rows and their first axes (D, count), scaled to unit variance."""
    mean = rows.mean(0)
    _, singular, axes = torch.linalg.svd(rows - mean, full_matrices=False)
    count = min(count, int((singular > 1e-5 * singular[0]).sum()))
    return mean, axes[:count].T * (len(rows) - 1) ** 0.5 / singular[:count]


def _components(rows: torch.Tensor, known: Sequence[int], count: int) -> torch.Tensor:
    """Write all rows in the principal axes of the known ones: (N, at most count) of unit variance."""
    mean, axes = _principal_axes(rows[list(known)], count)
    return (rows - mean) @ axes


def _with_shuffled_truth(world: RankingWorld, fold: Fold, seed: int) -> RankingWorld:
    from dataclasses import replace

    draw = np.random.default_rng([seed, 9])
    truth = world.truth.copy()
    models = np.array(fold.train_models)
    for task in fold.train_tasks:
        truth[task, models] = draw.permutation(truth[task, models])
    return replace(world, truth=truth)
