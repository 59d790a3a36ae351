"""Losses of pairs of answers, against their formulas."""

import math

import pytest
import torch

from model.preference_loss import preference_loss, sums_of_rows

MARGINS, LENGTHS = torch.tensor([2.0, -1.0, 0.5, 1.0]), torch.tensor([2, 1, 1, 4])  # two pairs: 1.5 and -2 apart


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ({"beta": 0.5}, -(math.log(sigmoid(0.75)) + math.log(sigmoid(-1))) / 2),
        (
            {"beta": 0.5, "label_smoothing": 0.1},
            -(0.9 * math.log(sigmoid(0.75)) + 0.1 * math.log(sigmoid(-0.75))
              + 0.9 * math.log(sigmoid(-1)) + 0.1 * math.log(sigmoid(1))) / 2,
        ),
        ({"loss": "hinge", "beta": 0.5}, (0.25 + 2) / 2),
        # Per token: 1 - .5 and -1 - .25, drawn to 1 / (2 beta) = 1.
        ({"loss": "ipo", "beta": 0.5}, ((0.5 - 1) ** 2 + (-1.25 - 1) ** 2) / 2),
    ],
)  # fmt: skip
def test_losses_are_their_formulas(words, wanted):
    assert preference_loss(MARGINS, LENGTHS, **words).item() == pytest.approx(wanted, rel=1e-6)


def test_rows_are_added_up_by_themselves():
    values = torch.arange(6.0, requires_grad=True)
    sums = sums_of_rows(values, torch.tensor([1, 3, 2]))
    assert sums.tolist() == [0, 6, 9]
    (sums * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert values.grad.tolist() == [1, 2, 2, 2, 3, 3]
