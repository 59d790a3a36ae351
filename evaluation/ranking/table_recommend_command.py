"""`python -m evaluation --table TABLE.csv --recommend DATASET`: what to take for it, and what to measure next."""

import argparse
import difflib
import json
import math
import re
import sys
from collections.abc import Sequence

import numpy as np

from data.data_error import DataError
from data.performance_table import PerformanceTable, read_performance_table
from evaluation.ranking.few_measurements import run_few_results
from evaluation.ranking.table_recommendation import (
    recommend_from_table,
    recommendation_json,
    recommendation_lines,
    value_range,
)

_KNOWN = re.compile(r"\s*(.+?)\s*=\s*([^,=]*?)\s*(?:,|$)")
_NEAR = 0.8  # share of letters from which a new dataset's name is taken for a slip


def add_recommend_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run_table_recommendation` reads beside the table.

    Args:
        parser: parser of the command line that the arguments are added to.
    """
    group = parser.add_argument_group("one dataset of such a table")
    group.add_argument(
        "--recommend", metavar="DATASET",
        help="rank all models for this dataset, which has few results or none, and say which to measure next",
    )  # fmt: skip
    group.add_argument("--known", metavar="MODEL=VALUE,...", help="what you measured on it, besides what the table has")
    group.add_argument(
        "--few-results", action="store_true",
        help="leave each dataset out, and see how good such choices are after 1, 3 and 5 measurements",
    )  # fmt: skip
    group.add_argument("--family", metavar="COLUMN", help="with --few-results: leave out families of models, too")
    group.add_argument("--top", type=int, metavar="K", help="models to show (default: 10)")


def run_table_recommendation(arguments: argparse.Namespace) -> int:
    """Rank the models of a table for a dataset, or try that on each dataset, and print what was found.

    Args:
        arguments: parsed arguments `table`, `models`, `scores`, `distances`, `metadata`, `metric`, `json`, `recommend`,
            `known`, `top`, `few_results` and `family`.

    Returns:
        0, the exit code.

    Raises:
        DataError: a file or a given value is wrong.
        OSError: the JSON file can't be written.
    """
    if arguments.few_results:
        table = read_performance_table(
            arguments.table, arguments.models, arguments.scores, arguments.distances, arguments.metric,
            arguments.metadata,
        )  # fmt: skip
        return run_few_results(table, arguments.family, arguments.json)
    dataset = arguments.recommend.strip()
    if not dataset:
        raise DataError("--recommend needs the name of a dataset: one of the table, or a new one.")
    table = read_performance_table(
        arguments.table, arguments.models, arguments.scores, arguments.distances, arguments.metric,
        arguments.metadata, target=dataset,
    )  # fmt: skip
    known = read_known(arguments.known, table, dataset) if arguments.known is not None else {}
    found = recommend_from_table(table, dataset, known)
    if near := _like_another(dataset, table):
        sys.stderr.write(f"note: the table has no result on {dataset!r}, so it is new; did you mean {near!r}?\n")
    text = json.dumps(recommendation_json(found, table), indent=1, ensure_ascii=False, allow_nan=False)
    if arguments.json is not None and str(arguments.json) == "-":
        sys.stdout.write(text + "\n")
        return 0
    sys.stdout.write("\n".join(recommendation_lines(found, table, arguments.top or 10)) + "\n")
    if arguments.json is not None:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _like_another(dataset: str, table: PerformanceTable) -> str | None:
    """Return the name of a dataset with results that is spelt much like one without."""
    has_results = dict(zip(table.datasets, np.isfinite(table.values).any(0), strict=True))
    if has_results.get(dataset):
        return None
    folded = {name.casefold(): name for name, some in has_results.items() if some}
    near = difflib.get_close_matches(dataset.casefold(), folded, n=1, cutoff=_NEAR)
    return folded[near[0]] if near else None


def read_known(text: str, table: PerformanceTable, dataset: str) -> dict[str, float]:
    """Read results given as `model=value,model=value`, and check them against the table.

    Args:
        text: what was given. Names may hold commas and equals signs.
        table: table of the models.
        dataset: dataset that the results are on.

    Returns:
        Value by model.

    Raises:
        DataError: a model is unknown, given twice or measured otherwise in the table; a value is no number, or can't be
            one of the metric.
    """
    pairs = [match.groups() for match in _KNOWN.finditer(text)]
    if not pairs or "".join(match.group() for match in _KNOWN.finditer(text)).strip() != text.strip():
        raise DataError(f"--known {text!r}: write it as MODEL=VALUE,MODEL=VALUE, such as {table.models[0]}=0.91.")
    metric = table.metrics[table.datasets.index(dataset)] if dataset in table.datasets else None
    found: dict[str, float] = {}
    for model, number in pairs:
        if model not in table.models:
            raise DataError(f"--known: the table has no model {model!r}; {_nearest(model, table.models)}.")
        value = _number(model, number)
        if model in found:
            raise DataError(f"--known: {model!r} is given twice ({found[model]:g} and {value:g}); keep one.")
        _check_range(model, value, table, metric)
        if dataset in table.datasets:
            there = table.values[table.models.index(model), table.datasets.index(dataset)]
            if np.isfinite(there) and there != value:
                raise DataError(
                    f"--known {model}={value:g}: the table has {there:g} for it on {dataset!r}; keep one of the two."
                )
        found[model] = value
    return found


def _nearest(name: str, names: Sequence[str]) -> str:
    folded = {other.casefold(): other for other in names}
    near = [folded[other] for other in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)]
    near += [other for key, other in folded.items() if name.casefold() in key and other not in near]
    if near:
        return f"did you mean {' or '.join(map(repr, near[:3]))}?".rstrip(".")
    return f"it has {len(names)}, such as {', '.join(map(repr, names[:3]))}"


def _number(model: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"--known {model}={text}: {text!r} is no number. Write it as 0.91, with a point.") from None
    if not math.isfinite(value):
        raise DataError(f"--known {model}={text}: the value is not finite. Leave the model out where it failed.")
    return value


def _check_range(model: str, value: float, table: PerformanceTable, metric: str | None) -> None:
    metric = metric or max(dict.fromkeys(table.metrics), key=table.metrics.count)
    columns = [number for number, name in enumerate(table.metrics) if name == metric]
    values = table.values[:, columns]
    least, most = float(np.nanmin(values)), float(np.nanmax(values))
    low, high, _ = value_range(table, metric)
    given = f"--known {model}={value:g}: values of {metric} in the table are from {least:g} to {most:g}"
    if high == 1 and 1 < value <= 100:
        raise DataError(f"{given}; write {value / 100:g} for {value:g} %.")
    if high == 100 and 0 < value <= 1 and not np.any((values > 0) & (values <= 1)):
        raise DataError(f"{given}; they are percentages: write {100 * value:g} for {value:g}.")
    reach = most - least
    if not low <= value <= high or not least - 2 * reach <= value <= most + 2 * reach:
        raise DataError(f"{given}; that can't be one of them. Give it in the unit of the table.")
