"""Promises: what a client is told at once of work that takes long, and asks about until it is done.

A promise is answered again after its first read, since a response can get lost on its way; it is dropped by age. The
same key gives the same promise, so that a request which the client sends twice is done once. Any thread may end a
promise; the event loop of the server waits for it.

What outlives the process is in the journal: a promise is shown its end when that can be given again after any kill
(`service/journal/journal.py`), and a start puts back all promises under their ids (`restore`).
"""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from service.journal.journal import Then, Unkept
from service.tinker.kept_answers import pack
from service.tinker.tinker_messages import Answer
from service.web.tinker_error import TinkerError

HOLD = 20.0  # seconds that a client's question is held at most: its own patience is 45
Ended = Answer | TinkerError
Keeper = Callable[["Promise", Ended, Then], None]  # takes a promise and its end, and what shows it


class Promise:
    """Work that a client waits for.

    Attributes:
        id: by which the client asks for it.
        answer: what came of it; None where there is nothing yet, or an error.
        error: why nothing came of it.
        ended: when it ended, by the clock of its `Promises`; None before.
        read: whether a client has had the answer.
        accepted: number of its request's record in the journal.
        needs: number of the record that must be on disk for an answer to be given again; None for that of its turn.
    """

    def __init__(self, id: str, clock: Callable[[], float] = time.monotonic, keeper: Keeper | None = None) -> None:
        self.id, self._clock, self._keeper = id, clock, keeper
        self.accepted = 0
        self.needs: int | None = None
        self.answer: Answer | None = None
        self.error: TinkerError | None = None
        self.ended: float | None = None
        self.read = False
        self._decided = False  # whether it is known how it ends
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.ended is not None

    def keep(self, answer: Answer) -> None:
        """End it with an answer, as soon as that is kept. What has ended stays as it is."""
        self._end(answer)

    def fail(self, error: TinkerError) -> None:
        """End it with an error, as soon as that is kept. What has ended stays as it is."""
        self._end(error)

    def refuse(self, error: TinkerError) -> None:
        """End it with an error that is kept nowhere: its request was not taken in."""
        with self._lock:
            self._decided = True
        self._show(error)

    async def wait(self, seconds: float, unless: "asyncio.Future[None] | None" = None) -> bool:
        """Wait for the end.

        Args:
            seconds: how long at most.
            unless: ends the waiting, where it is done before.

        Returns:
            Whether it has come.
        """
        loop = asyncio.get_running_loop()
        over = loop.create_future()  # no task: most of all calls wait here

        def end(_: object = None) -> None:
            if not over.done():
                over.set_result(None)

        with self._lock:
            if self.done:
                return True
            self._waiting.append((loop, end))
        timer = loop.call_later(seconds, end)
        if unless is not None:
            unless.add_done_callback(end)
        try:
            await over
        finally:
            timer.cancel()
            with self._lock, suppress(ValueError):
                self._waiting.remove((loop, end))
        return self.done

    def _end(self, ended: Ended) -> None:
        with self._lock:
            if self._decided:
                return
            self._decided = True
        if self._keeper is None:
            self._show(ended)
        else:
            self._keeper(self, ended, partial(self._show, ended))

    def _show(self, ended: Ended) -> None:
        with self._lock:
            if isinstance(ended, TinkerError):
                self.error = ended
            else:
                self.answer = ended
            self.ended = self._clock()
            waiting, self._waiting = self._waiting, []
        for loop, end in waiting:
            with suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(end)


class Promises:
    """All promises of a service.

    Args:
        unread_seconds: how long an answer is kept that nobody has asked for.
        read_seconds: how long one is kept that was read.
        clock: tells seconds.
        journal: what keeps how they end.
    """

    def __init__(
        self,
        unread_seconds: float = 3600.0,
        read_seconds: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        journal: Unkept | None = None,
    ) -> None:
        self._unread, self._read, self._clock = unread_seconds, read_seconds, clock
        self._journal = journal or Unkept()
        self._closing = False
        self._promises: dict[str, Promise] = {}
        self._lock = threading.Lock()
        self._next_look = clock()

    def __len__(self) -> int:
        return len(self._promises)

    def all(self) -> list[Promise]:
        """Return all that are known."""
        with self._lock:
            return list(self._promises.values())

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
            made = self._promises[id] = Promise(id, self._clock, self._keep)
            return made, True

    def restore(self, id: str, ended: Ended | None) -> Promise:
        """Put back a promise that was given before this process began.

        Args:
            id: its id.
            ended: how it ended; None where it has not.
        """
        with self._lock:
            made = self._promises[id] = Promise(id, self._clock, self._keep)
        if ended is not None:
            made._decided = True
            made._show(ended)
        return made

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

    def refuse(self, promise: Promise, error: TinkerError) -> None:
        """Forget a promise whose work was not taken in, so that the client may send it again."""
        with self._lock:
            self._promises.pop(promise.id, None)
        if promise.accepted:
            self._journal.note("forgotten", id=promise.id)
            self._journal.forget(promise.id)
        promise.refuse(error)

    def close(self, error: TinkerError) -> None:
        """End: nothing that ends from now on is shown or kept, as it ends because the service does.

        Args:
            error: what those hear who wait, where no journal lets a later process go on.
        """
        self._closing = True
        if self._journal.keeps:
            return
        with self._lock:
            open_ones = [each for each in self._promises.values() if not each.done]
        for each in open_ones:
            each.refuse(error)

    def _drop_old(self) -> None:
        now = self._clock()
        if now < self._next_look:  # not with each request: there may be many
            return
        self._next_look = now + min(self._read, self._unread) / 10
        old = [id for id, each in self._promises.items() if self._is_old(each, now)]
        for id in old:
            del self._promises[id]
            self._journal.forget(id)

    def _keep(self, promise: Promise, ended: Ended, then: Then) -> None:
        if self._closing:
            return
        if not self._journal.keeps:
            then()
            return
        fields, content = pack(ended)
        self._journal.answered(
            promise.id, fields, content, then, None if isinstance(ended, TinkerError) else promise.needs
        )

    def _is_old(self, promise: Promise, now: float) -> bool:
        return promise.ended is not None and now - promise.ended > (self._read if promise.read else self._unread)
