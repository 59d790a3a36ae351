"""Where in an epoch a run is, so that it can go on from there with the same batches and the same random numbers."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from train.process_group import process_group
from train.seeding import RandomSources


class Position:
    """Counts the steps of the epoch at hand.

    Args:
        sources: the generators of random numbers.

    Attributes:
        steps: optimizer steps done in this epoch; 0 between epochs.
        start: the random numbers' states when the epoch, or the validation, began; None where that doesn't matter.
        validating: whether the epoch's steps are all done, and its validation is not.
    """

    def __init__(self, sources: RandomSources) -> None:
        self.steps, self.validating = 0, False
        self.start: dict[str, Any] | None = None
        self._sources = sources
        self._saved_steps, self._saved_at = 0, time.monotonic()

    def pieces(self, step: Any, loader: Iterable[Any]) -> Iterator[Any]:
        """Return an iterator over the epoch's pieces of work that are not done yet.

        A loader may draw its order, and its workers their seeds, from the global random numbers. So in an epoch that is
        gone on with it is asked from the states that the epoch began with, and what was done is passed over.

        Args:
            step: a form of the step.
            loader: of training batches.
        """
        if not self.steps:
            self.start = None if getattr(loader, "draws_by_epoch", False) else self._sources.states()
            return step.pieces(loader)
        now = self._sources.states()
        if self.start is not None:
            self._sources.set_states(self.start)
        return step.pieces(loader, self.steps, lambda: self._sources.set_states(now))

    @contextmanager
    def validation(self) -> Iterator[None]:
        """Surround a validation. One that is broken off leaves `validating` set, to be done anew."""
        self.start, self.validating = self._sources.states(), True
        yield
        self.validating = False

    @property
    def name(self) -> str:
        """What the name of a checkpoint of now says behind the finished epochs."""
        return "validation" if self.validating else f"step-{self.steps:08d}" if self.steps else ""

    def advance(self, steps: int) -> None:
        """Count steps."""
        self.steps += steps

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
        """Remember that there is a checkpoint of now."""
        self._saved_steps, self._saved_at = steps, time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        return {"steps": self.steps, "start": self.start if self.steps else None, "validating": self.validating}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.steps, self.start, self.validating = state["steps"], state["start"], state["validating"]
        self.note_saved(self.steps)
