"""The benchmark's target tasks: small labelled image sets that every network of the zoo is fine-tuned on.

A task is a plan, not a file: it names a domain, classes, a view and the rows of `images.npz` that it uses, so the
committed images are all it needs.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data.data_error import DataError
from data.zoo_images import POOLS, VIEWS, ImageDomain, apply_view

TASKS_PER_DOMAIN = 4
SHOTS = (6, 12, 25)
FEWEST_CLASSES, MOST_CLASSES = 3, 6
HELD_OUT_CLASSES = 6  # of a domain, at most: those that test tasks are made of
MOST_TEST_IMAGES = 600
BENCHMARK_SEED = 7


@dataclass(frozen=True)
class LabelledImages:
    """A dataset as the recommender sees it.

    Attributes:
        images: (n, 12, 12) uint8 grey images.
        labels: (n,) int64 class of each image, from 0 to C - 1.
        class_names: names of the C classes.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class BenchmarkTask:
    """A few-shot classification task.

    Attributes:
        name: name of the task, `<domain>-<number>`.
        domain: name of the task's image domain.
        view: one of `VIEWS`, the form in which the images are shown.
        classes: indices into the domain's class names; label i stands for classes[i].
        shots: training images of each class.
        split: part of the benchmark, `train` or `test`; no class of a domain's test tasks is in one of the domain's
            training tasks.
        source: image domain that the images are from.
        train_rows: rows of the domain's images that the dataset has for training: `shots` of each class, drawn from the
            pool target_train.
        test_rows: rows that accuracy is measured on, from the pool target_test.
    """

    name: str
    domain: str
    view: str
    classes: tuple[int, ...]
    shots: int
    split: str
    source: ImageDomain
    train_rows: np.ndarray
    test_rows: np.ndarray

    @cached_property
    def train(self) -> LabelledImages:
        """The dataset's training images: all that a recommender may look at."""
        return self._labelled(self.train_rows)

    def draw(self, seed: int) -> LabelledImages:
        """Draw as many training images anew: what the fine-tuning of a seed gets.

        A few images are a chance choice, and which network is best on them is so in good part (measured: the rankings
        of two draws have a weighted Kendall of about 0.65, those of one draw and two data orders 0.85). Accuracy is
        therefore a mean over draws.

        Args:
            seed: 0 is the dataset itself; where a class has no more images than `shots`, all draws are alike.
        """
        if seed == 0:
            return self.train
        draw = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        pool = self.source.pools == POOLS.index("target_train")
        of_class = [np.flatnonzero((self.source.labels == label) & pool) for label in self.classes]
        return self._labelled(np.concatenate([draw.permutation(rows)[: self.shots] for rows in of_class]))

    @cached_property
    def test(self) -> LabelledImages:
        """The images that accuracy is measured on."""
        return self._labelled(self.test_rows)

    def _labelled(self, rows: np.ndarray) -> LabelledImages:
        new_label = {label: number for number, label in enumerate(self.classes)}
        labels = np.array([new_label[label] for label in self.source.labels[rows].tolist()], np.int64)
        names = tuple(self.source.class_names[label] for label in self.classes)
        return LabelledImages(apply_view(self.source.images[rows], self.view).copy(), labels, names)


def plan_benchmark(domains: dict[str, ImageDomain], seed: int = BENCHMARK_SEED) -> list[BenchmarkTask]:
    """Plan four tasks in each domain: two or three for training, the others for the test, of classes held out for it.

    Args:
        domains: image domains by name.
        seed: seed of the whole plan; each domain's part of it depends on nothing but this seed and the domain's place.

    Returns:
        Tasks, those of a domain next to each other.

    Raises:
        DataError: a domain has too few classes or images.
    """
    tasks = []
    for place, domain in enumerate(domains.values()):
        draw = np.random.default_rng([seed, place])
        classes = dict(zip(("train", "test"), _class_sets(domain, draw), strict=True))
        splits = ("train", "test", "train", "test" if place % 2 else "train")
        for number, split in enumerate(splits):
            # Views take turns, so each has as many tasks; a domain's tasks have four different ones.
            view = VIEWS[(place * TASKS_PER_DOMAIN + number + place // 3) % len(VIEWS)]
            tasks.append(_plan_task(f"{domain.name}-{number + 1}", domain, view, classes[split], split, draw))
    return tasks


def _class_sets(domain: ImageDomain, draw: np.random.Generator) -> tuple[list[int], list[int]]:
    """Split a domain's classes into those of training tasks and those of test tasks, which no network has seen."""
    counts = np.bincount(domain.labels[domain.pools == POOLS.index("target_test")], minlength=len(domain.class_names))
    source = list(domain.source_classes)
    # Glyphs come in many more classes than tasks can use; those with most test images are the ones that are meant.
    others = [label for label in range(len(counts)) if label not in source and counts[label] >= counts.max() / 2]
    source, others = draw.permutation(source).tolist(), draw.permutation(others).tolist()
    # A domain with hardly any unseen class lends some that networks were trained on (on other images of them).
    lent = max(0, FEWEST_CLASSES - len(others))
    held_out = others[:HELD_OUT_CLASSES] + source[:lent]
    known = source[lent:] + others[HELD_OUT_CLASSES:]
    if min(len(held_out), len(known)) < FEWEST_CLASSES:
        raise DataError(
            f"domain {domain.name} has {len(counts)} classes; its training and its test tasks need "
            f"{FEWEST_CLASSES} each that the others don't use."
        )
    return known, held_out


def _plan_task(
    name: str, domain: ImageDomain, view: str, classes: Sequence[int], split: str, draw: np.random.Generator
) -> BenchmarkTask:
    count = int(draw.integers(FEWEST_CLASSES, min(MOST_CLASSES, len(classes)) + 1))
    chosen = tuple(sorted(draw.permutation(list(classes))[:count].tolist()))
    train = [
        np.flatnonzero((domain.labels == label) & (domain.pools == POOLS.index("target_train"))) for label in chosen
    ]
    fewest = min(map(len, train))
    possible = [shots for shots in SHOTS if shots <= fewest]
    if not possible:
        raise DataError(
            f"domain {domain.name} has a class with {fewest} images to fine-tune on; {min(SHOTS)} are needed."
        )
    shots = int(draw.choice(possible))
    test = np.flatnonzero(np.isin(domain.labels, chosen) & (domain.pools == POOLS.index("target_test")))
    return BenchmarkTask(
        name=name,
        domain=domain.name,
        view=view,
        classes=chosen,
        shots=shots,
        split=split,
        source=domain,
        train_rows=np.concatenate([draw.permutation(rows)[:shots] for rows in train]),
        test_rows=np.sort(draw.permutation(test)[:MOST_TEST_IMAGES]),
    )
