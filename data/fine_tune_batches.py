"""Loaders that feed fine-tunings: an epoch is a task of the benchmark."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from data.benchmark_tasks import BenchmarkTask
from data.tensor_loader import epoch_generator
from data.zoo_tasks import to_input


class FineTuneLoader:
    """Batches of one task an epoch; each copy of a network gets a draw of the training images of its own.

    Args:
        tasks: benchmark tasks, one for each epoch.
        batch_size: images a batch of each copy.
        steps: batches an epoch; the images begin anew, in a new order, when all were seen.
        copies: number of draws of the training images, one for each copy of a network.
        seed: seed of the orders in which the draws' images come.
    """

    def __init__(self, tasks: Sequence[BenchmarkTask], batch_size: int, steps: int, copies: int, seed: int) -> None:
        self.tasks, self.batch_size, self.steps, self.copies, self.seed = list(tasks), batch_size, steps, copies, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the task, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Any]]:
        task = self.tasks[self.epoch]
        draws = [task.draw(copy) for copy in range(self.copies)]
        images = torch.stack([to_input(torch.from_numpy(draw.images)) for draw in draws])  # (copies, n, 1, 12, 12)
        labels = torch.from_numpy(draws[0].labels)  # alike in all draws: class by class
        generator = epoch_generator(self.seed, self.epoch)
        needed = self.steps * self.batch_size
        orders = [self._order(len(labels), needed, generator) for _ in range(self.copies)]
        rows = torch.stack(orders).view(self.copies, self.steps, self.batch_size)
        copies = torch.arange(self.copies)[:, None]
        for step in range(self.steps):
            chosen = rows[:, step]  # (copies, B)
            yield {"images": images[copies, chosen], "labels": labels[chosen], "classes": len(task.classes)}

    @staticmethod
    def _order(count: int, needed: int, generator: torch.Generator) -> torch.Tensor:
        passes = [torch.randperm(count, generator=generator) for _ in range(-(-needed // count))]
        return torch.cat(passes)[:needed]


class TestImagesLoader:
    """One batch: the test images of the task that was trained on last.

    Args:
        train_loader: loader that knows the task.
    """

    __test__ = False  # no test class, whatever its name

    def __init__(self, train_loader: FineTuneLoader) -> None:
        self._train_loader = train_loader

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        task, copies = self._train_loader.tasks[self._train_loader.epoch], self._train_loader.copies
        images, labels = to_input(torch.from_numpy(task.test.images)), torch.from_numpy(task.test.labels)
        yield {
            "images": images.expand(copies, *images.shape),
            "labels": labels.expand(copies, len(labels)),
            "classes": len(task.classes),
            "task": self._train_loader.epoch,
        }
