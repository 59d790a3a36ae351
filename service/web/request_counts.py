"""What a service counts of its requests: how many, how long they took, how they ended, and the newest errors."""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

BUCKETS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds, as Prometheus' histograms have
_KEPT_ERRORS = 30
_INTERVAL = 5.0  # seconds that a rate is a mean over, at least
_HISTORY = 600.0  # seconds of rates that are kept


@dataclass
class Duration:
    """How long requests took.

    Attributes:
        buckets: how many took no longer than each of `BUCKETS`, and how many took longer than the last; each request
            is in one of them.
        seconds: of all together.
    """

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count a request."""
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    @property
    def count(self) -> int:
        """How many requests there were."""
        return sum(self.buckets)


@dataclass(frozen=True)
class ToldError:
    """An error as a client was told it.

    Attributes:
        time: seconds since 1970.
        request: method and path, such as `POST /v1/completions`.
        status: HTTP status; 200 where a promise failed.
        text: what was said.
    """

    time: float
    request: str
    status: int
    text: str


class RequestCounts:
    """Counts of all requests. Only the thread of the server's event loop may use it."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, int], int] = {}  # by route, method, status
        self.durations: dict[str, Duration] = {}  # by route
        self.errors: deque[ToldError] = deque(maxlen=_KEPT_ERRORS)  # oldest first
        self.failures: dict[str, int] = {}  # errors that clients were told, by whose fault they are: user, server
        self.open = 0

    def end(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        at = route, method, status
        self.requests[at] = self.requests.get(at, 0) + 1
        if route not in self.durations:
            self.durations[route] = Duration()
        self.durations[route].add(seconds)

    def fail(self, request: str, status: int, text: str, server: bool) -> None:
        """Note an error that a client was told."""
        whose = "server" if server else "user"
        self.failures[whose] = self.failures.get(whose, 0) + 1
        self.errors.append(ToldError(time.time(), request, status, text))


class TokenRates:
    """Tokens a second over the last minutes, of counts that only grow. `note` them whenever there is an occasion.

    Args:
        clock: tells seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._noted: deque[tuple[float, int, int]] = deque([(clock(), 0, 0)])

    def note(self, sampled: int, trained: int) -> None:
        """Take the counts of now."""
        now = self._clock()
        if now - self._noted[-1][0] < _INTERVAL:
            return
        self._noted.append((now, sampled, trained))
        while now - self._noted[0][0] > _HISTORY and len(self._noted) > 2:
            self._noted.popleft()

    def now(self) -> tuple[float, float]:
        """Return tokens a second, sampled and trained, over the last interval."""
        if len(self._noted) < 2:
            return 0.0, 0.0
        before, last = self._noted[-2], self._noted[-1]
        seconds = last[0] - before[0]
        return (last[1] - before[1]) / seconds, (last[2] - before[2]) / seconds

    def history(self, parts: int = 120) -> list[tuple[float, float]]:
        """Return the rates of equal parts of the last minutes, oldest first; what was not noted apart is spread out."""
        now, wide = self._clock(), _HISTORY / parts
        found = [[0.0, 0.0] for _ in range(parts)]
        noted = list(self._noted)
        for (begin, *before), (end, *after) in pairwise(noted):
            for place in range(parts):
                left = now - _HISTORY + place * wide
                shared = min(end, left + wide) - max(begin, left)
                if shared > 0:
                    for kind in (0, 1):
                        found[place][kind] += (after[kind] - before[kind]) * shared / (end - begin) / wide
        return [(sampled, trained) for sampled, trained in found]
