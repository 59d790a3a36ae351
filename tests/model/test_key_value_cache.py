"""Rows of a cache that are copied, moved, cut and of very different lengths, against each row alone."""

import pytest
import torch

from model.causal_lm import CausalLM, DecoderShape, PackedRows
from model.key_value_cache import reading_cost

T0 = DecoderShape(vocabulary=261, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_width=64, context=2048)


class Rows:
    """Rows that grow in a cache, each checked against itself in one pass."""

    def __init__(self, window=None, **sizes):
        self.model = CausalLM(DecoderShape(**(vars(T0) | {"window": window}))).draw(0, std=0.1)
        self.cache = self.model.new_cache(**sizes)
        self.tokens: dict[int, torch.Tensor] = {}
        self.draw = torch.Generator().manual_seed(0)

    def put(self, slot: int, length: int) -> int:
        """Give a slot so many new tokens."""
        self.grow([slot], [length])
        return slot

    @torch.no_grad()
    def grow(self, slots, lengths) -> None:
        new = [torch.randint(0, 261, (length,), generator=self.draw) for length in lengths]
        found = self.model.hidden(torch.cat(new), self.cache.rows(slots, lengths), cache=self.cache).split(lengths)
        for slot, tokens, states in zip(slots, new, found, strict=True):
            self.tokens[slot] = row = torch.cat([self.tokens.get(slot, tokens[:0]), tokens])
            assert self.cache.length(slot) == len(row)
            whole = self.model.hidden(row, PackedRows.of([len(row)]))
            assert (states - whole[-len(tokens) :]).abs().max() < 1e-5

    def check(self) -> None:
        """One more token of each row, in the order of the memory."""
        slots = list(self.cache.slots)
        self.grow(slots, [1] * len(slots))


@pytest.mark.parametrize("window", [None, 5])
def test_rows_of_very_different_lengths(window):
    rows = Rows(window, slots=2, capacity=16)  # both grow
    for length in (3, 900, 4, 1, 700, 2):
        rows.put(rows.cache.take(), length)
    rows.check()
    slots = rows.cache.slots
    rows.cache.arrange(sorted(slots, key=rows.cache.length))
    assert [rows.cache.length(slot) for slot in rows.cache.slots] == [2, 3, 4, 5, 701, 901]
    rows.check()
    rows.cache.free(rows.cache.slots[0])
    rows.check()
    with pytest.raises(ValueError, match="each slot in use once"):
        rows.cache.arrange(slots)


@pytest.mark.parametrize("window", [None, 5])
def test_forks_copies_and_cut_prefixes(window):
    rows = Rows(window, slots=1, capacity=4)
    first = rows.put(rows.cache.take(), 9)
    prefix = rows.cache.share(first)
    assert prefix.cut(9) is prefix and prefix.nbytes() == 2 * 2 * 2 * 9 * 8 * 4
    for begun in (rows.cache.take(prefix), rows.cache.take_copy(prefix), rows.cache.fork(first)):
        rows.tokens[begun] = rows.tokens[first]
    shorter = rows.cache.take(prefix.cut(6))
    rows.tokens[shorter] = rows.tokens[first][:6]
    rows.check()
    after = rows.cache.fork(shorter)  # its prefix stays shared
    rows.tokens[after] = rows.tokens[shorter]
    assert rows.cache.prefix(after) is rows.cache.prefix(shorter) and rows.cache.own_length(after) == 1
    rows.check()
    rows.cache.crop(after, 7)  # its prefix and one more
    rows.tokens[after] = rows.tokens[after][:7]
    rows.check()
    with pytest.raises(ValueError, match="holds 8 tokens; it can't be cropped to 5"):
        rows.cache.crop(after, 5)
    with pytest.raises(ValueError, match="a prefix of 9 tokens has no beginning of 10"):
        prefix.cut(10)


def test_reading_cost():
    assert reading_cost([]) == 0 and reading_cost([5, 5]) == 400 + 10
    assert reading_cost([1000, 1000, 10, 10]) == 800 + 2000 + 20, "two runs"
    mixed, sorted_ = reading_cost([1000, 10, 1000, 10]), reading_cost([10, 10, 1000, 1000])
    assert mixed > sorted_ == 2820
