"""Promises: what a client is told at once of work that takes long, and asks about until it is done.

A promise is answered again after its first read, since a response can get lost on its way; it is dropped by age. The
same key gives the same promise, so that a request which the client sends twice is done once. Any thread may end a
promise; the event loop of the server waits for it.

Nothing here outlives the process. For survival the key and the bytes of each request are to be journalled before
`once` returns: ids follow from keys, so that a client which asks again after a start finds its promise by its id.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from service.tinker_error import TinkerError
from service.tinker_messages import Answer

HOLD = 20.0  # seconds that a client's question is held at most: its own patience is 45


class Promise:
    """Work that a client waits for.

    Attributes:
        id: by which the client asks for it.
        answer: what came of it; None where there is nothing yet, or an error.
        error: why nothing came of it.
        ended: when it ended, by the clock of its `Promises`; None before.
        read: whether a client has had the answer.
    """

    def __init__(self, id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.id, self._clock = id, clock
        self.answer: Answer | None = None
        self.error: TinkerError | None = None
        self.ended: float | None = None
        self.read = False
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.ended is not None

    def keep(self, answer: Answer) -> None:
        """End it with an answer. What has ended stays as it is."""
        self._end(answer, None)

    def fail(self, error: TinkerError) -> None:
        """End it with an error. What has ended stays as it is."""
        self._end(None, error)

    async def wait(self, seconds: float) -> bool:
        """Wait for the end.

        Args:
            seconds: how long at most.

        Returns:
            Whether it has come.
        """
        here = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            if self.done:
                return True
            self._waiting.append(here)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(here[1].wait(), seconds)
        finally:
            with self._lock, suppress(ValueError):
                self._waiting.remove(here)
        return self.done

    def _end(self, answer: Answer | None, error: TinkerError | None) -> None:
        with self._lock:
            if self.done:
                return
            self.answer, self.error, self.ended = answer, error, self._clock()
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            with suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(event.set)


class Promises:
    """All promises of a service.

    Args:
        unread_seconds: how long an answer is kept that nobody has asked for.
        read_seconds: how long one is kept that was read.
        clock: tells seconds.
    """

    def __init__(
        self, unread_seconds: float = 3600.0, read_seconds: float = 300.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._unread, self._read, self._clock = unread_seconds, read_seconds, clock
        self._promises: dict[str, Promise] = {}
        self._lock = threading.Lock()
        self._next_look = clock()

    def __len__(self) -> int:
        return len(self._promises)

    def once(self, id: str) -> tuple[Promise, bool]:
        """Return the promise of an id.

        Returns:
            The promise, and whether it is new: whoever gets a new one must see to it that it ends.
        """
        with self._lock:
            self._drop_old()
            known = self._promises.get(id)
            if known is not None:
                return known, False
            made = self._promises[id] = Promise(id, self._clock)
            return made, True

    def find(self, id: str) -> Promise:
        """Return a promise.

        Raises:
            TinkerError: there is none, or it was dropped. Its status lets the client send its request anew.
        """
        with self._lock:
            self._drop_old()
            found = self._promises.get(id)
        if found is None:
            raise TinkerError(f"there is no request {id!r}, or its answer was kept long enough", 410)
        return found

    def forget(self, id: str) -> None:
        """Forget a promise whose work was not taken in, so that the client may send it again."""
        with self._lock:
            self._promises.pop(id, None)

    def fail_all(self, error: TinkerError) -> None:
        """End all that have not ended."""
        with self._lock:
            open_ones = [each for each in self._promises.values() if not each.done]
        for each in open_ones:
            each.fail(error)

    def _drop_old(self) -> None:
        now = self._clock()
        if now < self._next_look:  # not with each request: there may be many
            return
        self._next_look = now + min(self._read, self._unread) / 10
        self._promises = {id: each for id, each in self._promises.items() if not self._is_old(each, now)}

    def _is_old(self, promise: Promise, now: float) -> bool:
        return promise.ended is not None and now - promise.ended > (self._read if promise.read else self._unread)
