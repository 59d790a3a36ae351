"""Counts in words."""

import pytest

from constants.counting import counted


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((0, "epoch"), "0 epochs"),
        ((1, "epoch"), "1 epoch"),
        ((2, "batch"), "2 batches"),
        ((12_000, "step"), "12,000 steps"),
        ((1, "leaf", "leaves"), "1 leaf"),
        ((3, "leaf", "leaves"), "3 leaves"),
    ],
)
def test_a_noun_follows_its_number(given, expected):
    assert counted(*given) == expected
