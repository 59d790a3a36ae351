"""Beginnings of rows that were computed already, kept for other rows that begin with the same tokens.

They are kept by the weights that they were made with, so that no adapter ever reads what another one has written.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

import numpy

from model.key_value_cache import SharedPrefix

_TOKEN = 8  # bytes of a token in a key


@dataclass(eq=False)
class _Entry:
    """A beginning.

    Attributes:
        weights: identity of the weights.
        key: its tokens, as bytes.
        prefix: what was computed of them.
        size: bytes that this takes.
    """

    weights: object
    key: bytes
    prefix: SharedPrefix
    size: int


class PrefixCache:
    """Beginnings by weights and tokens; the ones longest unused are dropped first.

    Those of the same weights are in the order of their tokens. What has most in common with a row then lies just before
    it or just behind, wherever the row would be, and what it begins with lies before it.

    Args:
        limit: bytes they may take.
        most: beginnings at most.
    """

    def __init__(self, limit: int = 256 * 2**20, most: int = 256) -> None:
        self._limit, self._most, self._bytes = limit, most, 0
        self._entries: OrderedDict[_Entry, None] = OrderedDict()  # the one longest unused is the first
        self._sorted: dict[object, list[_Entry]] = {}
        # Beginnings that were found and are still in use, so that rows that share one hold the same.
        self._found: WeakValueDictionary[tuple[object, bytes], SharedPrefix] = WeakValueDictionary()

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
            A prefix; the same one for the same beginning as long as somebody has it, so that rows that share it are
            found.
        """
        key, rows = _key_of(tokens), self._sorted.get(weights, [])
        place = _place_of(key, rows)
        near = [(_common(entry.key, key), entry) for entry in rows[max(place - 1, 0) : place + 1]]
        length, entry = max(near, key=lambda each: each[0], default=(0, None))
        if entry is None or not length:
            return None
        self._entries.move_to_end(entry)
        name = weights, key[: length * _TOKEN]
        prefix = self._found.get(name)
        if prefix is None:
            prefix = self._found[name] = entry.prefix.cut(length)
        return prefix

    def add(self, weights: object, tokens: numpy.ndarray, prefix: SharedPrefix) -> None:
        """Keep a beginning. Known ones that it begins with are dropped for it.

        Args:
            weights: identity of the weights.
            tokens: (T,) int64.
            prefix: what was computed of them.
        """
        new = _Entry(weights, _key_of(tokens), prefix, prefix.nbytes())
        if new.size > self._limit:
            return
        rows = self._sorted.setdefault(weights, [])
        place, known = _place_of(new.key, rows), []
        while place and new.key.startswith(rows[place - 1].key):
            place -= 1
            known.append(rows[place])
        rows.insert(place, new)
        self._entries[new] = None
        self._bytes += new.size
        for entry in known:
            self._drop(entry)
        while self._bytes > self._limit or len(self._entries) > self._most:
            self._drop(next(iter(self._entries)))

    def keep(self, weights: Callable[[object], bool]) -> None:
        """Forget beginnings of other weights.

        Args:
            weights: says of an identity of weights whether their beginnings are kept.
        """
        for each in [each for each in self._sorted if not weights(each)]:
            for entry in list(self._sorted[each]):
                self._drop(entry)

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()
        self._sorted.clear()
        self._bytes = 0

    def _drop(self, entry: _Entry) -> None:
        del self._entries[entry]
        self._bytes -= entry.size
        rows = self._sorted[entry.weights]
        rows.remove(entry)
        if not rows:  # the identity holds the weights
            del self._sorted[entry.weights]


def _key_of(tokens: numpy.ndarray) -> bytes:
    return tokens.astype(numpy.int64, copy=False).tobytes()


def _place_of(key: bytes, rows: list[_Entry]) -> int:
    return bisect_right(rows, key, key=lambda entry: entry.key)


def _common(first: bytes, second: bytes) -> int:
    return common_length(numpy.frombuffer(first, numpy.int64), numpy.frombuffer(second, numpy.int64))


def common_length(first: numpy.ndarray, second: numpy.ndarray) -> int:
    """Return how many tokens two rows have in common at their beginning."""
    length = min(len(first), len(second))
    differ = numpy.flatnonzero(first[:length] != second[:length])
    return int(differ[0]) if len(differ) else length


def begins_alike(first: numpy.ndarray, second: numpy.ndarray, length: int) -> bool:
    """Return whether two rows have at least so many tokens in common at their beginning.

    Of many rows most differ in the last of these, which is looked at before all are compared.
    """
    if length <= 0:
        return True
    if min(len(first), len(second)) < length or first[length - 1] != second[length - 1]:
        return False
    return bool((first[:length] == second[:length]).all())
