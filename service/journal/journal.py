"""The journal of a service: what it was told, written down before anybody is told that it was heard.

    request  one that was accepted: its promise's id, what it is, its body. On disk before the promise is given out.
    begin    the first of each file: what numbers depend on beside requests and weights.
    turn     promises' ids of the requests that the engine does together, in their order. Written before they are done.
    answer   what came of a request.
    note     a change of the registry that is no request: a session, a sampler, a checkpoint's end, ...

What has been done follows from these records alone: requests give what the engine computes, and turns say which of them
it took together, on which the rounding of sums depends. So whoever executes requests calls

    journal.executed([promise ids, in the order in which they are done together])

before it begins, once for each group, and does a group by nothing but the requests and the weights as they are. A start
after a kill does the turns again, one by one, with the same groups (`service/tinker/replay.py`).

An answer is shown when it can be given again whatever happens: one of a turn when the turn is on disk, since doing it
again gives the same; another (samples: who else is in the batch is a matter of timing) when it is on disk itself. What
follows from its model's own requests, in whatever turns they are done, needs these alone (`Promise.needs`).

Records are written at once, by whoever has them, so that a full disk is known before anything is promised; one thread
waits for the disk, for all records that have come meanwhile together: at once where somebody waits for one of them,
else after a quarter of a second, so that who waits has not to wait for others first. What is no request and finds
no room waits in memory, in its order: nothing that was promised is lost, and nothing is shown that isn't kept.
"""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.journal.journal_file import Place, packed
from service.web.tinker_error import TinkerError
from storage.files import sync

_LOG = logging.getLogger(__name__)
_AGAIN = 0.25  # seconds between two looks whether a full disk has room
_LATER = 0.25  # seconds after which records are on disk that nobody waits for
Then = Callable[[], None]


class Unkept:
    """A journal that keeps nothing: all is known for as long as the process lives.

    Attributes:
        turn_time: when the turn that runs began, seconds since 1970.
    """

    turn_time = 0.0

    def accept(self, id: str, fields: Mapping[str, Any], content: bytes = b"") -> int:
        """Write down a request that is to be promised.

        Args:
            id: id of its promise.
            fields: what it is.
            content: its body.

        Returns:
            Number of the record, to wait for before it is promised.

        Raises:
            TinkerError: there is no room: it can be sent again later.
        """
        return 0

    def executed(self, ids: Sequence[str]) -> int:
        """Write down which requests are done together now.

        Returns:
            Number of the record.
        """
        self.turn_time = time.time()
        return 0

    def answered(
        self, id: str, fields: Mapping[str, Any], content: bytes, then: Then, needs: int | None = None
    ) -> None:
        """Write down what came of a request.

        Args:
            id: id of its promise.
            fields: the answer, with `content`.
            content: bytes of the answer.
            then: called when it may be shown, by any thread.
            needs: number of the record that must be on disk for it to be given again; None for that of its turn, and
                without one its own.
        """
        then()

    def note(self, what: str, must: bool = False, **fields: Any) -> int:
        """Write down a change of the registry.

        Args:
            what: what has changed.
            must: whether it is refused where there is no room; else it waits.
            fields: what there is to know of it.

        Returns:
            Number of the record.

        Raises:
            TinkerError: there is no room.
        """
        return 0

    def forget(self, id: str) -> None:
        """Hear that nobody will ask for an answer any more."""

    @property
    def keeps(self) -> bool:
        """Whether anything outlives the process."""
        return False

    @property
    def trouble(self) -> str | None:
        """What is wrong with the disk; None where nothing is."""
        return None

    async def settled(self, number: int) -> None:
        """Wait until a record is on disk.

        Args:
            number: its number.

        Raises:
            TinkerError: it can't be.
        """


