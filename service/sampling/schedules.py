"""When requests that wait begin to be sampled: at once, or in waves that follow from the rollouts alone."""

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from llm.sampling_settings import SampleRequest


class Waiting(Protocol):
    """What a schedule knows of a request."""

    @property
    def key(self) -> str:
        """Whose request it is."""

    @property
    def number(self) -> int:
        """Place among the requests of its key."""

    @property
    def request(self) -> SampleRequest:
        """What is asked."""


class NotEnteredError(LookupError):
    """A request of somebody who takes no part in the waves."""


class Schedule(Protocol):
    """Decides which requests begin."""

    ends_early: bool  # whether a request whose client has gone ends at once

    def require(self, key: str) -> None:
        """Refuse a request that could never begin.

        Raises:
            NotEnteredError: it is of a key that takes no part.
        """

    def due(self, waiting: Sequence[Waiting], under_way: int) -> Sequence[int]:
        """Say which requests begin now.

        Args:
            waiting: requests that wait, in the order in which they came.
            under_way: requests that have begun and not ended.

        Returns:
            Places in `waiting`, in the order in which they are to begin.
        """

    def notify(self, changed: Callable[[], None]) -> None:
        """Take a function to be called whenever `due` may have another answer without a new request."""


class Continuous:
    """Requests begin as they come, and join the running batch: the fastest schedule.

    What a request gets depends on its own settings and seed, and on its neighbours by the rounding of sums only. Who
    its neighbours are is a matter of timing, so results of two runs are alike, and not the same to the bit.
    """

    ends_early = True

    def require(self, key: str) -> None:
        """Every key may ask."""

    def due(self, waiting: Sequence[Waiting], under_way: int) -> Sequence[int]:
        """All begin."""
        return range(len(waiting))

    def notify(self, changed: Callable[[], None]) -> None:
        """Nothing else changes the answer."""


class Lockstep:
    """Requests of several rollouts begin together in waves, so that all results are the same to the bit in each run.

    A wave begins when no other is under way and each key that has entered has a request waiting. It takes all of them,
    in the order of their keys (as text) and numbers, and runs to its end. So what is in a batch, and with it each bit
    of the results, follows from what the rollouts ask and not from when they ask it.

    This holds where
    - whoever runs the rollouts enters keys before they ask, those of the first wave all at once, and the next before
      the one whose place it takes leaves;
    - a rollout makes one request at a time. Of several at once some may miss the wave, and their numbers are those in
      which they arrive;
    - each request has a seed, or takes the likeliest tokens (`ExchangeLog.open` gives seeds);
    - the sampler begins alike: with the same weights, and `Sampler.clear_prefixes` called, since a beginning that is
      known already is not computed again;
    - no client gives up waiting. Once its wave has begun, a request is done to its end even if its client has gone, so
      that its neighbours get what they would.

    A rollout that neither asks nor leaves holds up all others: whoever runs it has to set it a limit, and to leave.
    """

    ends_early = False

    def __init__(self) -> None:
        self._active: set[str] = set()
        self._lock = threading.Lock()
        self._changed: Callable[[], None] = lambda: None

    def enter(self, *keys: str) -> None:
        """Let keys take part: the next wave waits for a request of each."""
        with self._lock:
            self._active.update(keys)

    def leave(self, key: str) -> None:
        """Say that a key will ask no more. One that has left already may leave again."""
        with self._lock:
            self._active.discard(key)
        self._changed()

    @property
    def active(self) -> list[str]:
        """Keys that take part, sorted."""
        with self._lock:
            return sorted(self._active)

    def require(self, key: str) -> None:
        """Refuse keys that have not entered."""
        if key not in self._active:
            raise NotEnteredError(f"the key {key!r} takes no part in the waves: it has not entered, or has left")

    def due(self, waiting: Sequence[Waiting], under_way: int) -> Sequence[int]:
        """All that wait, as soon as all that are active do."""
        with self._lock:
            if under_way or not self._active <= {each.key for each in waiting}:
                return ()
            return sorted(range(len(waiting)), key=lambda place: (waiting[place].key, waiting[place].number))

    def notify(self, changed: Callable[[], None]) -> None:
        """Take what wakes the loop."""
        self._changed = changed
