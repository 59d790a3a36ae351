"""What is checked: a trainer, put back to its beginning before each check."""

import time
from functools import cached_property
from typing import Any

from torch import nn

from commands.check.rehearsal import Rehearsal, rehearse
from commands.probe_steps import Snapshot, first_batches
from train.checkpointing.run_state import other_modules
from train.steps import Window

BATCHES = 4  # that most checks look at


class Subject:
    """A trainer under check.

    Attributes:
        trainer: the BaseTrainer, as `build_for_trial` gives it.
        trainer_class: its class, to build another one.
        checkpoint_bytes: size of a checkpoint, once one was written.
    """

    def __init__(self, trainer: Any, trainer_class: Any = None) -> None:
        self.trainer, self.trainer_class = trainer, trainer_class or type(trainer)
        self.checkpoint_bytes: int | None = None
        self._start = Snapshot(trainer)
        self._rehearsal: Rehearsal | Exception | None = None

    def restore(self) -> None:
        """Put the trainer back to its beginning."""
        self._start.restore()

    @cached_property
    def batches(self) -> list[Any]:
        """The first training batches, on the device, enough for a few optimizer steps."""
        return first_batches(self.trainer, self.trainer.train_loader, BATCHES * self._window)

    @cached_property
    def val_batches(self) -> list[Any]:
        """The first validation batches, on the device."""
        return first_batches(self.trainer, self.trainer.val_loader, BATCHES)

    @cached_property
    def windows(self) -> list[Window]:
        """The same training batches, those of an optimizer step together."""
        starts = range(0, len(self.batches), self._window)
        return [Window(self.batches[start : start + self._window]) for start in starts]

    @property
    def _window(self) -> int:
        return self.trainer.config.accumulation_steps

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """The model, under the name "", and modules that the trainer has beside it, such as a loss with parameters."""
        return {"": self.trainer.model, **other_modules(self.trainer)}

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
                self._rehearsal = rehearse(self.trainer)
            except Exception as error:
                self._rehearsal = error
        if isinstance(self._rehearsal, Exception):
            raise self._rehearsal
        return self._rehearsal


class Budget:
    """A number of rounds that ends earlier where they are slow.

    Args:
        rounds: at most.
        seconds: after which no further one begins.
        fewest: rounds there are however slow.
    """

    def __init__(self, rounds: int, seconds: float, fewest: int = 3) -> None:
        self.rounds, self.fewest = rounds, fewest
        self._end = time.monotonic() + seconds

    def __iter__(self) -> Any:
        for number in range(self.rounds):
            if number >= self.fewest and time.monotonic() > self._end:
                return
            yield number
