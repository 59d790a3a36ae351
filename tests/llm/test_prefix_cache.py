"""Beginnings of rows: the longest one is found, under its own weights only, and memory stays within its limit."""

from dataclasses import dataclass

import numpy

from llm.prefix_cache import PrefixCache, common_length


@dataclass(frozen=True)
class Held:
    """A prefix of 10 bytes a token."""

    length: int

    def cut(self, length):
        return self if length == self.length else Held(length)

    def nbytes(self):
        return 10 * self.length


def row(*tokens):
    return numpy.array(tokens)


def test_the_longest_beginning_of_the_same_weights():
    cache = PrefixCache()
    cache.add("a", row(1, 2, 3), Held(3))
    cache.add("b", row(1, 2, 3, 4), Held(4))
    cache.add("a", row(1, 9), Held(2))
    assert cache.find("a", row(1, 2, 3, 4)).length == 3
    assert cache.find("b", row(1, 2, 5)).length == 2
    assert cache.find("a", row(7, 1)) is None and cache.find("c", row(1, 2)) is None and cache.find("a", row()) is None
    assert cache.find("a", row(1, 2, 8)) is cache.find("a", row(1, 2, 9)), "rows that share it hold the same"


def test_memory_stays_within_its_limit():
    cache = PrefixCache(limit=70, most=3)
    cache.add("a", row(1, 1), Held(2))
    cache.add("a", row(2, 2, 2), Held(3))
    cache.find("a", row(1, 1))  # used last
    cache.add("a", row(3, 3, 3), Held(3))
    assert (len(cache), cache.bytes) == (2, 50) and cache.find("a", row(2, 2)) is None
    cache.add("a", row(1, 1, 1, 1), Held(4))  # begins with a known one, which it stands for too
    assert (len(cache), cache.bytes) == (2, 70) and cache.find("a", row(1, 1)).length == 2
    cache.add("a", row(*range(8)), Held(8))
    assert cache.bytes == 70, "what is larger than the limit is not kept"
    for token in range(10, 15):
        cache.add("a", row(token), Held(1))
    assert len(cache) == 3
    cache.clear()
    assert (len(cache), cache.bytes) == (0, 0)


def test_common_length():
    assert [common_length(row(1, 2, 3), row(*other)) for other in [(1, 2, 3, 4), (1, 2), (2,), ()]] == [3, 2, 0, 0]
