"""Guesses from what followed before: found, repeated to their end, and given up where they are wrong."""

from llm.lookahead import Lookahead


def test_what_followed_before_is_guessed():
    row = Lookahead([1, 2, 3, 4, 5, 6, 7], most=8)
    assert row.guess([], 8) == [] and row.guess([1], 8) == []
    assert (
        row.guess([1, 2, 3], 8) == [4, 5, 6, 7] and row.guess([1, 2, 3], 2) == [4, 5] and row.guess([1, 2, 3], 0) == []
    )
    assert row.guess([1, 2, 3, 9, 1, 2, 3], 8) == [9, 1, 2, 3], "the last time counts"


def test_the_end_is_gone_on_with_from_where_it_began():
    assert Lookahead([5, 5, 5, 5], most=8).guess([], 8) == [5, 5, 5, 5]
    row = Lookahead([1, 2, 3, 1, 2, 3], most=8)
    assert row.guess([], 8) == [1, 2, 3, 1]
    row.tell(4, 4)
    assert row.guess([1, 2, 3, 1, 2], 8) == [3, 1, 2, 3, 1, 2, 3, 1], "more, where all were right"
    row.tell(8, 2)
    assert len(row.guess([1, 2, 3, 1, 2, 3, 1, 2], 8)) == 3


def test_wrong_guesses_make_a_pause():
    row, sampled, made = Lookahead([1, 2, 3] * 3, most=8), [], 0
    for _ in range(100):
        if guess := row.guess(sampled, 8):
            made += 1
            row.tell(len(guess), 0)
        sampled = [*sampled, *([1, 2, 3][len(sampled) % 3 :][:1])]
    assert 3 <= made <= 8


def test_short_rows():
    assert Lookahead([1], most=8).guess([], 8) == [] and Lookahead([1, 1], most=8).guess([1], 8) == []
