"""Near datasets count where they have helped on datasets left out, and only there."""

from pathlib import Path

import numpy as np

from data.performance_table import PerformanceTable
from evaluation.ranking.few_results import mean_ranks
from evaluation.ranking.related_datasets import related_shift


def table(kind: np.ndarray, told: np.ndarray, seed: int = 0) -> PerformanceTable:
    """Models of two kinds on datasets of two kinds; distances tell `told`."""
    draw = np.random.default_rng(seed)
    count = len(kind)
    values = 0.3 * draw.normal(size=(20, 1)) + np.outer(np.where(np.arange(20) % 2, 1.0, -1.0), kind)
    values = values + 0.2 * draw.normal(size=(20, count))
    names = [f"d{number}" for number in range(count)]
    distances = {(a, b): 1.0 + 3.0 * abs(told[i] - told[j]) for i, a in enumerate(names) for j, b in enumerate(names)}
    return PerformanceTable(
        path=Path("t.csv"), models=tuple(f"m{m}" for m in range(20)), datasets=tuple(names), values=values,
        metrics=("acc",) * count, distances=distances,
    )  # fmt: skip


def test_distances_that_tell_the_kind_rank_the_models_of_a_new_dataset():
    kind = np.tile([1.0, -1.0], 8)
    found = table(kind, kind)
    for target in (0, 1):
        shift, name = related_shift(found, target)
        static = mean_ranks(np.delete(found.values, target, axis=1))
        score = (static - static.mean()) / static.std() + shift
        assert name == "distances"
        truth = found.values[:, target]
        assert np.corrcoef(score, truth)[0, 1] > 0.7 > 0.4 + np.corrcoef(static, truth)[0, 1]


def test_distances_that_tell_nothing_change_nothing():
    kind = np.tile([1.0, -1.0], 8)
    for seed in range(8):
        told = np.random.default_rng(seed).normal(size=16)
        noise = table(np.zeros(16), told, seed)
        shift, name = related_shift(noise, 3)
        assert name is None and not shift.any()
    nothing = table(kind[:4], kind[:4])
    assert related_shift(nothing, 0)[1] is None  # too few datasets to see a gain


def test_the_truth_of_the_target_is_not_read():
    kind = np.tile([1.0, -1.0], 8)
    found = table(kind, kind)
    before = related_shift(found, 2)[0]
    found.values[:, 2] = np.random.default_rng(9).normal(size=20)
    np.testing.assert_array_equal(related_shift(found, 2)[0], before)
