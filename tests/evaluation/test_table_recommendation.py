"""A recommendation from a table: what is taken, what is known of units, and a probe beside the results."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.performance_table import PerformanceTable
from evaluation.ranking.table_recommendation import (
    recommend_from_table,
    recommendation_lines,
    static_places,
    value_range,
)


def two_kinds(models: int = 12, datasets: int = 12) -> PerformanceTable:
    draw = np.random.default_rng(0)
    kind = np.where(np.arange(models) % 2, -1.0, 1.0)
    good = np.where(np.arange(datasets) % 3 == 2, -1.0, 1.0)
    values = 0.7 + 0.05 * np.outer(kind, good) + 0.005 * draw.normal(size=(models, datasets))
    return PerformanceTable(
        path=Path("t.csv"), models=tuple(f"m{m}" for m in range(models)),
        datasets=tuple(f"d{d}" for d in range(datasets)), values=values, metrics=("acc",) * datasets,
    )  # fmt: skip


def test_the_next_after_a_disappointment_is_of_the_other_kind():
    table = two_kinds()
    first = recommend_from_table(table, "new")
    assert int(first.next[1:]) % 2 == 0 and first.worth_measuring() and first.second is not None
    after = recommend_from_table(table, "new", {first.next: 0.65})
    assert int(after.next[1:]) % 2 == 1 and after.expected_gain > after.worth
    found = recommend_from_table(table, "new", {first.next: 0.65, after.next: 0.75})
    assert found.models[0].name == after.next and found.expected_gain < after.expected_gain / 3
    best = [model.name for model in found.models[:6]]
    assert all(int(name[1:]) % 2 for name in best)


def test_values_of_the_dataset_itself_are_known_and_teach_nothing_else():
    table = two_kinds()
    hidden = table.values.copy()
    hidden[1:, 5] = np.nan
    few = recommend_from_table(replace(table, values=hidden), "d5")
    assert few.known == {"m0": table.values[0, 5]}
    without = replace(
        table, datasets=tuple(np.delete(table.datasets, 5)), values=np.delete(table.values, 5, 1), metrics=("acc",) * 11
    )
    same = recommend_from_table(without, "d5", few.known)
    assert [(m.name, m.value, m.low) for m in same.models] == [(m.name, m.value, m.low) for m in few.models]


def test_a_probe_stands_in_for_results():
    table = two_kinds()
    probe = {name: 0.5 + 0.1 * (int(name[1:]) % 2) for name in table.models[:10]}  # the other kind's dataset
    found = recommend_from_table(table, "new", covariate=probe)
    assert int(found.models[0].name[1:]) % 2 == 1
    assert {model.name for model in found.models} == set(table.models)
    past = 1 - table.values  # a probe that was always wrong
    doubted = recommend_from_table(table, "new", covariate=probe, past_covariates=past)
    assert int(doubted.models[0].name[1:]) % 2 == 0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.2, 0.9]], (0.0, 1.0, 0.01)),
        ([[20.5, 91.25]], (0.0, 100.0, 1.0)),
        ([[1.0, 66.0]], (0.0, np.inf, 1.0)),
        ([[-3.2, -0.1]], (-np.inf, 0.0, 1.0)),
        ([[-0.2, 0.9]], (-np.inf, np.inf, 1.0)),
        ([[np.nan, np.nan]], (-np.inf, np.inf, 1.0)),
    ],
)
def test_range_of_a_unit(values, expected):
    table = PerformanceTable(Path("t.csv"), ("a",), ("x", "y"), np.array(values), ("acc", "acc"))
    assert value_range(table, "acc") == expected


def test_equals_share_a_static_place():
    values = np.array([[3.0, 3, 1], [2, 2, 9], [2, 2, 9], [np.nan, np.nan, 5]])
    table = PerformanceTable(Path("t.csv"), ("a", "b", "c", "d"), ("x", "y", "z"), values, ("acc",) * 3)
    assert static_places(table, "z") == [1, 2, 2, None]


def test_lines_show_small_units_in_full():
    table = two_kinds()
    small = replace(table, values=(table.values - 0.7) / 100, metrics=("mcc",) * 12)
    lines = recommendation_lines(recommend_from_table(small, "new", {"m0": 0.0005}), small)
    row = next(line for line in lines if " m0 " in line).split()
    assert row[2] == "0.000500"
