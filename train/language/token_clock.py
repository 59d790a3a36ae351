"""How many tokens a second a run trains on."""

import time


class TokenClock:
    """Tokens and seconds of the training steps of this process, without what lies between epochs."""

    __slots__ = ("_last", "_seconds", "_tokens")  # no part of a checkpoint: see TrainedModel

    def __init__(self) -> None:
        self._tokens, self._seconds = 0, 0.0
        self._last: tuple[float, int] | None = None

    def note(self, tokens: int) -> None:
        """Note that a batch of so many tokens begins."""
        self.pause()
        self._last = (time.perf_counter(), tokens)

    def pause(self) -> None:
        """Note that the batch at hand is done; the time until the next one is left out."""
        if self._last is not None:
            self._seconds += time.perf_counter() - self._last[0]
            self._tokens += self._last[1]
        self._last = None

    def rate(self) -> float | None:
        """Return tokens a second; None where nothing was measured."""
        return self._tokens / self._seconds if self._seconds else None