class Journal(Unkept):
    """A journal in a folder.

    Args:
        folder: the folder, which is there.
        file: number of the file to begin with; there is none of this number.
        number: number of the next record.
        facts: what each file begins with: what numbers depend on.
        live: of each promise its last record, in files that are there already.

    Raises:
        OSError: the folder can't be written.
    """

    def __init__(
        self, folder: Path, file: int, number: int, facts: Mapping[str, Any], live: Mapping[str, Place] | None = None
    ) -> None:
        self.folder, self.file, self.number, self._facts = folder, file, number, dict(facts)
        self.bytes = 0  # of all records of this process
        self.turns = 0  # of this process
        self._live = dict(live or {})
        self._turn: tuple[int, frozenset[str]] = (0, frozenset())  # its record's number, and what is done in it
        self._condition = threading.Condition()
        self._path, self._handle = self._opened(file)
        self._end = 0  # of the file
        self._over: list[int] = []  # handles of files that are full, to be synced and closed
        self._backlog: deque[tuple[int, str | None, bytes]] = deque()  # what has found no room
        self._written = self._synced = number - 1  # numbers of records
        self._waiting: list[tuple[int, Then]] = []  # answers that are to be shown
        self._asking: list[tuple[int, Then]] = []  # who waits for a promise
        self._broken: str | None = None
        self._closing = False
        with self._condition:
            self._count(self._write(packed(number, {"kind": "begin", "facts": self._facts}), None))
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    # ---------------------------------------------------------------------------------------------------------- records

    def accept(self, id: str, fields: Mapping[str, Any], content: bytes = b"") -> int:
        """Write down a request that is to be promised; wait for `settled` before it is.

        Raises:
            TinkerError: there is no room: it can be sent again later.
        """
        with self._condition:
            return self._append_now({"kind": "request", "id": id, **fields}, content, id)

    def executed(self, ids: Sequence[str]) -> int:
        """Write down which requests are done together now."""
        self.turn_time = time.time()
        with self._condition:
            self._turn = self.number, frozenset(ids)
            self.turns += 1
            return self._append({"kind": "turn", "ids": list(ids), "time": self.turn_time})

    def answered(
        self, id: str, fields: Mapping[str, Any], content: bytes, then: Then, needs: int | None = None
    ) -> None:
        """Write down what came of a request; `then` is called when it can be shown."""
        with self._condition:
            turn, ids = self._turn
            number = needs if needs is not None else turn if id in ids else self.number
            self._append({"kind": "answer", "id": id, **fields}, content, id)
            if self._synced < number:
                self._waiting.append((number, then))
                self._condition.notify_all()
                return
        then()

    def note(self, what: str, must: bool = False, **fields: Any) -> int:
        """Write down a change of the registry."""
        told = {"kind": "note", "what": what, **fields}
        with self._condition:
            return self._append_now(told) if must else self._append(told)

    def forget(self, id: str) -> None:
        """Hear that nobody will ask for an answer any more."""
        with self._condition:
            self._live.pop(id, None)

    @property
    def keeps(self) -> bool:
        """Whether anything outlives the process."""
        return True

    @property
    def trouble(self) -> str | None:
        """What is wrong with the disk; None where nothing is."""
        with self._condition:
            if self._broken is not None:
                return self._broken
            return "the journal's disk is full" if self._backlog else None

    async def settled(self, number: int) -> None:
        """Wait until a record is on disk."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(over.set)

        with self._condition:
            if self._broken is not None:
                raise self._full()
            if self._synced >= number:
                return
            self._asking.append((number, wake))
            self._condition.notify_all()
        await over.wait()
        if self._broken is not None:
            raise self._full()

    # ------------------------------------------------------------------------------------------------------------ files

    def turn_over(self) -> tuple[int, int, list[Place]] | None:
        """Begin a new file.

        Returns:
            Its number, the number of its first record, and where the records of promises that still matter lie in the
            files before; None where the disk is full.
        """
        with self._condition:
            self._write_backlog()
            if self._backlog or self._broken is not None:
                return None
            try:
                path, handle = self._opened(self.file + 1)
            except OSError:
                return None
            self._over.append(self._handle)
            self.file += 1
            self._path, self._handle, self._end = path, handle, 0
            number = self.number
            self._append({"kind": "begin", "facts": self._facts})
            return self.file, number, sorted(self._live.values(), key=lambda place: (place.path, place.begin))

    def move(self, places: Mapping[Place, Place]) -> None:
        """Hear where records lie now whose files are to go."""
        with self._condition:
            self._live = {id: places.get(place, place) for id, place in self._live.items()}

    def close(self) -> None:
        """Write and sync what is left; nothing is taken in any more."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._thread.join()
        os.close(self._handle)

    def file_path(self, number: int) -> Path:
        """Return the path of a file."""
        return self.folder / f"{number:08d}.journal"

    # ----------------------------------------------------------------------------------------------------------- inside

    def _opened(self, number: int) -> tuple[Path, int]:
        path = self.file_path(number)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
        try:
            sync(self.folder)
        except OSError:
            os.close(handle)
            raise
        return path, handle

    def _append_now(self, fields: Mapping[str, Any], content: bytes = b"", id: str | None = None) -> int:
        """Write what is refused where there is no room."""
        self._write_backlog()
        if self._backlog or self._broken is not None:
            raise self._full()
        data = packed(self.number, fields, content)
        try:
            return self._count(self._write(data, id))
        except OSError as error:
            raise self._full(error) from error

    def _append(self, fields: Mapping[str, Any], content: bytes = b"", id: str | None = None) -> int:
        """Write what must not be refused: without room it waits."""
        data = packed(self.number, fields, content)
        self._write_backlog()
        if not self._backlog and self._broken is None:
            try:
                return self._count(self._write(data, id))
            except OSError as error:
                _LOG.warning("the journal waits for room on its disk: %s", error.strerror or error)
        self._backlog.append((self.number, id, data))
        self.number += 1
        self._condition.notify_all()
        return self.number - 1

    def _count(self, data: bytes) -> int:
        if self._written == self._synced:
            self._condition.notify_all()
        self._written = self.number
        self.number += 1
        self.bytes += len(data)
        return self._written

    def _write(self, data: bytes, id: str | None) -> bytes:
        """Write a record whole or not at all."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError:
            try:
                os.ftruncate(self._handle, self._end)
            except OSError as error:
                self._broken = f"the journal can't be written any more: {error.strerror or error}"
            raise
        begin, self._end = self._end, self._end + len(data)
        if id is not None:
            self._live[id] = Place(self._path, begin, self._end)
        return data

    def _write_backlog(self) -> None:
        with suppress(OSError):
            while self._backlog and self._broken is None:
                number, id, data = self._backlog[0]
                self._write(data, id)
                self._backlog.popleft()
                self._written = number
                self.bytes += len(data)

    def _full(self, error: OSError | None = None) -> TinkerError:
        why = self._broken or "the service's disk is full"
        if error is not None and self._broken is None:
            why = f"the service's journal can't be written: {error.strerror or error}"
        return TinkerError(
            f"{why}. The request was not taken; send it again when there is room in {self.folder}", 503, "server"
        )

    def _run(self) -> None:
        """Wait for the disk, again and again."""
        while True:
            with self._condition:
                until = None  # when records are synced that nobody waits for
                while not (self._over or self._closing):
                    if self._written == self._synced:
                        self._condition.wait(_AGAIN if self._backlog else None)
                        self._write_backlog()
                    elif self._waiting or self._asking:
                        break
                    else:
                        until = until or time.monotonic() + _LATER
                        if not self._condition.wait(until - time.monotonic()):
                            break
                if self._closing and self._written == self._synced and not self._over:
                    return
                over, self._over = self._over, []
                handle, target = self._handle, self._written
            try:
                for each in (*over, handle):
                    os.fsync(each)
            except OSError as error:  # what the system has dropped can't be known: nothing more may be promised
                _LOG.exception("the journal can't be written to disk")
                self._broken = f"the service's journal can't be written to disk: {error.strerror or error}"
            for each in over:
                os.close(each)
            with self._condition:
                if self._broken is None:
                    self._synced = target
                    due = [then for number, then in self._waiting if number <= target]
                    self._waiting = [each for each in self._waiting if each[0] > target]
                else:
                    self._synced, due = self._written, []  # so that the next look waits
                asked = self._broken is not None
                due += [wake for number, wake in self._asking if number <= target or asked]
                self._asking = [each for each in self._asking if each[0] > target and not asked]
            for then in due:
                then()
