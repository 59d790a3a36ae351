"""A table of measured results, model by dataset, with what is known of models, datasets and pairs, from CSV files."""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from beautilog import logger

from constants.counting import counted
from data.data_error import DataError

_KEYS = ("model", "dataset", "metric", "value")
_BLANK = "Leave the cell empty where nothing was measured."


@dataclass(frozen=True)
class PerformanceTable:
    """How well each model did on each dataset, and what else is known.

    Attributes:
        path: the file of the results.
        models: names of the models, in the order of the file.
        datasets: names of the datasets, in the order of the file.
        values: (M, D) float64, higher is better, in the unit of the dataset's metric; NaN where nothing was measured.
        metrics: name of the metric of each dataset.
        model_columns: known facts of models: name of a column -> a text for each model, "" where unknown.
        dataset_columns: known facts of datasets: name of a column -> a text for each dataset, "" where unknown.
        distances: (dataset, dataset) -> distance, both ways; either may be one that is no dataset of the table.
        scores: name -> (M, D) float64, scores of pairs such as LogME, higher is better; NaN where there is none.
    """

    path: Path
    models: tuple[str, ...]
    datasets: tuple[str, ...]
    values: np.ndarray = field(repr=False)
    metrics: tuple[str, ...]
    model_columns: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    dataset_columns: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    distances: dict[tuple[str, str], float] = field(default_factory=dict, repr=False)
    scores: dict[str, np.ndarray] = field(default_factory=dict, repr=False)


def read_performance_table(
    path: Path, models: Path | None = None, scores: Path | None = None, distances: Path | None = None,
    metric: str | None = None, metadata: Path | None = None, target: str | None = None,
) -> PerformanceTable:  # fmt: skip
    """Read a table of results, and files that go with it.

    Args:
        path: CSV `model,dataset,metric,value`. Further columns are kept where they hold one text for each model, or
            one for each dataset; others are left out. No column may be made from the values.
        models: CSV with a column `model` and whatever is known of models; rows of other models are left out.
        scores: CSV `model,dataset,metric,value` (`method` for `metric` will do), or `model,dataset` and a column for
            each score; rows of other models or datasets are left out.
        distances: CSV `dataset_a,dataset_b,value` (`distance` for `value` will do), or a square with names in the
            first row and column.
        metric: name of the metric to read; needed only where a dataset has results by several.
        metadata: CSV with a column `dataset` and whatever is known of datasets; rows of other datasets are left out.
        target: name of the dataset that models are ranked for; it may have few results or none. Where it is new to the
            table it is added, without values, by the metric of most datasets.

    Returns:
        The table.

    Raises:
        DataError: a file is missing, no such CSV, or says something twice, or nothing that can be used.
    """
    models_found, datasets, cells, metrics, columns = _read_results(Path(path), metric, target)
    values = np.full((len(models_found), len(datasets)), np.nan)
    for (model, dataset), value in cells.items():
        values[models_found[model], datasets[dataset]] = value
    of_models, of_datasets = columns
    if target is not None and target not in datasets:
        datasets[target] = len(datasets)
        values = np.column_stack([values, np.full(len(values), np.nan)])
        metrics = (*metrics, max(dict.fromkeys(metrics), key=metrics.count))
        of_datasets = {name: (*cells, "") for name, cells in of_datasets.items()}
    if models is not None:
        of_models |= _read_facts(Path(models), "model", models_found)
    if metadata is not None:
        of_datasets |= _read_facts(Path(metadata), "dataset", datasets)
    return PerformanceTable(
        path=Path(path), models=tuple(models_found), datasets=tuple(datasets), values=values, metrics=metrics,
        model_columns=of_models, dataset_columns=of_datasets,
        distances={} if distances is None else _read_distances(Path(distances), datasets),
        scores={} if scores is None else _read_scores(Path(scores), models_found, datasets),
    )  # fmt: skip


def _rows(path: Path, needed: Iterable[tuple[str, ...]]) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """Read a CSV with a header: names of the columns, and for each row the line it ends on and its cells, stripped."""
    lines = _lines(path)
    _, header = next(lines)
    if repeated := [name for name in header if header.count(name) > 1]:
        raise DataError(f"{path}:1: the column {repeated[0]!r} is there twice; rename one.")
    for names in needed:
        if not set(names) & set(header):
            other = f" (or {', '.join(repr(name) for name in names[1:])})" if names[1:] else ""
            raise DataError(
                f"{path}:1: there is no column {names[0]!r}{other}; the columns are {', '.join(header)}. "
                "Write a first line with names, and commas between columns."
            )
    return header, ((number, dict(zip(header, row, strict=True))) for number, row in lines)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            width = None
            for cells in reader:
                row = [cell.strip() for cell in cells]
                if not any(row):
                    continue
                if width is not None and len(row) != width:
                    raise DataError(
                        f"{path}:{reader.line_num}: {len(row)} cells, the header has {width} columns. "
                        'Put quotation marks around a text that holds a comma: "a, b".'
                    )
                width = len(row)
                yield reader.line_num, row
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}. Check the path.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV text in UTF-8: {error}. Save the table as CSV (UTF-8).") from error
    if width is None:
        raise DataError(f"{path} is empty; its first line names the columns, such as {','.join(_KEYS)}.")


