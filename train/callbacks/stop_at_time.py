"""Ends a run before somebody else does: it saves, and `--resume` goes on."""

import os
import time
from datetime import datetime

from config import ConfigError
from constants.time_spans import duration
from train.callbacks.callback import Callback
from train.trainer_protocol import Trainer

_SLURM_END = "SLURM_JOB_END_TIME"  # seconds since 1970, as SLURM 22.05 and newer sets it for a job


class StopAtTime(Callback):
    """Stops the run after some hours, at a time of day, or a few minutes before its SLURM job ends.

    The run finishes its step, saves a checkpoint and leaves with exit code 143, as SIGTERM has it; `--resume` goes on.

    Args:
        hours: how long this session may train; None sets no such limit.
        at: local date and time as ISO 8601, such as `2026-12-24T18:00`; None sets no such limit.
        margin_minutes: how long before the end of the SLURM job to stop, where neither `hours` nor `at` is given.

    Raises:
        ConfigError: no limit is given, and this is no SLURM job that says when it ends; or a limit means nothing.
    """

    every_step = False  # a few steps more or less do no harm

    def __init__(self, hours: float | None = None, at: str | None = None, margin_minutes: float = 5.0) -> None:
        self._ends: list[tuple[float, str]] = []  # seconds since 1970, and what ends then
        if hours is not None:
            if not hours > 0:
                raise ConfigError(f"StopAtTime: hours = {hours} must be above 0.")
            self._ends.append((time.time() + 3600 * hours, f"{duration(3600 * hours)} are over"))
        if at is not None:
            try:
                self._ends.append((datetime.fromisoformat(at).timestamp(), f"it is {at}"))
            except ValueError as error:
                raise ConfigError(f"StopAtTime: at = '{at}' must be a time such as 2026-12-24T18:00.") from error
        if not self._ends:
            end = os.environ.get(_SLURM_END, "")
            if not end.isdecimal():
                raise ConfigError(
                    f"StopAtTime: give hours=... or at=...; without them it needs {_SLURM_END}, which SLURM sets in "
                    "its jobs."
                )
            self._ends.append((int(end) - 60 * margin_minutes, f"the SLURM job ends in {margin_minutes:g} minutes"))

    def on_step_end(self, trainer: Trainer, steps: int) -> None:
        """Ask the run to stop when it is time."""
        end, reason = min(self._ends)
        if time.time() >= end:
            trainer.stop_request.ask(f"StopAtTime: {reason}")
