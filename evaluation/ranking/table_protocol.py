"""Leave-one-dataset-out evaluation of rankings on a table of results: `python -m evaluation --table TABLE.csv`."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from beautilog import logger

from constants.counting import counted
from data.performance_table import PerformanceTable, read_performance_table
from evaluation.ranking.few_results import mean_ranks
from evaluation.ranking.ranking_metrics import ranking_metrics
from evaluation.ranking.table_ranker import TableRanker

SCHEMA_VERSION = 1
METRICS = ("weighted_kendall", "pearson", "ndcg", "top1_regret")
TOP = 5
STATIC, RANKER = "static", "ranker"
_RESAMPLES = 10_000
_LOG_SECONDS = 20.0
_NOTE = f"""{STATIC}: a model's mean rank on the other datasets; it never looks at the target.
{RANKER}: learns from the other datasets, what is known of models and distances, and the scores given.
Each dataset is left out once. A model without a value there, or without the score, is not ranked by it.
top-1 regret: the best value minus that of the model ranked first, in the unit of the table's values.
difference: {RANKER} - {STATIC}, mean over datasets, 95 % bootstrap interval over datasets."""


@dataclass(frozen=True)
class TableResults:
    """What leave-one-dataset-out evaluation found.

    Attributes:
        table: table that was evaluated.
        rows: a row for each dataset and method: `dataset`, `method`, `models` (how many were ranked), and `METRICS`;
            top-1 regret is in the unit of the table's values.
        seed: seed of the ranker and the bootstrap.
        seconds: time that the evaluation took.
    """

    table: PerformanceTable
    rows: tuple[dict[str, Any], ...]
    seed: int
    seconds: float


def evaluate_table(
    table: PerformanceTable, ranker: Callable[[], Any] | None = None, seed: int = 0, datasets: Sequence[str] = ()
) -> TableResults:
    """Leave each dataset out, rank the models for it, and compare with what they reach there.

    Args:
        table: the results, and what is known of models, datasets and pairs.
        ranker: function that makes an object with `fit(table, train_datasets)` and `predict(dataset)`; None makes a
            `TableRanker`.
        seed: seed of the ranker and the bootstrap.
        datasets: names of the datasets to leave out, one at a time; none means all.

    Returns:
        The results.
    """
    started = logged = time.perf_counter()
    targets = list(datasets) or list(table.datasets)
    rows = []
    for number, dataset in enumerate(targets):
        model = ranker() if ranker else TableRanker(seed)
        predicted = model.fit(table, [name for name in table.datasets if name != dataset]).predict(dataset)
        column = table.datasets.index(dataset)
        methods = {STATIC: static_scores(table, dataset)}
        methods |= {name: score[:, column] for name, score in table.scores.items()}
        methods[RANKER] = predicted
        rows += _rank_rows(dataset, table.values[:, column], methods)
        if time.perf_counter() - logged > _LOG_SECONDS:
            logged = time.perf_counter()
            logger.info(f"{number + 1} of {len(targets)} datasets, {logged - started:.0f} s")
    return TableResults(table, tuple(rows), seed, time.perf_counter() - started)


def static_scores(table: PerformanceTable, dataset: str) -> np.ndarray:
    """Rank models without looking at a dataset: their mean rank on the others, from 0 (worst) to 1.

    Args:
        table: table of the results.
        dataset: the one that is not looked at.

    Returns:
        (M,) float64; 0.5 for a model that was measured on no other dataset.
    """
    return mean_ranks(table.values[:, [name != dataset for name in table.datasets]])


def _rank_rows(dataset: str, truth: np.ndarray, methods: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    rows = []
    for method, scores in methods.items():
        use = np.isfinite(truth) & np.isfinite(scores)
        if use.sum() < 2:
            continue  # this score was not measured here
        found = ranking_metrics(scores[use], truth[use], k=TOP)
        found["top1_regret"] /= 100  # percentage points of an accuracy in 0..1, back to the unit of the values
        rows.append({"dataset": dataset, "method": method, "models": int(use.sum()), **{m: found[m] for m in METRICS}})
    return rows


def summarize(results: TableResults) -> dict[str, dict[str, Any]]:
    """Average over datasets, and compare the ranker with `static` on the same datasets.

    Args:
        results: results of all evaluated datasets.

    Returns:
        `all`, and, where scores were given, `scored`: the same over the datasets that have a score. Each holds
        `datasets`; `means`: method -> `datasets` and `METRICS`; `differences`: metric -> `mean`, `low`, `high`, those
        of ranker - static with a 95 % interval (percentile bootstrap over datasets), None for fewer than 3 datasets.
    """
    names = list(dict.fromkeys(row["dataset"] for row in results.rows))
    groups = {"all": names}
    if results.table.scores:
        scored = {row["dataset"] for row in results.rows if row["method"] not in (STATIC, RANKER)}
        groups["scored"] = [name for name in names if name in scored]
    return {kind: _summary(results, group) for kind, group in groups.items()}


def _summary(results: TableResults, datasets: list[str]) -> dict[str, Any]:
    rows = [row for row in results.rows if row["dataset"] in set(datasets)]
    means = {}
    for method in (STATIC, *results.table.scores, RANKER):
        mine = [row for row in rows if row["method"] == method]
        if mine:
            means[method] = {"datasets": len(mine)} | {m: float(np.mean([row[m] for row in mine])) for m in METRICS}
    by_method = {
        method: {row["dataset"]: row for row in rows if row["method"] == method} for method in (STATIC, RANKER)
    }
    differences = {}
    for metric in METRICS:
        pairs = [by_method[RANKER][name][metric] - by_method[STATIC][name][metric] for name in datasets]
        differences[metric] = bootstrap_mean(np.array(pairs), results.seed)
    return {"datasets": datasets, "means": means, "differences": differences}


def bootstrap_mean(values: np.ndarray, seed: int = 0) -> dict[str, float | None]:
    """Mean with a 95 % interval: percentile bootstrap (Efron 1979).

    The datasets of a table share models and training data, so the interval is, if anything, too narrow.

    Args:
        values: (N,) one value a dataset.
        seed: seed of the resampling.

    Returns:
        `mean`, `low`, `high`; the ends are None where N is below 3, the mean where N is 0.
    """
    if len(values) < 3:
        return {"mean": float(values.mean()) if len(values) else None, "low": None, "high": None}
    drawn = np.random.default_rng(seed).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def results_json(results: TableResults) -> dict[str, Any]:
    """Describe results as plain data for a JSON file.

    Args:
        results: results of all evaluated datasets.

    Returns:
        `schema_version`, `table`, `models`, `datasets`, `cells`, `metrics`, `seed`, `seconds`, `rows`, and `summary`.
    """
    table = results.table
    return {
        "schema_version": SCHEMA_VERSION,
        "table": str(table.path),
        "models": len(table.models),
        "datasets": len(table.datasets),
        "cells": int(np.isfinite(table.values).sum()),
        "metrics": list(dict.fromkeys(table.metrics)),
        "seed": results.seed,
        "seconds": round(results.seconds, 2),
        "rows": [dict(row) for row in results.rows],
        "summary": summarize(results),
    }


def table_lines(results: TableResults) -> list[str]:
    """Lay results out as text: every dataset and method, then means and differences.

    Args:
        results: results of all evaluated datasets.

    Returns:
        Lines without line ends.
    """
    table = results.table
    wide = max(map(len, [*(row["dataset"] for row in results.rows), "mean of 999 datasets"]))
    method_wide = max(map(len, [STATIC, RANKER, *table.scores, "difference"]))
    cells = int(np.isfinite(table.values).sum())
    lines = [
        f"{table.path}: {counted(len(table.models), 'model')}, {counted(len(table.datasets), 'dataset')}, "
        f"{counted(cells, 'value')} ({', '.join(dict.fromkeys(table.metrics))}), {results.seconds:.1f} s",
        "",
        f"{'dataset':{wide}}  {'method':{method_wide}}  models  weighted Kendall  Pearson  NDCG@{TOP}  top-1 regret",
    ]

    def line(name: str, method: str, count: str, row: dict[str, float]) -> str:
        return (
            f"{name:{wide}}  {method:{method_wide}}  {count:>6}  {row['weighted_kendall']:16.3f}  "
            f"{row['pearson']:7.3f}  {row['ndcg']:6.3f}  {row['top1_regret']:12.4g}"
        )

    last = None
    for row in results.rows:
        name = "" if row["dataset"] == last else row["dataset"]
        lines.append(line(name, row["method"], str(row["models"]), row))
        last = row["dataset"]
    for kind, summary in summarize(results).items():
        lines.append("")
        for number, (method, means) in enumerate(summary["means"].items()):
            which = f"mean of {len(summary['datasets'])} {'scored' if kind == 'scored' else 'datasets'}"
            here = means["datasets"] if means["datasets"] < len(summary["datasets"]) else ""
            lines.append(line("" if number else which, method, f"n={here}" if here else "", means))
        differences = summary["differences"]
        lines.append(line("", "difference", "", {metric: value["mean"] for metric, value in differences.items()}))
        for end in ("low", "high"):
            ends = {metric: value[end] for metric, value in differences.items()}
            if None not in ends.values():
                lines.append(line("", f"  {end}", "", ends))
    return [*lines, "", *_NOTE.splitlines()]


def add_table_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run_table` reads.

    Args:
        parser: parser of the command line that the arguments are added to.
    """
    parser.add_argument("--table", type=Path, metavar="TABLE.csv", help="results: model,dataset,metric,value")
    parser.add_argument("--models", type=Path, metavar="MODELS.csv", help="what is known of models: model,...")
    parser.add_argument("--scores", type=Path, metavar="SCORES.csv", help="scores of pairs: model,dataset,metric,value")
    parser.add_argument(
        "--distances", type=Path, metavar="DISTANCES.csv", help="dataset_a,dataset_b,value; or a square with names"
    )
    parser.add_argument("--metadata", type=Path, metavar="DATASETS.csv", help="what is known of datasets: dataset,...")
    parser.add_argument("--metric", help="which metric to take, where a dataset has several")
    parser.add_argument(
        "--json", type=Path, metavar="OUT", nargs="?", const=Path("-"),
        help="write all figures to this file; without a file, print them instead of text",
    )  # fmt: skip


def run_table(arguments: argparse.Namespace) -> int:
    """Evaluate a table and print what was found.

    Args:
        arguments: parsed arguments `table`, `models`, `scores`, `distances`, `metric`, `json`, as `add_table_arguments`
            adds them.

    Returns:
        0, the exit code.

    Raises:
        DataError: a file is missing or wrong.
        OSError: the JSON file can't be written.
    """
    table = read_performance_table(
        arguments.table, arguments.models, arguments.scores, arguments.distances, arguments.metric,
        arguments.metadata,
    )  # fmt: skip
    results = evaluate_table(table)
    text = json.dumps(results_json(results), indent=1, ensure_ascii=False, allow_nan=False)
    if arguments.json == Path("-"):
        sys.stdout.write(text + "\n")
        return 0
    sys.stdout.write("\n".join(table_lines(results)) + "\n")
    if arguments.json is not None:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0
