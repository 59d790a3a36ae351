"""What each network of the zoo is trained on: the plan, and loaders that feed all networks at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from data.data_error import DataError
from data.zoo_images import VIEWS, ImageDomain, apply_view

IGNORED_LABEL = -100  # torch's own ignore_index: fills up the shorter test sets
_LABEL_NOISES = (0.0, 0.0, 0.0, 0.1, 0.2)
_FEWEST_CLASSES = 6


@dataclass(frozen=True)
class SourceTask:
    """One network to train.

    Attributes:
        name: name of the network, `<domain>-<view>-<family>`.
        family: architecture of the network, a key of `model.zoo_families.FAMILIES`.
        domain: name of the network's image domain.
        view: one of `VIEWS`, the form in which images are shown to the network.
        classes: the domain's classes that the network tells apart; output i stands for classes[i].
        epochs: length of the network's training.
        label_noise: fraction of training labels that are replaced by another class.
        seed: seed of the network's data order and label noise.
        init_seed: seed of the initial weights, shared by several networks of the family.
        undertrained: whether training is stopped far too early, on purpose.
    """

    name: str
    family: str
    domain: str
    view: str
    classes: tuple[int, ...]
    epochs: int
    label_noise: float
    seed: int
    init_seed: int
    undertrained: bool


def plan_tasks(
    domains: dict[str, ImageDomain], families: Sequence[str], epochs: int, initialisations: int, seed: int
) -> list[SourceTask]:
    """Plan one network for each domain and view; families take turns, so each meets every domain and view alike.

    Args:
        domains: image domains by name.
        families: all families of the zoo; network (d, v) gets number (d + v) modulo their count.
        epochs: the longest training; a normal network gets half of it to all of it, an undertrained one 1 to 3.
        initialisations: number of initial states that a family's networks share.
        seed: seed of the whole plan; each network's part of it depends on nothing but this seed and the network's
            place.

    Returns:
        Tasks, those of one family next to each other. One in six is undertrained, each in another view.
    """
    tasks = []
    for domain_number, domain in enumerate(domains.values()):
        for view_number, view in enumerate(VIEWS):
            place = domain_number * len(VIEWS) + view_number
            rng = np.random.default_rng([seed, place])
            family = families[(domain_number + view_number) % len(families)]
            undertrained = view_number == domain_number % len(VIEWS)
            count = int(rng.integers(min(_FEWEST_CLASSES, len(domain.source_classes)), len(domain.source_classes) + 1))
            tasks.append(
                SourceTask(
                    name=f"{domain.name}-{view}-{family}",
                    family=family,
                    domain=domain.name,
                    view=view,
                    classes=tuple(sorted(rng.permutation(domain.source_classes)[:count].tolist())),
                    epochs=min(epochs, int(rng.integers(1, 4)))
                    if undertrained
                    else int(rng.integers((epochs + 1) // 2, epochs + 1)),
                    label_noise=_LABEL_NOISES[rng.integers(len(_LABEL_NOISES))],
                    seed=seed * 1000 + place,
                    init_seed=int(rng.integers(initialisations)),
                    undertrained=undertrained,
                )
            )
    tasks.sort(key=lambda task: families.index(task.family))
    for family in families:  # one network of each trains to the end, so that a run of any family has all epochs
        longest = next(n for n, task in enumerate(tasks) if task.family == family and not task.undertrained)
        tasks[longest] = replace(tasks[longest], epochs=epochs)
    return tasks


class TaskImages:
    """All images of all networks, one after the other; a sample is a batch of one image of one network.

    Args:
        sets: images (N, 12, 12) uint8 and labels (N,) of each network.
    """

    def __init__(self, sets: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._sets = sets
        self._ends = np.cumsum([len(labels) for _, labels in sets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        network = int(np.searchsorted(self._ends, index % len(self), side="right"))
        row = index % len(self) - int(self._ends[network])  # counted from the end of the network's own
        images, labels = self._sets[network]
        return make_batch([network], images[row][None, None], labels[row][None, None])


class TaskLoader:
    """Batches that hold, for each network still in training, its own images and labels.

    All networks pass through `images_per_epoch` images an epoch, drawn without replacement until a network's own set
    is used up, then from the start. A network whose epochs are over is no longer in the batches.

    Args:
        tasks: plans of the networks to train.
        domains: image domains by name.
        batch_size: images of each network in a batch.
        images_per_epoch: images of each network in an epoch.
    """

    batch_size = None  # as of a DataLoader whose samples are batches already:
    collate_fn = staticmethod(lambda batch: batch)  # nothing to put together

    def __init__(
        self,
        tasks: Sequence[SourceTask],
        domains: dict[str, ImageDomain],
        batch_size: int,
        images_per_epoch: int,
    ) -> None:
        if batch_size > images_per_epoch:
            raise DataError(f"batch_size {batch_size} is more than images_per_epoch {images_per_epoch}; lower it.")
        self.tasks, self.images_per_batch, self.images_per_epoch = list(tasks), batch_size, images_per_epoch
        self.epoch = 0
        self._sets = [_training_set(task, domains[task.domain]) for task in self.tasks]

        self.dataset = TaskImages(self._sets)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, that the next pass gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.images_per_epoch // self.images_per_batch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        networks = [number for number, task in enumerate(self.tasks) if task.epochs > self.epoch]
        orders = [self._order(number) for number in networks]
        self.epoch += 1
        for step in range(len(self)):
            rows = [order[self._columns(step)] for order in orders]
            images = torch.stack([self._sets[number][0][row] for number, row in zip(networks, rows, strict=True)])
            labels = torch.stack([self._sets[number][1][row] for number, row in zip(networks, rows, strict=True)])
            yield make_batch(networks, images, labels)

    def _columns(self, step: int) -> slice:
        return slice(step * self.images_per_batch, (step + 1) * self.images_per_batch)

    def _order(self, number: int) -> torch.Tensor:
        """Return the rows (images_per_epoch,) that a network sees this epoch: part of one endless shuffled stream."""
        count = len(self._sets[number][1])
        start = self.epoch * self.images_per_epoch
        passes = range(start // count, (start + self.images_per_epoch - 1) // count + 1)
        shuffled = [np.random.default_rng([self.tasks[number].seed, 1, turn]).permutation(count) for turn in passes]
        offset = start - passes[0] * count
        return torch.from_numpy(np.concatenate(shuffled)[offset : offset + self.images_per_epoch])


class HeldOutLoader:
    """One batch with the held-out source images of every network.

    Args:
        tasks: plans of the networks to train.
        domains: image domains by name.
    """

    batch_size = None  # as of a DataLoader whose samples are batches already:
    collate_fn = staticmethod(lambda batch: batch)  # nothing to put together

    def __init__(self, tasks: Sequence[SourceTask], domains: dict[str, ImageDomain]) -> None:
        sets = [held_out_set(task.view, domains[task.domain], task.classes) for task in tasks]
        self.dataset = TaskImages(sets)
        longest = max(len(labels) for _, labels in sets)
        images = torch.zeros(len(sets), longest, 12, 12, dtype=torch.uint8)
        labels = torch.full((len(sets), longest), IGNORED_LABEL)
        for number, (own_images, own_labels) in enumerate(sets):
            images[number, : len(own_labels)] = own_images
            labels[number, : len(own_labels)] = own_labels
        self._batch = make_batch(range(len(sets)), images, labels)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield self._batch


def make_batch(networks: Sequence[int], images: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """Put a batch together.

    Args:
        networks: indices of the n networks.
        images: (n, B, 12, 12) uint8 images of each network.
        labels: (n, B) int64 class of each image.

    Returns:
        `networks` (tuple of int), `images` (n, B, 1, 12, 12) float32 from -1 to 1, `labels`, `batch_size` (images).
    """
    return {
        "networks": tuple(networks),
        "images": to_input(images),
        "labels": labels,
        "batch_size": labels.numel(),
    }


def to_input(images: torch.Tensor) -> torch.Tensor:
    """Turn uint8 images (..., 12, 12) into what networks read: float32 (..., 1, 12, 12) from -1 (black) to 1."""
    return (images.float() / 127.5 - 1.0).unsqueeze(-3)


def held_out_set(view: str, domain: ImageDomain, classes: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images (n, 12, 12) uint8 and labels (n,) int64 that source accuracy is measured on."""
    images, labels = domain.select("source_test", classes)
    return torch.from_numpy(apply_view(images, view).copy()), torch.from_numpy(labels)


def _training_set(task: SourceTask, domain: ImageDomain) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = domain.select("source_train", task.classes)
    rng = np.random.default_rng([task.seed, 0])
    wrong = rng.random(len(labels)) < task.label_noise
    shift = rng.integers(1, len(task.classes), size=len(labels))
    noisy = np.where(wrong, (labels + shift) % len(task.classes), labels)
    return torch.from_numpy(apply_view(images, task.view).copy()), torch.from_numpy(noisy)
