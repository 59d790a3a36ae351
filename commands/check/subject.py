"""What is checked: a run, put back to its beginning before each check."""

import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from torch import nn

from commands.check.rehearsal import Rehearsal, rehearse
from commands.probe_steps import ProbeSnapshot, first_batches
from train.base_trainer import BaseTrainer
from train.context import RunContext
from train.steps import StepInput

BATCHES = 4  # that most checks look at


class Subject:
    """A trainer under check.

    Attributes:
        run: run of the trainer, as `build_for_probing` gives it.
        trainer_class: class of the trainer, to build another one.
        checkpoint_bytes: size of a checkpoint in bytes, None until one was written.
    """

    def __init__(self, run: RunContext, trainer_class: type[BaseTrainer]) -> None:
        self.run, self.trainer_class = run, trainer_class
        self.checkpoint_bytes: int | None = None
        self._start = ProbeSnapshot(run)
        self._rehearsal: Rehearsal | Exception | None = None

    def restore(self) -> None:
        """Put the trainer back to its beginning."""
        self._start.restore()

    @cached_property
    def batches(self) -> list[Any]:
        """The first training batches, on the device, enough for a few optimizer steps."""
        return first_batches(self.run, self.run.train_loader, BATCHES * self._accumulation_steps)

    @cached_property
    def val_batches(self) -> list[Any]:
        """The first validation batches, on the device."""
        return first_batches(self.run, self.run.val_loader, BATCHES)

    @cached_property
    def step_inputs(self) -> list[StepInput]:
        """The same training batches, those of an optimizer step together."""
        starts = range(0, len(self.batches), self._accumulation_steps)
        return [StepInput(self.batches[start : start + self._accumulation_steps]) for start in starts]

    @property
    def _accumulation_steps(self) -> int:
        return self.run.config.accumulation_steps

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """The model, under the name "", and modules that the trainer has beside it, such as a loss with parameters."""
        return {"": self.run.model, **self.run.other_modules()}

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """All parameters by name."""
        return {
            f"{prefix}.{name}" if prefix else name: parameter
            for prefix, module in self.modules.items()
            for name, parameter in module.named_parameters()
        }

    @property
    def rehearsal(self) -> Rehearsal:
        """One epoch of the trainer's own `train()`, cut short. An error in it is raised each time it is asked for."""
        if self._rehearsal is None:
            self.restore()
            try:
                self._rehearsal = rehearse(self.run)
            except Exception as error:
                self._rehearsal = error
        if isinstance(self._rehearsal, Exception):
            raise self._rehearsal
        return self._rehearsal


class Budget:
    """A number of rounds that ends earlier where they are slow.

    Args:
        rounds: largest number of rounds.
        seconds: time after which no further round begins.
        fewest: number of rounds there are however slow.
    """

    def __init__(self, rounds: int, seconds: float, fewest: int = 3) -> None:
        self.rounds, self.fewest = rounds, fewest
        self._end = time.monotonic() + seconds

    def __iter__(self) -> Iterator[int]:
        for number in range(self.rounds):
            if number >= self.fewest and time.monotonic() > self._end:
                return
            yield number
