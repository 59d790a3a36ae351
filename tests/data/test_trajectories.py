"""Answers of a rollout become rows of the ids that were sampled: what goes on is one row, what doesn't another."""

from dataclasses import dataclass

import pytest

from data.trajectories import trajectory_of


@dataclass(frozen=True)
class Said:
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    finish: str = "stop"
    version: str = "v1"

    def __post_init__(self):
        if not self.logprobs:
            object.__setattr__(self, "logprobs", tuple(-0.5 * token for token in self.token_ids))


def rows_of(*turns):
    return [(row.ids, row.sampled, row.logprobs) for row in trajectory_of(turns).rows]


def test_ids_are_kept_as_sampled_and_a_turn_that_goes_on_joins_the_row():
    """E1: [97, 98] stays two ids, whatever the tokenizer makes of their text. E2: what a tool says has no weight."""
    found = trajectory_of([Said((1, 2), (97, 98, 9)), Said((1, 2, 97, 98, 9, 50, 51, 3), (7, 9))])
    (row,) = found.rows
    assert row.ids == [1, 2, 97, 98, 9, 50, 51, 3, 7, 9]
    assert row.sampled == [False, False, True, True, True, False, False, False, True, True]
    assert row.logprobs == [0, 0, -48.5, -49.0, -4.5, 0, 0, 0, -3.5, -4.5]
    assert (found.turns, found.tokens, found.splits, row.turns) == (2, 5, 0, 2)


def test_another_history_is_another_row():
    """A template that drops thoughts, an edited history, a retry of the same prompt: both answers count."""
    thoughts = trajectory_of([Said((1,), (40, 41, 9)), Said((1, 41, 9, 3), (7,))])
    assert [row.ids for row in thoughts.rows] == [[1, 40, 41, 9], [1, 41, 9, 3, 7]]
    assert (thoughts.splits, thoughts.tokens) == (1, 4)
    twice = trajectory_of([Said((1, 2), (5,)), Said((1, 2), (5,))])
    assert [row.ids for row in twice.rows] == [[1, 2, 5], [1, 2, 5]] and twice.tokens == 2 and twice.splits == 1


def test_each_of_several_branches_goes_on_from_its_own_row():
    first, second = Said((1, 2), (5,)), Said((1, 2), (6,))
    assert [ids for ids, _, _ in rows_of(first, second, Said((1, 2, 6, 3), (7,)), Said((1, 2, 5, 3), (8,)))] == [
        [1, 2, 5, 3, 8],
        [1, 2, 6, 3, 7],
    ]
    # A second answer to a turn that has gone on already: what was sampled before is only read there.
    again = rows_of(first, Said((1, 2, 5, 3), (7,)), Said((1, 2, 5, 4), (8,)))
    assert again[1][:2] == ([1, 2, 5, 4, 8], [False, False, False, False, True])


def test_what_was_cut_off_or_cancelled_is_counted():
    found = trajectory_of([Said((1,), (5, 6), finish="length"), Said((1,), (7,), finish="cancelled"), Said((1,), ())])
    assert (found.cut_off, found.cancelled, found.turns) == (1, 1, 1) and found.rows[0].ids == [1, 5, 6]


def test_a_row_says_which_weights_it_was_sampled_from():
    (row,) = trajectory_of([Said((1,), (5,)), Said((1, 5, 2), (6,), version="v2"), Said((1, 5, 2, 6), (7,))]).rows
    assert row.versions == ["v1", "v2"]


def test_ids_without_logprobs_are_refused():
    with pytest.raises(ValueError, match="2 sampled ids with 1 log-probabilities"):
        trajectory_of([Said((1,), (5, 6), (-1.0,))])
