"""Which samples of a sampling session have ended: one question of a client for all of its requests (retrieve_futures).

Only a client that is told to asks this way (`sample_use_retrieve_futures` of client/config); others ask for each.
"""

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from service.tinker.promises import Promise
from service.tinker.tinker_fields import Fields, Json

_LOOK = 0.25  # seconds after which it is looked whether there is a request to wait for
_CLONE = 1_000_000_000  # requests of the clone n of a client have numbers from n times this


@dataclass
class _Told:
    """What one client of a sampling session has been told."""

    cursor: int = 0
    known: set[str] = field(default_factory=set)
    entries: list[tuple[int, Json]] = field(default_factory=list)  # that the client may not have got


class SampleUpdates:
    """Knows the requests of each sampling session as long as somebody else holds their promises."""

    def __init__(self) -> None:
        self._promises: defaultdict[str, WeakValueDictionary[int, Promise]] = defaultdict(WeakValueDictionary)
        self._told: defaultdict[tuple[str, int], _Told] = defaultdict(_Told)
        self._clones: dict[str, int] = {}

    def note(self, session: str, number: int, promise: Promise) -> None:
        """Note a request of a sampling session."""
        self._promises[session][number] = promise

    def join(self, session: str) -> int:
        """Return a number for one more client of a sampling session, which none has had, before a start neither."""
        number = max(self._clones.get(session, 0) + 1, int(time.time()))
        self._clones[session] = number
        return number

    def of(self, session: str, clone: int) -> list[Promise]:
        """Return the requests of one client of a sampling session."""
        return [promise for number, promise in list(self._promises[session].items()) if number // _CLONE == clone]

    async def ended(self, given: Fields, session: str, clone: int, hold: float) -> Json:
        """Answer which requests have ended since a client last asked.

        Args:
            given: the question.
            session: the sampling session.
            clone: number of the client.
            hold: seconds that the question is held at most where nothing has.
        """
        since = given.whole("prev_cursor", 0)
        held = min(hold, given.number("timeout", hold))
        told = self._told[session, clone]
        told.cursor = max(told.cursor, since)  # of before this process: what has ended is told once more, behind it
        told.entries = [each for each in told.entries if each[0] > since]
        self._look(told, session, clone)
        end = time.monotonic() + held
        while not told.entries and (left := end - time.monotonic()) > 0:
            waiting = [asyncio.ensure_future(each.wait(left)) for each in self.of(session, clone) if not each.done]
            if not waiting:
                await asyncio.sleep(min(left, _LOOK))
                continue
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waiting:
                    each.cancel()
            self._look(told, session, clone)
        return {"completions": [entry for _, entry in told.entries], "cursor": told.cursor}

    def _look(self, told: _Told, session: str, clone: int) -> None:
        """Enter what has ended."""
        there = self.of(session, clone)
        told.known &= {each.id for each in there}
        for each in there:
            if each.done and each.id not in told.known:
                told.known.add(each.id)
                told.cursor += 1
                state = "finished" if each.error is None else "failed"
                told.entries.append((told.cursor, {"state": state, "request_id": each.id}))
