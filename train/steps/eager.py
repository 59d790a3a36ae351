"""The step, operation by operation: what every other form must equal."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from data.loaders import prefetch
from data.tensor_rows import quick
from train.steps.update import Update
from train.steps.weight_average import WeightAverage


@dataclass
class StepInput:
    """What one call of a step takes: mostly the batches whose gradients make one optimizer step.

    Attributes:
        microbatches: batches of the step: one, or as many as gradients are accumulated over.
        steps: optimizer steps that are done in the call; more than one in fast forms, which have rows instead of
            batches.
    """

    microbatches: list[Any]
    steps: int = 1

    def __len__(self) -> int:
        return len(self.microbatches)


def group_microbatches(loader: Iterable[Any], size: int) -> Iterator[StepInput]:
    """Group a loader's batches into step inputs of several; the last may be shorter.

    Args:
        loader: loader of the batches.
        size: number of batches of a step input.
    """
    if size == 1:
        for batch in loader:
            yield StepInput([batch])
        return
    batches: list[Any] = []
    for batch in loader:
        batches.append(batch)
        if len(batches) == size:
            yield StepInput(batches)
            batches = []
    if batches:
        yield StepInput(batches)


def at_least_one(count: float | torch.Tensor) -> float | torch.Tensor:
    """Return a count to divide by; a batch of which nothing counts has none."""
    return count.clamp(min=1) if isinstance(count, torch.Tensor) else max(count, 1)


class Step(Protocol):
    """An optimizer step, in whatever form: each must equal `EagerStep`.

    Attributes:
        name: name of the form: eager, compiled, epoch or graph.
        fast: whether the step is still done in that form; a form that can't be goes on as eager.
    """

    name: str
    fast: bool

    @property
    def chunk(self) -> int:
        """Optimizer steps of a usual step input."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to take the same form."""
        ...

    def step_inputs(
        self, loader: Iterable[Any], skip: int = 0, skipped: Callable[[], None] = lambda: None
    ) -> Iterator[StepInput]:
        """Yield what `__call__` takes, until one pass over the loader is done; see `EagerStep.step_inputs`."""
        ...

    def __call__(self, step_input: StepInput) -> None:
        """Do the steps of a step input, and what follows each step."""
        ...

    def evaluate(self, loader: Iterable[Any]) -> int:
        """Put every batch through the loss function, which measures it; return how many there were."""
        ...


class EagerStep:
    """Forward, backward, clip, update. Nothing here waits for the device, but where `Update` has to.

    Args:
        loss_function: function that maps a batch to its loss, a scalar tensor that is a mean over the batch. It is the
            trainer's `_forward_batch`, with autocast, the check of the loss and the epoch's average around it
            (`measured` of train/contract.py).
        update: update that clips gradients and changes parameters.
        count: function that tells over how many samples the last loss is a mean: an int, or a scalar tensor on the
            device.
        accumulation_steps: number of batches whose gradients make one optimizer step.
        after_update: function called after each step, to set the next one's learning rate: a scheduler that goes by
            steps makes its step there.
        average: moving average of the weights, which follows each step; None for none.
        device: device of the model; batches are copied ahead to a CUDA device, else they stay where they are.
        after_batch: function called after each batch of an evaluation.
    """

    name = "eager"
    fast = False
    chunk = 1

    def __init__(
        self,
        loss_function: Callable[[Any], torch.Tensor],
        update: Update,
        count: Callable[[], int | torch.Tensor] = lambda: 1,
        accumulation_steps: int = 1,
        after_update: Callable[[], None] = lambda: None,
        average: WeightAverage | None = None,
        device: torch.device | None = None,
        after_batch: Callable[[], None] = lambda: None,
    ) -> None:
        self.loss_function, self.update, self.count = loss_function, update, count
        self.accumulation_steps, self.after_batch = accumulation_steps, after_batch
        self.after_update, self.average, self.device = after_update, average, device

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to take the same form."""
        return {"form": self.name, "fast": False}

    def step_inputs(
        self, loader: Iterable[Any], skip: int = 0, skipped: Callable[[], None] = lambda: None
    ) -> Iterator[StepInput]:
        """Yield what `__call__` takes, until one pass over the loader is done.

        Args:
            loader: loader of training batches.
            skip: number of steps of the pass that are done already.
            skipped: function called when the done steps are passed over, and nothing more is read.
        """
        rest = group_microbatches(self.ahead(loader), self.accumulation_steps)
        for _ in itertools.islice(rest, skip):
            pass
        skipped()
        yield from rest

    def __call__(self, step_input: StepInput) -> None:
        """Do one step, and what follows each step."""
        self.step(step_input)
        self.after_update()

    def step(self, step_input: StepInput) -> None:
        """Do one step.

        Args:
            step_input: one or more microbatches. Each weighs as many samples as its loss is a mean of, so that several
                give the gradient of one long one.
        """
        self.update.guard.begin(step_input.microbatches)
        self.update.zero_grad()
        if len(step_input.microbatches) == 1:
            self.update.backward(self.loss_function(step_input.microbatches[0]))
            self.finish()
            return
        total: float | torch.Tensor = 0.0
        unit: float | torch.Tensor = 1.0
        for number, batch in enumerate(step_input.microbatches):
            loss = self.loss_function(batch)
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
        # After a bad step too, which has changed nothing: a run that has had one ends, and nothing of it is saved.
        if self.average is not None:
            self.average.update()

    @torch.no_grad()
    def evaluate(self, loader: Iterable[Any]) -> int:
        """Put every batch through the loss function, which measures it; return how many there were."""
        number = 0
        for number, batch in enumerate(self.ahead(loader), 1):  # noqa: B007 - an error's place is told by it
            self.loss_function(batch)
            self.after_batch()
        return number

    def ahead(self, loader: Iterable[Any]) -> Iterable[Any]:
        """Read plain tensors as such; copy the next batch to a GPU while the one at hand is used."""
        if self.device is None or self.device.type != "cuda":
            return quick(loader)
        return loader if getattr(loader, "resident", False) else prefetch(loader, self.device)
