"""Ctrl-C, SIGTERM and SIGUSR1: finish the step, save, leave. A second Ctrl-C leaves at once.

Where no step is to be finished (a run is built, or has trained and does what follows), the first signal leaves at once.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from train.process_group import process_group

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop, and has.

    Attributes:
        number: number of the signal; the exit code is 128 more, as a shell has it.
        planned: whether the run itself, by a callback, has asked for it.
    """

    def __init__(self, number: int, reason: str = "") -> None:
        super().__init__(reason or signal.Signals(number).name)
        self.number, self.planned = number, bool(reason)


class Pruned(Exception):
    """A run that a sweep has ended, since others of its age are better."""


class StopRequest:
    """Remembers that somebody wants the run to stop, until the loop asks.

    Several processes hear of it at different steps, or only some of them do. So they agree: `votes`, added up over
    them, tells each the same with `hear`.

    Attributes:
        number: number of the signal that came; None before.
        pruned: whether a sweep wants no more of the run.
        reason: text about who asked, where that was no signal.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.pruned = False
        self.reason = ""
        self._at_once = False
        self._agreed: int | None = None
        self._process = os.getpid()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals for a block. Only a process's main thread can; elsewhere they do what they did."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._take) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                if signal.getsignal(number) == self._take:  # else somebody has other plans for the process's end
                    signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let the first signal that comes in a block raise Interrupted then and there; later ones are noted."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _take(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # forked with this handler; loaders' workers have train/loading/worker_signals
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if number == signal.SIGINT and self.number is not None:
            raise KeyboardInterrupt
        self.number = number
        if self._at_once:
            self._at_once = False  # what is written because of this signal shall not be broken off by the next
            raise Interrupted(number)

    def ask(self, reason: str) -> None:
        """Ask the run to stop as SIGTERM does: it finishes the step, saves, and leaves with exit code 143.

        Args:
            reason: text for the run's last line, behind `interrupted by`.
        """
        self.number, self.reason = int(signal.SIGTERM), reason

    def votes(self) -> torch.Tensor:
        """Return what this process has heard, a number for each signal, (3,) float64."""
        return torch.tensor([self.number == number for number in _SIGNALS], dtype=torch.float64)

    def hear(self, votes: torch.Tensor) -> None:
        """Take the votes of all processes. A host-device synchronisation where they are on a device.

        Args:
            votes: sum of `votes` over all processes, (3,) float64.
        """
        self._agreed = next((number for number, vote in zip(_SIGNALS, votes.tolist(), strict=True) if vote), None)

    @property
    def wanted(self) -> int | None:
        """The signal by which the run shall stop, as all processes know it."""
        return self.number if process_group().is_single_process else self._agreed

    def obey(self, agree: bool = True) -> None:
        """Raise where somebody wants the run to stop.

        Args:
            agree: whether to ask the other processes, if there are any, which all do so at this point; else what was
                heard counts.

        Raises:
            Interrupted: so that what waits is written and the process leaves.
            Pruned: so that what waits is written.
        """
        if agree and not process_group().is_single_process:
            self.hear(process_group().all_reduce_sum(self.votes()))
        if self.wanted is not None:
            raise Interrupted(self.wanted, self.reason)
        if self.pruned:
            raise Pruned
