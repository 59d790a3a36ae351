"""What a person sees while steps run: a line that changes for each on a terminal, a line now and then elsewhere."""

import shutil
import sys
import time
from typing import TextIO

from constants.time_spans import span
from workflow.definition.facts import Step
from workflow.estimates.spending import money
from workflow.watching.progress import Progress

_EVERY = 30.0  # seconds between two lines of a step, where nobody watches
_SHARE = 0.25  # of all, after which there is one sooner
_REDRAW = 0.2


class Screen:
    """Tells of steps.

    Args:
        steps: number of steps that there are.
        stream: where it is told; None takes the standard error.
    """

    def __init__(self, steps: int, stream: TextIO | None = None) -> None:
        self._steps = steps
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._drawn = 0
        self._last: dict[int, tuple[float, float]] = {}
        self._redrawn = 0.0

    def say(self, text: str) -> None:
        """Write lines that stay."""
        self._clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def show(self, running: list[tuple[Step, Progress]], now: float) -> None:
        """Show how far the running steps are."""
        if self._live:
            if now - self._redrawn < _REDRAW:
                return
            self._redrawn = now
            self._clear()
            width = shutil.get_terminal_size().columns - 1
            lines = [self.line(step, progress, now)[:width] for step, progress in running]
            self._stream.write("".join(f"{line}\n" for line in lines))
            self._stream.flush()
            self._drawn = len(lines)
            return
        for step, progress in running:
            when, share = self._last.get(step.number, (0.0, 0.0))
            reached = (progress.done or 0.0) / progress.total if progress.total else 0.0
            if progress.done is not None and (now - when > _EVERY or reached - share >= _SHARE):
                self._last[step.number] = (now, reached)
                self.say(self.line(step, progress, now))

    def line(self, step: Step, progress: Progress, now: float) -> str:
        """Return a step's line: `[Step 8/20] Generating teacher data  2500/5000 (50 %)  45 min left  $1.20 so far`."""
        parts = [f"[Step {step.number}/{self._steps}] {step.title}"]
        if progress.done is not None and progress.total:
            parts.append(f"{progress.done:,.0f}/{progress.total:,.0f} ({100 * progress.done / progress.total:.0f} %)")
        elif progress.done is not None:
            parts.append(f"{progress.done:,.0f} {progress.unit}".rstrip())
        if progress.loss is not None:
            parts.append(f"loss {progress.loss:.3g}")
        left = progress.seconds_left(now)
        if left is not None:
            parts.append(f"{span(left)} left")
        if progress.spent:
            parts.append(f"{money(progress.spent)} so far")
        if progress.message and progress.done is None:
            parts.append(progress.message)
        return "  ".join(parts)

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0


def clock_time() -> str:
    """Return the time of day."""
    return time.strftime("%H:%M:%S")