def _number(text: str, where: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{where}: {name} {text!r} is no number. Write it as 0.912, with a point. {_BLANK}") from None
    if not math.isfinite(value):
        raise DataError(f"{where}: {name} {text!r} is not finite. {_BLANK}")
    return value


def _named(row: dict[str, str], keys: Iterable[str], where: str) -> list[str]:
    for key in keys:
        if not row[key]:
            raise DataError(f"{where}: {key!r} is empty; every row names its {key}.")
    return [row[key] for key in keys]


def _read_results(path: Path, metric: str | None, target: str | None) -> tuple:
    header, rows = _rows(path, [(key,) for key in _KEYS])
    seen, metrics, texts = {}, {}, {"model": {}, "dataset": {}}
    for number, row in rows:
        where = f"{path}:{number}"
        model, dataset, name = _named(row, ("model", "dataset", "metric"), where)
        metrics.setdefault(name, dataset)
        if metric is not None and name != metric:
            continue
        if (model, dataset, name) in seen:
            raise DataError(
                f"{where}: {model!r} on {dataset!r} by {name!r} was given in line {seen[model, dataset, name][0]}; "
                "keep one of the two, or their mean."
            )
        value = _number(row["value"], where, "value") if row["value"] else math.nan
        seen[model, dataset, name] = number, value
        for kind, key in (("model", model), ("dataset", dataset)):
            for column in header:
                if column not in _KEYS and row[column]:
                    texts[kind].setdefault(column, {}).setdefault(key, set()).add(row[column])
    if metric is not None and metric not in metrics:
        raise DataError(f"{path}: there is no metric {metric!r}; its metrics: {', '.join(metrics) or 'none'}.")
    models = {name: index for index, name in enumerate(dict.fromkeys(model for model, _, _ in seen))}
    datasets, by_dataset = {}, {}
    for (_, dataset, name), (number, _) in seen.items():
        datasets.setdefault(dataset, len(datasets))
        if by_dataset.setdefault(dataset, name) != name:
            raise DataError(
                f"{path}:{number}: {dataset!r} has results by {by_dataset[dataset]!r} and by {name!r}; a dataset has "
                f"one metric. Choose it with --metric {by_dataset[dataset]}, or give each metric a file."
            )
    cells = {(model, dataset): value for (model, dataset, _), (_, value) in seen.items()}
    _check_size(path, datasets, cells, target)
    columns = _known(texts["model"], models), _known(texts["dataset"], datasets)
    columns = columns[0], {name: column for name, column in columns[1].items() if name not in columns[0]}
    return models, datasets, cells, tuple(by_dataset.values()), columns


def _check_size(path: Path, datasets: dict[str, int], cells: dict[tuple[str, str], float], target: str | None) -> None:
    if target is not None:
        if len(others := [name for name in datasets if name != target]) > 1:
            return  # of these, datasets with too few values just teach nothing
        raise DataError(
            f"{path}: {counted(len(others), 'dataset')} besides {target!r} ({', '.join(others) or 'no rows'}); 2 or "
            "more are needed: models are ranked for a dataset by their results on the others."
        )
    if len(datasets) < 3:
        raise DataError(
            f"{path}: {len(datasets)} datasets ({', '.join(datasets) or 'no rows'}); 3 or more are needed: a dataset "
            "is left out, and models are ranked for it by their results on the others."
        )
    measured = Counter(dataset for (_, dataset), value in cells.items() if not math.isnan(value))
    for dataset in datasets:
        if (count := measured[dataset]) < 2:
            raise DataError(
                f"{path}: {dataset!r} has a value of {counted(count, 'model')}; 2 or more are needed to rank. "
                "Measure more, or take its rows out."
            )


def _known(texts: dict[str, dict[str, set[str]]], names: dict[str, int]) -> dict[str, tuple[str, ...]]:
    """Keep columns that say one thing of each name, and not the same of all."""
    columns = {}
    for column, by_name in texts.items():
        if all(len(found) == 1 for found in by_name.values()):
            cells = tuple(next(iter(by_name.get(name, {""}))) for name in names)
            if len(set(cells)) > 1:
                columns[column] = cells
    return columns


def _read_facts(path: Path, kind: str, names: dict[str, int]) -> dict[str, tuple[str, ...]]:
    """Read what is known of models or datasets (`kind`), a row each."""
    header, rows = _rows(path, [(kind,)])
    found = {}
    for number, row in rows:
        (name,) = _named(row, (kind,), f"{path}:{number}")
        if name in found:
            raise DataError(f"{path}:{number}: {name!r} was given in line {found[name][0]}; keep one row a {kind}.")
        found[name] = number, row
    if not set(found) & set(names):
        raise DataError(f"{path}: none of its {kind}s is in the table; names must be spelt alike.")
    if absent := [name for name in names if name not in found]:
        logger.warning(f"{path}: nothing about {len(absent)} of the table's {kind}s, such as {absent[0]!r}.")
    columns = {
        column: tuple(found[name][1][column] if name in found else "" for name in names)
        for column in header
        if column != kind
    }
    return {column: cells for column, cells in columns.items() if len(set(cells)) > 1}


def _read_scores(path: Path, models: dict[str, int], datasets: dict[str, int]) -> dict[str, np.ndarray]:
    header, rows = _rows(path, [("model",), ("dataset",)])
    kind = next((name for name in ("metric", "method") if name in header), None)
    long = kind is not None and "value" in header
    names = [] if long else [name for name in header if name not in ("model", "dataset")]
    if not long and not names:
        raise DataError(f"{path}:1: there is no score; add columns 'metric' and 'value', or a column for each score.")
    scores, lines, left_out = {}, {}, []
    for number, row in rows:
        where = f"{path}:{number}"
        model, dataset, *named = _named(row, ("model", "dataset", *([kind] if long else [])), where)
        for name in named or names:
            text = row["value" if long else name]
            if (model, dataset, name) in lines:
                first = lines[model, dataset, name]
                raise DataError(f"{where}: {name} of {model!r} on {dataset!r} was given in line {first}; keep one.")
            lines[model, dataset, name] = number
            value = _number(text, where, name) if text else math.nan
            if model in models and dataset in datasets:
                score = scores.setdefault(name, np.full((len(models), len(datasets)), np.nan))
                score[models[model], datasets[dataset]] = value
            else:
                left_out.append(f"{model!r} on {dataset!r}")
    if not scores:
        raise DataError(f"{path}: none of its pairs is in the table; models and datasets must be spelt alike.")
    if left_out:
        logger.warning(f"{path}: {len(left_out)} scores are of pairs outside the table, such as {left_out[0]}.")
    return scores


def _read_distances(path: Path, datasets: dict[str, int]) -> dict[tuple[str, str], float]:
    header, rows = _rows(path, [])
    given = _long_distances(path, header, rows) if "dataset_a" in header else _square_distances(path, header, rows)
    # What is given one way holds both ways; what is given both ways and differs holds by its mean.
    both = {(a, b): (value + given.get((b, a), value)) / 2 for (a, b), value in given.items()}
    both |= {(b, a): value for (a, b), value in both.items()}
    if not any(a in datasets and b in datasets and a != b for a, b in both):
        raise DataError(f"{path}: none of its pairs are datasets of the table; names must be spelt alike.")
    return both


def _long_distances(
    path: Path, header: list[str], rows: Iterator[tuple[int, dict[str, str]]]
) -> dict[tuple[str, str], float]:
    value_name = next((name for name in ("value", "distance") if name in header), None)
    if value_name is None or "dataset_b" not in header:
        raise DataError(
            f"{path}:1: the columns are {', '.join(header)}; needed are dataset_a, dataset_b and value (or distance)."
        )
    given, lines, metrics = {}, {}, {}
    for number, row in rows:
        where = f"{path}:{number}"
        pair = tuple(_named(row, ("dataset_a", "dataset_b"), where))
        metrics.setdefault(row.get("metric", ""), number)
        if len(metrics) > 1:
            raise DataError(f"{where}: distances by {' and by '.join(map(repr, metrics))}; keep the rows of one.")
        if pair in lines:
            raise DataError(f"{where}: {pair[0]!r} to {pair[1]!r} was given in line {lines[pair]}; keep one.")
        lines[pair] = number
        if row[value_name]:
            given[pair] = _distance(row[value_name], where)
    return given


def _square_distances(
    path: Path, header: list[str], rows: Iterator[tuple[int, dict[str, str]]]
) -> dict[tuple[str, str], float]:
    first, *names = header
    given, lines = {}, {}
    for number, row in rows:
        where = f"{path}:{number}"
        if row[first] not in names:
            raise DataError(
                f"{where}: {row[first]!r} is no name of the first line. Distances are a square with the same names in "
                "the first row and column, or columns dataset_a,dataset_b,value."
            )
        if row[first] in lines:
            raise DataError(f"{where}: {row[first]!r} was given in line {lines[row[first]]}; keep one row a dataset.")
        lines[row[first]] = number
        given |= {(row[first], name): _distance(row[name], where) for name in names if row[name]}
    return given


def _distance(text: str, where: str) -> float:
    value = _number(text, where, "distance")
    if value < 0:
        raise DataError(f"{where}: distance {text} is negative; a distance is 0 or more.")
    return value
