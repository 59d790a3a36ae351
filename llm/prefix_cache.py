"""Beginnings of rows that were computed already, kept for other rows that begin with the same tokens.

They are kept by the weights that they were made with, so that no adapter ever reads what another one has written.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy

from model.key_value_cache import SharedPrefix


@dataclass(eq=False)
class _Entry:
    weights: object
    tokens: numpy.ndarray
    prefix: SharedPrefix
    cuts: dict[int, SharedPrefix]


class PrefixCache:
    """Beginnings by weights and tokens; the ones longest unused are dropped first.

    Args:
        limit: bytes they may take.
        most: beginnings at most: each is compared with each new prompt.
    """

    def __init__(self, limit: int = 256 * 2**20, most: int = 256) -> None:
        self._limit, self._most, self._bytes = limit, most, 0
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._next = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """Memory taken."""
        return self._bytes

    def find(self, weights: object, tokens: numpy.ndarray) -> SharedPrefix | None:
        """Return what is known of the longest beginning of tokens; None where nothing is.

        Args:
            weights: identity of the weights.
            tokens: (T,) int64.

        Returns:
            A prefix; the same one for the same beginning, so that rows that share it are found.
        """
        best, found = 0, None
        for number, entry in self._entries.items():
            if entry.weights == weights:
                length = common_length(entry.tokens, tokens)
                if length > best:
                    best, found = length, number
        if found is None:
            return None
        self._entries.move_to_end(found)
        entry = self._entries[found]
        return entry.cuts.setdefault(best, entry.prefix.cut(best))

    def add(self, weights: object, tokens: numpy.ndarray, prefix: SharedPrefix) -> None:
        """Keep a beginning. Known ones that it begins with are dropped for it.

        Args:
            weights: identity of the weights.
            tokens: (T,) int64.
            prefix: what was computed of them.
        """
        if prefix.nbytes() > self._limit:
            return
        for number, entry in list(self._entries.items()):
            if entry.weights == weights and common_length(entry.tokens, tokens) == len(entry.tokens):
                self._drop(number)
        self._entries[self._next] = _Entry(weights, tokens, prefix, {prefix.length: prefix})
        self._next += 1
        self._bytes += prefix.nbytes()
        while self._bytes > self._limit or len(self._entries) > self._most:
            self._drop(next(iter(self._entries)))

    def keep(self, weights: Callable[[object], bool]) -> None:
        """Forget beginnings of other weights.

        Args:
            weights: says of an identity of weights whether their beginnings are kept.
        """
        for number, entry in list(self._entries.items()):
            if not weights(entry.weights):
                self._drop(number)

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()
        self._bytes = 0

    def _drop(self, number: int) -> None:
        self._bytes -= self._entries.pop(number).prefix.nbytes()


def common_length(first: numpy.ndarray, second: numpy.ndarray) -> int:
    """Return how many tokens two rows have in common at their beginning."""
    length = min(len(first), len(second))
    differ = numpy.flatnonzero(first[:length] != second[:length])
    return int(differ[0]) if len(differ) else length
