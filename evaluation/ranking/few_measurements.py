"""How good a choice is after a few measurements: `python -m evaluation --table TABLE.csv --few-results`.

Every dataset is left out once. A method chooses models to measure on it, one after the other, and keeps the best: what
that lacks to the best model of all is its regret. Paired with measuring the first k of the static order.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from data.data_error import DataError
from data.performance_table import PerformanceTable
from evaluation.ranking.few_results import FewResultsModel, mean_ranks
from evaluation.ranking.few_results_baselines import BASELINES, best_so_far
from evaluation.ranking.next_measurement import next_to_measure
from evaluation.ranking.ranking_metrics import weighted_kendall
from evaluation.ranking.related_datasets import related_shift
from evaluation.ranking.table_protocol import bootstrap_mean
from evaluation.ranking.table_recommendation import INTERVAL, value_range
from storage.text_table import aligned

SCHEMA_VERSION = 1
STEPS = (1, 3, 5)
"""Numbers of measurements after which the choice is judged."""
STATIC, OWN = "static", "few results"
_NOTE = f"""{STATIC}: the first k models by their mean rank on the other datasets are measured, and the best is kept.
{OWN}: what --recommend does: the model to measure next has the largest expected gain, given what is known.
Others choose the model that they expect to be best: by the three datasets that are nearest in the results known; by a
factorization of the table of rank 2. The plain Gaussian process gets results of models drawn at random.
Regret: by how much what is kept is below the best model. Difference: {OWN} - {STATIC}, 95 % bootstrap over datasets."""


@dataclass(frozen=True)
class FewResultsTrial:
    """What happened on one dataset that was left out.

    Attributes:
        dataset: name of the dataset.
        family: models that had no results elsewhere; "" for none.
        regret: method -> regret after 1, 2, ... measurements, in the unit of the table.
        kendall: weighted Kendall with the truth of the predictions after 0, 1, ... measurements; nan where it has none.
        static_kendall: that of the static order.
        inside: share of the values not measured that are in their 90 % interval, after 0, 1, ... measurements.
    """

    dataset: str
    family: str
    regret: dict[str, list[float]]
    kendall: list[float]
    static_kendall: float
    inside: list[float]


def try_few_results(table: PerformanceTable, family: str | None = None, seed: int = 0) -> Iterator[FewResultsTrial]:
    """Leave out each dataset, and with it the results of each family of models in turn.

    Args:
        table: the results.
        family: name of a column of models; None leaves out datasets only.
        seed: seed of what is drawn at random.

    Yields:
        A trial for each dataset, or each dataset and family.
    """
    kinds: list[str] = [""] if family is None else [kind for kind in dict.fromkeys(table.model_columns[family]) if kind]
    for column, dataset in enumerate(table.datasets):
        others = [other for other in range(len(table.datasets)) if other != column]
        alike = np.array([table.metrics[other] == table.metrics[column] for other in others])
        highest = value_range(table, table.metrics[column])[1]
        for kind in kinds:
            values, truth = table.values[:, others].copy(), table.values[:, column]
            if kind:
                values[[own == kind for own in table.model_columns[family or ""]]] = np.nan
            try:
                model = FewResultsModel(values, alike)
                whole = np.insert(values, column, np.nan, axis=1)
                model.shift_usual(related_shift(replace(table, values=whole), column)[0])
                yield _trial(dataset, kind, model, values, truth, highest, seed + column)
            except ValueError:
                continue  # too little is left to learn from


def _trial(
    dataset: str, kind: str, model: FewResultsModel, values: np.ndarray, truth: np.ndarray, highest: float, seed: int
) -> FewResultsTrial:
    candidates = np.isfinite(truth)
    static = mean_ranks(values)
    first = int(np.argmax(np.where(candidates, static, -np.inf)))
    chosen, kendall, inside = _own_choice(model, truth, candidates, highest)
    in_order = np.flatnonzero(candidates)[np.argsort(-static[candidates], kind="stable")][: max(STEPS)]
    taken = {STATIC: best_so_far([int(place) for place in in_order], truth), OWN: best_so_far(chosen, truth)}
    taken |= {name: choose(values, truth, first, max(STEPS), seed) for name, choose in BASELINES.items()}
    best = float(np.nanmax(truth))
    # Where there are fewer models than steps, nothing is left to gain.
    regret = {
        name: [best - float(truth[places[min(step, len(places) - 1)]]) for step in range(max(STEPS))]
        for name, places in taken.items()
    }
    return FewResultsTrial(
        dataset, kind, regret, kendall, weighted_kendall(static[candidates], truth[candidates]), inside
    )


def _own_choice(
    model: FewResultsModel, truth: np.ndarray, candidates: np.ndarray, highest: float
) -> tuple[list[int], list[float], list[float]]:
    chosen: list[int] = []
    kendall, inside = [], []
    for _ in range(max(STEPS) + 1):
        posterior = model.posterior(np.array(chosen, int), truth[chosen])
        rest = candidates.copy()
        rest[chosen] = False
        low, high = posterior.quantile((1 - INTERVAL) / 2), posterior.quantile((1 + INTERVAL) / 2)
        within = (truth >= low) & (truth <= high)
        inside.append(float(within[rest].mean()) if rest.any() else np.nan)
        kendall.append(weighted_kendall(posterior.expected()[candidates], truth[candidates]))
        place, _ = next_to_measure(posterior, chosen, truth[chosen].tolist(), candidates, highest)
        if place is not None:
            chosen.append(place)
    return chosen, kendall, inside


def summarize_few_results(trials: list[FewResultsTrial], seed: int = 0) -> dict[str, dict]:
    """Average over datasets.

    Args:
        trials: trials of one table.
        seed: seed of the bootstrap.

    Returns:
        `regret`: method -> mean after each of `STEPS`; `difference`: after each of `STEPS`, of the own choice to the
        static order, `mean`, `low`, `high`; `kendall`: `static`, and means and differences to it after 0 and each of
        `STEPS`; `inside`: share inside of intervals after 0 and each of `STEPS`.
    """
    names = list(dict.fromkeys(trial.dataset for trial in trials))

    def by_dataset(value: Callable[[FewResultsTrial], float]) -> np.ndarray:
        return np.array([np.nanmean([value(trial) for trial in trials if trial.dataset == name]) for name in names])

    counts = (0, *STEPS)
    return {
        "regret": {
            method: {
                k: float(by_dataset(lambda trial, k=k, method=method: trial.regret[method][k - 1]).mean())
                for k in STEPS
            }
            for method in trials[0].regret
        },
        "difference": {
            k: bootstrap_mean(by_dataset(lambda t, k=k: t.regret[OWN][k - 1] - t.regret[STATIC][k - 1]), seed)
            for k in STEPS
        },
        "kendall": {
            "static": float(by_dataset(lambda trial: trial.static_kendall).mean()),
            **{
                str(k): bootstrap_mean(by_dataset(lambda trial, k=k: trial.kendall[k] - trial.static_kendall), seed)
                for k in counts
            },
        },
        "inside": {str(k): float(np.nanmean(by_dataset(lambda trial, k=k: trial.inside[k]))) for k in counts},
    }


def few_results_lines(trials: list[FewResultsTrial], table: PerformanceTable, seed: int = 0) -> list[str]:
    """Lay out what was found as text.

    Args:
        trials: trials of the table.
        table: the table.
        seed: seed of the bootstrap.

    Returns:
        Lines without line ends.
    """
    found = summarize_few_results(trials, seed)
    point = value_range(table, table.metrics[0])[2]
    unit = "points" if point < 1 else "the unit of the table"
    rows = [[f"regret ({unit}) after", *(f"{k} measured" for k in STEPS)]]
    rows += [[name, *(f"{means[k] / point:.2f}" for k in STEPS)] for name, means in found["regret"].items()]
    rows.append(["difference", *(_interval(found["difference"][k], point) for k in STEPS)])
    kendall = found["kendall"]
    more = [["", "nothing known", *(f"{k} measured" for k in STEPS)]]
    more.append(["inside of 90 % intervals", *(f"{100 * found['inside'][str(k)]:.0f} %" for k in (0, *STEPS))])
    more.append([f"weighted Kendall above static ({kendall['static']:.3f})"])
    more[-1] += [_interval(kendall[str(k)], 1, 3) for k in (0, *STEPS)]
    left_out = " and family" if trials[0].family else ""
    return [
        f"{table.path}: {len(table.models)} models, {len(table.datasets)} datasets, each{left_out} left out once",
        "", *aligned(rows, left=(0,)), "", *aligned(more, left=(0,)), "", *_NOTE.splitlines(),
    ]  # fmt: skip


def _interval(ends: dict[str, float | None], unit: float, digits: int = 2) -> str:
    mean, low, high = ends["mean"], ends["low"], ends["high"]
    text = "-" if mean is None else f"{mean / unit:+.{digits}f}"
    return text if low is None or high is None else f"{text} [{low / unit:+.{digits}f}, {high / unit:+.{digits}f}]"


def run_few_results(table: PerformanceTable, family: str | None, out: Path | None) -> int:
    """Try few results on every dataset of a table, and print what was found.

    Args:
        table: the results.
        family: name of a column of models, each of whose families is left out as well; None for none.
        out: file for the figures; `-` prints them instead of text; None writes none.

    Returns:
        0, the exit code.

    Raises:
        DataError: there is no such column, or no dataset could be tried.
    """
    if family is not None and family not in table.model_columns:
        known = ", ".join(table.model_columns) or "none; give --models"
        raise DataError(f"--family {family}: models have no column of this name; their columns: {known}.")
    trials = list(try_few_results(table, family))
    if not trials:
        raise DataError(f"{table.path}: too few results to leave a dataset out.")
    content = {
        "schema_version": SCHEMA_VERSION, "table": str(table.path), "family": family,
        **summarize_few_results(trials), "trials": [asdict(trial) for trial in trials],
    }  # fmt: skip
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if out is not None and str(out) == "-":
        sys.stdout.write(text)
        return 0
    sys.stdout.write("\n".join(few_results_lines(trials, table)) + "\n")
    if out is not None:
        out.write_text(text, encoding="utf-8")
    return 0


def _plain(content: object) -> object:
    """Replace numbers that JSON doesn't have."""
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and not np.isfinite(content) else content
