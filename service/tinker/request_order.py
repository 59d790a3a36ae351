"""The order of one model's requests: by their numbers, in whatever order they arrive."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class RequestOrder(Generic[T]):
    """Hands out what comes in by number, one at a time, and holds back what has come too early.

    A number that never comes must not hold up its model for ever, nor may what lies behind it be done as if it had
    come: an optimizer step without its gradients would be wrong without a word. So when a gap has lasted long enough,
    all that is held back is given up, and the order goes on behind it. Time runs only while nothing of the model is at
    work, since a client may wait for an answer before it sends more.

    Args:
        first: number of the first request.
        gap_seconds: how long a gap may last.
        clock: tells seconds.
    """

    def __init__(self, first: int = 1, gap_seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.next, self._gap, self._clock = first, gap_seconds, clock
        self._held: dict[int, T] = {}
        self._at_work = False
        self._since = clock()  # when the model was last at work, or nothing was held

    def __len__(self) -> int:
        return len(self._held)

    def put(self, number: int | None, item: T) -> bool:
        """Take something in.

        Args:
            number: its number; None for the first that nobody has.
            item: what it is.

        Returns:
            Whether it can be done: False where its turn is over, or something else has its number.
        """
        number = self.place(number)
        if number < self.next or number in self._held:
            return False
        if not self._held:
            self._since = self._clock()
        self._held[number] = item
        return True

    def place(self, number: int | None) -> int:
        """Return a number; in place of None the first that nobody has."""
        return max(self._held, default=self.next - 1) + 1 if number is None else number

    @property
    def ready(self) -> bool:
        """Whether `take` gives something."""
        return not self._at_work and self.next in self._held

    @property
    def first(self) -> T:
        """What `take` would give, where anything is ready."""
        return self._held[self.next]

    def take(self) -> T:
        """Return what is next; nothing more is ready until `done`."""
        item = self._held.pop(self.next)
        self.next += 1
        self._at_work = True
        return item

    def done(self) -> None:
        """Say that what was taken has been done."""
        self._at_work, self._since = False, self._clock()

    def given_up(self) -> tuple[int, list[T]]:
        """Return what is held behind a gap that has lasted too long; it is no longer held.

        Returns:
            The number that is missing, and what was held: empty where there is no such gap.
        """
        missing = self.next
        if self._at_work or not self._held or missing in self._held or self._clock() - self._since < self._gap:
            return missing, []
        given_up = [self._held[number] for number in sorted(self._held)]
        self.next = max(self._held) + 1
        self._held.clear()
        return missing, given_up

    def all_held(self) -> list[T]:
        """Return what is held, in its order."""
        return [self._held[number] for number in sorted(self._held)]
