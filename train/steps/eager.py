"""The step, operation by operation: what every other form must equal."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from data.loaders import prefetch
from data.tensor_rows import quick
from train.steps.update import Update
from train.steps.weight_average import WeightAverage


@dataclass
class Window:
    """The batches whose gradients make one optimizer step."""

    batches: list[Any]
    steps: int = 1

    def __len__(self) -> int:
        return len(self.batches)


def windows(loader: Iterable[Any], size: int) -> Iterator[Window]:
    """Group a loader's batches into windows of `size`; the last may be shorter."""
    if size == 1:
        for batch in loader:
            yield Window([batch])
        return
    batches: list[Any] = []
    for batch in loader:
        batches.append(batch)
        if len(batches) == size:
            yield Window(batches)
            batches = []
    if batches:
        yield Window(batches)


def at_least_one(count: float | torch.Tensor) -> float | torch.Tensor:
    """Return a count to divide by; a batch of which nothing counts has none."""
    return count.clamp(min=1) if isinstance(count, torch.Tensor) else max(count, 1)


class EagerStep:
    """Forward, backward, clip, update. Nothing here waits for the device.

    Args:
        forward: maps a batch to its loss, a scalar tensor that is a mean over the batch.
        update: clips and steps.
        count: tells over how many samples the last loss is a mean: an int, or a scalar tensor on the device.
        window: batches whose gradients make one step.
        after_update: called after each step, to set the next one's learning rate.
        average: follows the parameters.
        device: where batches are wanted; None leaves them where they are.
        between: called after each batch of an evaluation.
    """

    name = "eager"
    chunk = 1  # steps of an epoch's pieces

    def __init__(
        self,
        forward: Callable[[Any], torch.Tensor],
        update: Update,
        count: Callable[[], int | torch.Tensor] = lambda: 1,
        window: int = 1,
        after_update: Callable[[], None] = lambda: None,
        average: WeightAverage | None = None,
        device: torch.device | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self.forward, self.update, self.count, self.window = forward, update, count, window
        self.after_update, self.average, self.device = after_update, average, device
        self.between = between

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to take the same form."""
        return {"form": self.name, "fast": False}

    def pieces(
        self, loader: Iterable[Any], skip: int = 0, skipped: Callable[[], None] = lambda: None
    ) -> Iterator[Window]:
        """Yield what `__call__` takes, until one pass over the loader is done.

        Args:
            loader: of training batches.
            skip: steps of the pass that are done already.
            skipped: called when these are passed over, and nothing more is read.
        """
        rest = windows(self._ahead(loader), self.window)
        for _ in itertools.islice(rest, skip):
            pass
        skipped()
        yield from rest

    def __call__(self, piece: Window) -> None:
        """Do one step, and what follows each step."""
        self.step(piece)
        self.after_update()

    def step(self, piece: Window) -> None:
        """Do one step.

        Args:
            piece: one or more batches. Each weighs as many samples as its loss is a mean of, so that several batches
                give the gradient of one long one.
        """
        self.update.guard.begin(piece.batches)
        self.update.zero_grad()
        if len(piece.batches) == 1:
            self.update.backward(self.forward(piece.batches[0]))
            self.finish()
            return
        total: float | torch.Tensor = 0.0
        unit: float | torch.Tensor = 1.0
        for number, batch in enumerate(piece.batches):
            loss = self.forward(batch)
            count = self.count()
            unit = unit if number else at_least_one(count)  # so that losses keep their size, whatever the counts
            weight = count / unit
            self.update.backward(loss * weight)
            total = total + weight
        # Only now is it known what to divide by: counts may be tensors that the device has not computed yet.
        self.finish(torch.as_tensor(total, dtype=loss.dtype, device=loss.device))

    def finish(self, divisor: torch.Tensor | None = None) -> None:
        """Update the parameters by their gradients.

        Args:
            divisor: a scalar by which gradients are divided first.
        """
        self.update(divisor)
        self.update.guard.keep()
        if self.average is not None:
            self.average.update()

    @torch.no_grad()
    def evaluate(self, loader: Iterable[Any]) -> int:
        """Put every batch through the forward hook, which measures it; return how many there were."""
        count = 0
        for count, batch in enumerate(self._ahead(loader), 1):  # noqa: B007
            self.forward(batch)
            self.between()
        return count

    def _ahead(self, loader: Iterable[Any]) -> Iterable[Any]:
        """Read plain tensors as such; copy the next batch to a GPU while the one at hand is used."""
        if self.device is None or self.device.type != "cuda":
            return quick(loader)
        return loader if getattr(loader, "resident", False) else prefetch(loader, self.device)
