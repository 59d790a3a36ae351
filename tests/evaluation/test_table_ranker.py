"""The table ranker finds planted structure, finds nothing in noise, and never sees what it must predict."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import weightedtau

from data.data_error import DataError
from data.performance_table import PerformanceTable
from evaluation.ranking.table_protocol import static_scores
from evaluation.ranking.table_ranker import TableRanker


def planted(seed: int = 0, models: int = 24, datasets: int = 10, missing: float = 0.2) -> PerformanceTable:
    """Models of two families, datasets of two kinds; each family is good on one kind. Distances tell the kinds."""
    draw = np.random.default_rng(seed)
    family, kind = np.arange(models) % 2, np.arange(datasets) % 2
    skill = draw.normal(size=models)
    values = 0.5 * skill[:, None] + 1.5 * (family[:, None] == kind) + 0.2 * draw.normal(size=(models, datasets))
    values[draw.random(values.shape) < missing] = np.nan
    names = [f"d{number}" for number in range(datasets)]
    return PerformanceTable(
        path=Path("planted.csv"),
        models=tuple(f"m{number:02d}" for number in range(models)),
        datasets=tuple(names),
        values=values,
        metrics=("acc",) * datasets,
        model_columns={"family": tuple("ab"[index] for index in family)},
        distances={
            (a, b): 0.1 * (a != b) + 2.0 * (kind[i] != kind[j]) + 0.05 * abs(i - j)
            for i, a in enumerate(names) for j, b in enumerate(names)
        },
    )  # fmt: skip


def leave_one_out(table: PerformanceTable) -> dict[str, np.ndarray]:
    found = {}
    for dataset in table.datasets:
        found[dataset] = TableRanker(trees=30).fit(table, [d for d in table.datasets if d != dataset]).predict(dataset)
    return found


def mean_tau(table: PerformanceTable, scores: dict[str, np.ndarray]) -> float:
    taus = []
    for dataset, score in scores.items():
        truth = table.values[:, table.datasets.index(dataset)]
        known = np.isfinite(truth)
        taus.append(weightedtau(score[known], truth[known]).statistic)
    return float(np.mean(taus))


def test_planted_structure_is_found_where_static_cannot():
    table = planted()
    static = mean_tau(table, {name: static_scores(table, name) for name in table.datasets})
    ranker = mean_tau(table, leave_one_out(table))
    assert ranker > 0.75 and ranker > static + 0.3


def test_a_score_is_used_as_far_as_it_helped_on_other_datasets():
    table = replace(planted(), distances={}, model_columns={})
    draw = np.random.default_rng(1)
    truth = np.nan_to_num(table.values) + 0.2 * draw.normal(size=table.values.shape)
    without = mean_tau(table, leave_one_out(table))
    helped = mean_tau(table, leave_one_out(replace(table, scores={"good": truth})))
    noise = draw.normal(size=table.values.shape)
    assert helped > without + 0.2
    assert mean_tau(table, leave_one_out(replace(table, scores={"noise": noise}))) > without - 0.1


def test_nothing_is_found_in_shuffled_values():
    taus = []
    for seed in range(3):
        table = planted(seed, missing=0.0)
        draw = np.random.default_rng(seed)
        shuffled = np.stack([draw.permutation(column) for column in table.values.T], axis=1)
        table = replace(table, values=shuffled)
        taus.append(mean_tau(table, leave_one_out(table)))
    assert abs(np.mean(taus)) < 0.15


@pytest.mark.parametrize("change", ["shuffled", "missing", "huge"])
def test_values_of_the_target_change_nothing(change):
    table = planted()
    values = table.values.copy()
    column = {
        "shuffled": np.random.default_rng(3).permutation(values[:, 4]),
        "missing": np.full(len(values), np.nan),
        "huge": np.arange(len(values)) * 1e6,
    }[change]
    values[:, 4] = column
    train = [name for name in table.datasets if name != "d4"]
    expected = TableRanker().fit(table, train).predict("d4")
    np.testing.assert_array_equal(TableRanker().fit(replace(table, values=values), train).predict("d4"), expected)


def test_a_training_pair_is_not_described_by_its_own_value():
    from evaluation.ranking.table_ranker import _known_pairs, _pair_features

    table = replace(
        planted(missing=0.0), model_columns={"source": tuple(f"d{number % 10}" for number in range(24))},
        dataset_columns={"words": tuple(f"{'pq'[number % 2]} r{number // 4}" for number in range(10))},
    )  # fmt: skip
    order, train = np.arange(24), np.arange(10) != 9

    def describe(values: np.ndarray) -> np.ndarray:
        known = _known_pairs(replace(table, values=values), order, list(table.datasets), train)
        names, features = _pair_features(known)
        assert {"born here", "exchange", "origin distance", "kind source", "mean rank, words 0.3"} <= set(names)
        return features[:, 2]

    values = table.values.copy()
    values[:, 2] = np.random.default_rng(0).permutation(values[:, 2])
    np.testing.assert_array_equal(describe(values), describe(table.values))


def test_order_of_models_and_datasets_does_not_matter():
    table = replace(planted(), scores={"noise": np.random.default_rng(5).normal(size=(24, 10))})
    draw = np.random.default_rng(0)
    models, datasets = draw.permutation(24), draw.permutation(10)
    other = replace(
        table, models=tuple(table.models[index] for index in models),
        datasets=tuple(table.datasets[index] for index in datasets), values=table.values[models][:, datasets],
        model_columns={name: tuple(column[index] for index in models) for name, column in table.model_columns.items()},
        scores={name: score[models][:, datasets] for name, score in table.scores.items()},
    )  # fmt: skip
    train = [name for name in table.datasets if name != "d3"]
    expected = TableRanker().fit(table, train).predict("d3")
    np.testing.assert_allclose(TableRanker().fit(other, train).predict("d3"), expected[models], atol=1e-12)


def test_a_model_without_values_is_scored_by_its_family():
    table = planted()
    values = table.values.copy()
    values[:2] = np.nan  # one of family a, one of family b
    table = replace(table, values=values)
    for dataset, better in (("d0", 0), ("d1", 1)):
        scores = TableRanker().fit(table, [name for name in table.datasets if name != dataset]).predict(dataset)
        assert np.isfinite(scores).all() and scores[better] > scores[1 - better]


def test_where_static_is_all_there_is_to_know_little_is_lost():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(24, 1)) + 0.5 * draw.normal(size=(24, 10))
    for table in (planted(), replace(planted(), distances={}, model_columns={})):
        table = replace(table, values=values)
        static = mean_tau(table, {name: static_scores(table, name) for name in table.datasets})
        assert mean_tau(table, leave_one_out(table)) > static - 0.02


@pytest.mark.filterwarnings("error")
def test_ties_constant_datasets_and_empty_columns_give_finite_scores():
    table = planted()
    values = table.values.copy()
    values[:, 1], values[:, 2] = 0.5, np.where(np.isnan(values[:, 2]), np.nan, np.round(values[:, 2]))
    columns = {"family": table.model_columns["family"], "params": ("",) * 23 + ("7",), "nan": ("nan",) * 24}
    table = replace(table, values=values, model_columns=columns, scores={"none": np.full(values.shape, np.nan)})
    for score in leave_one_out(table).values():
        assert np.isfinite(score).all()


def test_equal_models_get_equal_scores_and_a_seed_decides_the_rest():
    table = planted(missing=0.0)
    values = table.values.copy()
    values[3] = values[1]
    table = replace(table, values=values)
    train = list(table.datasets[1:])
    scores = TableRanker().fit(table, train).predict("d0")
    assert scores[1] == scores[3]
    np.testing.assert_array_equal(TableRanker().fit(table, train).predict("d0"), scores)
    assert not np.array_equal(TableRanker(seed=1).fit(table, train).predict("d0"), scores)
    assert not np.array_equal(TableRanker(max_rows=50).fit(table, train).predict("d0"), scores)


def test_what_cannot_be_learned_from_is_refused():
    table = planted(datasets=3)
    with pytest.raises(DataError) as caught:
        TableRanker().fit(table, ["d0", "d7"])
    assert str(caught.value) == "the table has no dataset 'd7'; its datasets: d0, d1, d2."
    with pytest.raises(DataError) as caught:
        TableRanker().fit(table, ["d0", "d0"])
    assert str(caught.value) == "a ranker learns from 2 datasets or more; given 1."
    ranker = TableRanker(trees=5).fit(table, ["d0", "d1"])
    assert np.isfinite(ranker.predict("d2")).all()
    with pytest.raises(DataError) as caught:
        ranker.predict("d9")
    assert str(caught.value) == "the table has no dataset 'd9'; its datasets: d0, d1, d2."
    with pytest.raises(DataError) as caught:
        ranker.predict("d1")
    assert str(caught.value) == "'d1' was in the training; leave it out of train_datasets to predict it."
