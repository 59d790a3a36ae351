"""Beginnings of rows: the longest one is found, under its own weights only, and memory stays within its limit."""

from dataclasses import dataclass

import numpy

from llm.prefix_cache import PrefixCache, begins_alike, common_length


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


def test_rows_that_share_a_beginning_hold_the_same_whatever_else_begins_so():
    cache = PrefixCache()
    for last in (3, 5, 7):
        cache.add("a", row(1, 2, last), Held(3))
    held = [cache.find("a", row(1, 2, last)) for last in (2, 4, 6, 8)]
    assert held[0].length == 2 and all(each is held[0] for each in held)


def test_finds_what_a_look_at_all_finds():
    draw = numpy.random.default_rng(0)
    cache, known = PrefixCache(), {}
    for _ in range(300):
        tokens = draw.integers(0, 3, draw.integers(1, 8))
        for each in [each for each in known if each == tuple(tokens[: len(each)])]:
            del known[each]
        known[tuple(tokens)] = tokens
        cache.add("a", tokens, Held(len(tokens)))
        asked = draw.integers(0, 3, 6)
        found = cache.find("a", asked)
        assert (found.length if found else 0) == max(common_length(each, asked) for each in known.values())


def test_begins_alike():
    first = row(1, 2, 3)
    assert [begins_alike(first, row(*other), 2) for other in [(1, 2, 4), (1, 2), (1,), (0, 2, 3)]] == [1, 1, 0, 0]
    assert begins_alike(first, row(), 0)


def test_common_length():
    assert [common_length(row(1, 2, 3), row(*other)) for other in [(1, 2, 3, 4), (1, 2), (2,), ()]] == [3, 2, 0, 0]
