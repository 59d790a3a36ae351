"""What was said up to the newest answers of the Responses protocol, so that a client may go on from one by its id."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
_MOST = 10000  # answers that are kept


@dataclass(frozen=True)
class Said:
    """What was said up to and with an answer.

    Attributes:
        before: what was said before, by the answer that this one went on from.
        messages: what came since, the answer at the end.
    """

    before: "Said | None"
    messages: tuple[Json, ...]

    def all(self) -> list[Json]:
        """Return all messages, from the first."""
        parts: list[tuple[Json, ...]] = []
        at: Said | None = self
        while at is not None:
            parts.append(at.messages)
            at = at.before
        return [message for part in reversed(parts) for message in part]


class SaidBefore:
    """Keeps what was said, in memory, for the key that it was said to. One thread may use it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Said] = OrderedDict()

    def keep(self, key: str, id: str, said: Said) -> None:
        """Keep what was said up to an answer; the oldest is forgotten where there are too many.

        Args:
            key: whose conversation it is.
            id: id of the answer.
            said: what was said, the answer included.
        """
        self._kept[key, id] = said
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)

    def find(self, key: str, id: str) -> Said | None:
        """Return what was said up to an answer; None where it is not known, or another's."""
        return self._kept.get((key, id))
