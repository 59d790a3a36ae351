"""Where in an epoch a run is, so that it can go on from there with the same batches and the same random numbers."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from data.loaders import Loader
from train.process_group import process_group
from train.seeding import RandomSources
from train.steps.eager import Step, StepInput


class EpochPosition:
    """Counts the steps of the epoch at hand.

    Args:
        sources: generators of random numbers that the run draws from.

    Attributes:
        steps: optimizer steps done in this epoch; 0 between epochs.
        batches: batches of the steps done in this epoch; only while the loop is in the epoch.
        start: states of the random generators when the epoch, or the validation, began; None where that doesn't matter.
        validating: whether the epoch's steps are all done, and its validation is not.
    """

    def __init__(self, sources: RandomSources) -> None:
        self.steps, self.batches, self.validating = 0, 0, False
        self.start: dict[str, Any] | None = None
        self._sources = sources
        self._saved_steps, self._saved_at = 0, time.monotonic()

    def remaining(self, step: Step, loader: Loader) -> Iterator[StepInput]:
        """Return an iterator over the epoch's step inputs that are not done yet.

        A loader may draw its order, and its workers their seeds, from the global random numbers. So in an epoch that is
        gone on with it is asked from the states that the epoch began with, and what was done is passed over.

        Args:
            step: optimizer step, in whatever form.
            loader: loader of training batches.
        """
        if not self.steps:
            by_epoch = getattr(loader, "draws_by_epoch", False) and not self._sources.data_draws
            self.start = None if by_epoch else self._sources.state_dict()
            return step.step_inputs(loader)
        now = self._sources.state_dict()
        if self.start is not None:
            self._sources.load_state_dict(self.start)
        return step.step_inputs(loader, self.steps, lambda: self._sources.load_state_dict(now, inside_pass=True))

    @contextmanager
    def validation(self) -> Iterator[None]:
        """Surround a validation. One that is broken off leaves `validating` set, to be done anew."""
        self.start, self.validating = self._sources.state_dict(), True
        yield
        self.validating = False

    @property
    def name(self) -> str:
        """What the name of a checkpoint of now says behind the finished epochs."""
        return "validation" if self.validating else f"step-{self.steps:08d}" if self.steps else ""

    def advance(self, steps: int, batches: int = 0) -> None:
        """Count what is done.

        Args:
            steps: number of optimizer steps that were done.
            batches: number of batches of these optimizer steps.
        """
        self.steps += steps
        self.batches += batches

    def end_epoch(self) -> None:
        """Begin to count anew."""
        self.steps, self.start = 0, None
        self.note_saved(0)

    def is_due(self, every_steps: int, every_minutes: float) -> bool:
        """Say whether it is time for a checkpoint inside the epoch.

        Args:
            every_steps: between two; 0 never.
            every_minutes: between two; 0 never.
        """
        by_steps = every_steps > 0 and self.steps // every_steps > self._saved_steps // every_steps
        if every_minutes == 0:
            return by_steps
        by_time = every_minutes * 60 <= time.monotonic() - self._saved_at
        return bool(process_group().all_reduce_max(by_steps or by_time))  # each process has a clock of its own

    def note_saved(self, steps: int) -> None:
        """Remember that there is a checkpoint of now.

        Args:
            steps: optimizer steps of the epoch that the checkpoint has.
        """
        self._saved_steps, self._saved_at = steps, time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        return {"steps": self.steps, "start": self.start if self.steps else None, "validating": self.validating}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.steps, self.start, self.validating = state["steps"], state["start"], state["validating"]
        self.note_saved(self.steps)
