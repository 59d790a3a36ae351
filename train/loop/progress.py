"""What a person sees while a run goes on: a bar at the terminal's bottom, or plain lines."""

import os
import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from train.process_group import process_group

_SECONDS_BETWEEN_LINES = 1.0  # of the epochs' log lines: a fast run would write thousands


class ProgressBar:
    """A tqdm bar over a run's batches. beautilog writes its lines above it; off a terminal there is no bar.

    Args:
        total: batches of the whole run; None where nobody knows.
        desc: text before the bar.

    Attributes:
        silent: whether the bar never appears.
    """

    silent = False

    def __init__(self, total: int | None, desc: str) -> None:
        self.total, self.desc = total, desc
        self._bar: tqdm | None = None
        self._below: list[tqdm] = []  # a line each
        self._line_due = 0.0

    def open(self, done: int = 0) -> None:
        """Show the bar; `done` batches were trained on before (a resumed run)."""
        if self._bar is None:
            self._bar = tqdm(
                total=self.total, initial=done, desc=self.desc, unit="batch", dynamic_ncols=True, mininterval=0.2,
                disable=self.silent or not sys.stderr.isatty() or not process_group().is_main_process,
            )  # fmt: skip

    def advance(self, batches: int = 1) -> None:
        """Move the bar on."""
        if self._bar is None:
            self.open()
        if self._bar is not None:
            self._bar.update(batches)

    def reach(self, batches: int) -> None:
        """Move the bar on to a number of batches of the whole run, unless it is there."""
        if self._bar is not None:
            self._bar.update(max(0, batches - int(self._bar.n)))

    def show(self, **numbers: float) -> None:
        """Show numbers behind the bar. They were read from the device before: this does not wait for it."""
        if self._bar is not None and not self._bar.disable:
            self._bar.set_postfix({name: f"{number:.4g}" for name, number in numbers.items()}, refresh=False)

    @property
    def on_terminal(self) -> bool:
        """Whether somebody sees the bar."""
        return self._bar is not None and not self._bar.disable

    def show_below(self, *paragraphs: Sequence[str]) -> None:
        """Show texts below the bar, in place of those that were shown before; nothing takes them away.

        Args:
            paragraphs: texts that stay whole, as many in a line as there is room for; each paragraph begins a line.
        """
        lines = [line for texts in paragraphs for line in _filled(texts, _columns())] if self.on_terminal else []
        while len(self._below) > len(lines):
            self._below.pop().close()
        while len(self._below) < len(lines):
            place = len(self._below) + 1
            self._below.append(tqdm(total=0, bar_format="{desc}", position=place, leave=False))
        for bar, line in zip(self._below, lines, strict=True):
            bar.set_description_str(line)

    def line_is_due(self, last: bool = False) -> bool:
        """Return whether a line about an epoch should be shown now: at most one a second; the last one always.

        Args:
            last: whether no other will follow it.
        """
        due = last or time.monotonic() >= self._line_due
        if due:
            self._line_due = time.monotonic() + _SECONDS_BETWEEN_LINES
        return due

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.show_below()
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 80


def _filled(texts: Sequence[str], columns: int) -> list[str]:
    """Put texts into lines, as many as there is room for."""
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + 3 + len(text) < columns:
            lines[-1] += f" | {text}"
        else:
            lines.append(text[: max(1, columns - 1)])
    return lines
