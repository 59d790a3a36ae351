"""Leave-one-dataset-out: figures that can be checked by hand, nothing seen of the target, one JSON and one text."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.data_error import DataError
from data.performance_table import PerformanceTable
from evaluation.ranking.table_protocol import (
    METRICS,
    add_table_arguments,
    bootstrap_mean,
    evaluate_table,
    results_json,
    run_table,
    static_scores,
    summarize,
    table_lines,
)

NAN = np.nan


class Reader:
    """A ranker that gives back what it was told, and keeps what it was given."""

    def __init__(self, scores: dict[str, list[float]]):
        self.scores, self.seen = scores, []

    def fit(self, table, train_datasets):
        self.seen.append(list(train_datasets))
        return self

    def predict(self, dataset):
        return np.array(self.scores[dataset], dtype=float)


def small() -> PerformanceTable:
    values = np.array([[90.0, 80.0, 10.0], [80.0, 60.0, 20.0], [70.0, 70.0, 30.0], [60.0, NAN, 40.0]])
    return PerformanceTable(
        path=Path("small.csv"), models=("a", "b", "c", "d"), datasets=("x", "y", "z"), values=values,
        metrics=("acc",) * 3, scores={"logme": np.array([[NAN, 3, 1], [NAN, 2, 2], [NAN, 1, NAN], [NAN, 0, NAN]])},
    )  # fmt: skip


def reader() -> Reader:
    return Reader({"x": [4, 3, 2, 1], "y": [3, 1, 2, 9], "z": [4, 3, 2, 1]})


def test_static_is_the_mean_rank_on_other_datasets():
    np.testing.assert_allclose(
        static_scores(small(), "z"), [(3.5 / 4 + 2.5 / 3) / 2, (2.5 / 4 + 0.5 / 3) / 2, 0.4375, 0.125]
    )
    values = small().values.copy()
    values[:, 0] = NAN
    assert static_scores(replace(small(), values=values), "z")[3] == 0.5


def test_each_dataset_is_left_out_once_and_figures_are_right():
    ranker = reader()
    results = evaluate_table(small(), lambda: ranker)
    assert ranker.seen == [["y", "z"], ["x", "z"], ["x", "y"]]
    rows = {(row["dataset"], row["method"]): row for row in results.rows}
    assert set(rows) == {(d, m) for d in "xyz" for m in ("static", "ranker")} | {("y", "logme"), ("z", "logme")}
    assert [rows[name, "ranker"]["models"] for name in "xyz"] == [4, 3, 4]
    assert rows["z", "logme"]["models"] == 2 and rows["z", "logme"]["weighted_kendall"] == pytest.approx(1.0)
    for dataset, tau in (("x", 1.0), ("y", 1.0), ("z", -1.0)):
        assert rows[dataset, "ranker"]["weighted_kendall"] == pytest.approx(tau)
        assert rows[dataset, "ranker"]["pearson"] == pytest.approx(tau)
    assert rows["x", "ranker"]["top1_regret"] == pytest.approx(0.0)
    assert rows["z", "ranker"]["top1_regret"] == pytest.approx(30.0)  # in the unit of the values
    assert rows["x", "ranker"]["ndcg"] == pytest.approx(1.0)


def test_some_datasets_can_be_left_out_only():
    ranker = reader()
    results = evaluate_table(small(), lambda: ranker, datasets=["y"])
    assert ranker.seen == [["x", "z"]] and {row["dataset"] for row in results.rows} == {"y"}


def test_means_and_differences_are_over_all_and_over_scored_datasets():
    results = evaluate_table(small(), reader)
    summary = summarize(results)
    assert summary["all"]["datasets"] == ["x", "y", "z"] and summary["scored"]["datasets"] == ["y", "z"]
    assert summary["all"]["means"]["ranker"]["weighted_kendall"] == pytest.approx(1 / 3)
    assert summary["scored"]["means"]["ranker"]["weighted_kendall"] == pytest.approx(0.0)
    assert summary["all"]["means"]["logme"]["datasets"] == 2
    for metric in METRICS:
        means = summary["all"]["means"]
        found = summary["all"]["differences"][metric]
        assert found["mean"] == pytest.approx(means["ranker"][metric] - means["static"][metric])
        assert found["low"] <= found["mean"] <= found["high"]
    assert summary["scored"]["differences"]["pearson"]["low"] is None
    assert set(summarize(replace(results, table=replace(small(), scores={})))) == {"all"}


def test_bootstrap_interval_has_the_width_of_the_normal_one():
    values = np.random.default_rng(0).normal(0.3, 1.0, 400)
    found = bootstrap_mean(values)
    assert found["mean"] == pytest.approx(values.mean())
    assert (found["high"] - found["low"]) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.05)
    assert bootstrap_mean(values) == found != bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values[:2])["low"] is None and bootstrap_mean(values[:0])["mean"] is None


def test_json_is_plain_and_complete():
    results = evaluate_table(small(), reader)
    plain = json.loads(json.dumps(results_json(results), allow_nan=False))
    assert plain["schema_version"] == 1 and (plain["models"], plain["datasets"], plain["cells"]) == (4, 3, 11)
    assert plain["metrics"] == ["acc"] and len(plain["rows"]) == 8
    assert set(plain["rows"][0]) == {"dataset", "method", "models", *METRICS}
    assert set(plain["summary"]) == {"all", "scored"}


def test_text_holds_every_figure():
    lines = table_lines(evaluate_table(small(), reader))
    assert lines[0].startswith("small.csv: 4 models, 3 datasets, 11 values (acc), ")
    header = lines[2].split("  ")
    assert [part.strip() for part in header if part.strip()] == [
        "dataset", "method", "models", "weighted Kendall", "Pearson", "NDCG@5", "top-1 regret",
    ]  # fmt: skip
    assert lines[3].split() == ["x", "static", *lines[3].split()[2:]] and lines[4].split()[0] == "ranker"
    assert lines[4].split()[1:4] == ["4", "1.000", "1.000"]
    text = "\n".join(lines)
    assert "mean of 3 datasets" in text and "mean of 2 scored" in text and "difference" in text and "n=2" in text
    assert text.count("  low") == 1  # two scored datasets are too few for an interval
    assert len({len(line) for line in lines[2:11]}) == 1


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_table_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def write_planted(folder: Path) -> Path:
    draw = np.random.default_rng(0)
    values = draw.normal(size=(12, 1)) + 0.4 * draw.normal(size=(12, 4))
    lines = [f"m{m},d{d},acc,{values[m, d]:.4f}" for m in range(12) for d in range(4)]
    path = folder / "table.csv"
    path.write_text("model,dataset,metric,value\n" + "\n".join(lines) + "\n")
    return path


def test_the_command_reads_all_files_and_writes_text_and_json(tmp_path, capsys):
    table = write_planted(tmp_path)
    (tmp_path / "m.csv").write_text("model,size\n" + "".join(f"m{m},{m}\n" for m in range(12)))
    (tmp_path / "s.csv").write_text("model,dataset,leep\n" + "".join(f"m{m},d0,{m}\n" for m in range(12)))
    (tmp_path / "d.csv").write_text("dataset_a,dataset_b,value\nd0,d1,1\nd2,d3,1\nd0,d2,3\n")
    words = ["--table", table, "--models", tmp_path / "m.csv", "--scores", tmp_path / "s.csv"]
    words += ["--distances", tmp_path / "d.csv", "--metric", "acc", "--json", tmp_path / "out.json"]
    assert run_table(arguments(*words)) == 0
    printed = capsys.readouterr().out
    assert "leep" in printed and "mean of 4 datasets" in printed and "mean of 1 scored" in printed
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["summary"]["all"]["means"]["ranker"]["weighted_kendall"] > 0.5


def test_the_command_without_options_and_with_a_wrong_table(tmp_path, capsys):
    assert run_table(arguments("--table", write_planted(tmp_path))) == 0
    assert "ranker" in capsys.readouterr().out
    with pytest.raises(DataError, match="Check the path"):
        run_table(arguments("--table", tmp_path / "none.csv"))
    with pytest.raises(DataError, match="there is no metric 'f1'"):
        run_table(arguments("--table", tmp_path / "table.csv", "--metric", "f1"))
    assert capsys.readouterr().out == ""
