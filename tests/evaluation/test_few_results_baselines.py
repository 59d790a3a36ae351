"""Baselines look only at what they measure."""

import numpy as np
import pytest

from evaluation.ranking.few_results_baselines import BASELINES, best_so_far


def table() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    kind = np.repeat([1.0, -1.0], 6)
    sign = np.array([1, 1, -1, 1, -1, 1, 1, -1.0])
    values = np.outer(kind, sign) + 0.1 * draw.normal(size=(12, 8))
    return values[:, :-1], values[:, -1]


@pytest.mark.parametrize("name", BASELINES)
def test_what_is_taken_is_a_candidate_and_later_truth_changes_nothing(name):
    known, truth = table()
    truth[3] = np.nan
    taken = BASELINES[name](known, truth, 0, 5, 0)
    assert len(taken) == 5 and 3 not in taken and taken == BASELINES[name](known, truth, 0, 5, 0)
    assert BASELINES[name](known, truth, 0, 2, 0) == taken[:2]


@pytest.mark.parametrize("name", ["nearest datasets", "factorization"])
def test_two_results_of_two_kinds_lead_to_the_better_kind(name):
    known, truth = table()  # the second kind is the better one
    taken = BASELINES[name](known, truth, 0, 12, 0)
    assert taken[-1] == int(np.argmax(truth)) and len(taken) == 12


def test_best_so_far():
    assert best_so_far([2, 0, 1], np.array([0.5, 0.9, 0.4])) == [2, 0, 1]
    assert best_so_far([1, 0, 2], np.array([0.5, 0.9, 0.4])) == [1, 1, 1]
