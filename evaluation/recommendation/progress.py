"""How far a recommendation is: one line that changes on a terminal, a line for each model elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from constants.time_spans import span

_EVERY = 0.2  # seconds between two changes of the line


class Progress:
    """Tells how many models are done and how long the rest will take.

    Args:
        weights: how much work each model is, in any unit: its time is taken to go with that.
        images: images of the dataset.
        stream: where it is told; None takes the standard error.
    """

    def __init__(self, weights: list[float], images: int, stream: TextIO | None = None) -> None:
        self._weights, self._images = weights, images
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._place, self._name, self._last = 0, "", 0.0
        self._began = time.monotonic()
        self._work = self._seconds = 0.0

    def begin(self, place: int, name: str) -> Callable[[int], None]:
        """Tell that a model begins.

        Args:
            place: its place in the order of work, from 0.
            name: its name.

        Returns:
            What is to be called with the number of images that are done.
        """
        self._place, self._name, self._began = place, name, time.monotonic()
        self._show("loading")
        return self._images_done

    def end(self, text: str, assessed: bool) -> None:
        """Tell what became of the model.

        Args:
            text: what became of it.
            assessed: whether all was done; how long one took that was left out says nothing of the others.
        """
        if assessed:
            self._seconds += time.monotonic() - self._began
            self._work += self._weights[self._place]
        left = self._left(sum(self._weights[self._place + 1 :]))
        self.clear()
        self._stream.write(f"{self._where()}: {text}{left}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Take the changing line away."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _images_done(self, done: int) -> None:
        now = time.monotonic()
        if not self._live or (done < self._images and now - self._last < _EVERY):
            return
        self._last = now
        own = self._weights[self._place]
        spent = now - self._began
        rest = spent * (self._images - done) / max(done, 1)
        after = sum(self._weights[self._place + 1 :])
        rate = (self._seconds + spent + rest) / max(self._work + own, 1e-12)
        self._show(f"{done:,} of {self._images:,} images, about {span(rest + rate * after)} left")

    def _show(self, text: str) -> None:
        if self._live:
            self._stream.write(f"\r\x1b[K{self._where()}: {text}")
            self._stream.flush()

    def _where(self) -> str:
        return f"[{self._place + 1}/{len(self._weights)}] {self._name}"

    def _left(self, work: float) -> str:
        return f"; about {span(self._seconds / max(self._work, 1e-12) * work)} left" if work and self._work else ""


class ReadingProgress:
    """Tells on a terminal how many images were opened, where that takes long; the line goes when it is closed.

    Args:
        stream: where it is told; None takes the standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._last = time.monotonic()
        self._shown = False

    def __enter__(self) -> "ReadingProgress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def show(self, done: int, of: int) -> None:
        """Tell that so many of all images were opened."""
        now = time.monotonic()
        if self._live and now - self._last >= _EVERY:
            self._last, self._shown = now, True
            self._stream.write(f"\r\x1b[Kreading images: {done:,} of {of:,}")
            self._stream.flush()
