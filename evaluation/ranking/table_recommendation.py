"""Which model of a table for a dataset with few results or none, and which to measure next."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from constants.counting import counted
from data.data_error import DataError
from data.performance_table import PerformanceTable
from evaluation.ranking.few_results import FewResultsModel, ValuePosterior, covariate_noise, mean_ranks
from evaluation.ranking.next_measurement import GainShares, gain_shares
from evaluation.ranking.related_datasets import related_shift
from storage.text_table import aligned

SCHEMA_VERSION = 1
INTERVAL = 0.9
"""Probability that a value is inside its interval."""
WORTH = 0.01
"""Expected gain below which measuring more isn't worth it, as a share of the models' spread on the dataset."""
_SWITCH = 0.5  # standard deviations by which a model that isn't measured must be expected above the best measured one
_DRAWS = 4000


@dataclass(frozen=True)
class RankedModel:
    """A model, as it is recommended.

    Attributes:
        rank: place, from 1.
        name: name of the model.
        value: measured value, or the expected one, in the unit of the table.
        low: lower end of the 90 % interval; the value itself where it was measured.
        high: upper end.
        measured: whether the value was measured on this dataset.
        chance_best: probability that no other model is better.
        expected_gain: by how much measuring the model is expected to raise the best value that is had, in the table's
            unit; 0 where it was measured.
        static_rank: place by the mean rank on other datasets, from 1; equals share it. None: measured nowhere else.
    """

    rank: int
    name: str
    value: float
    low: float
    high: float
    measured: bool
    chance_best: float
    expected_gain: float
    static_rank: int | None


@dataclass(frozen=True)
class TableRecommendation:
    """All models of a table ranked for a dataset.

    Attributes:
        dataset: name of the dataset.
        metric: name of its metric.
        datasets: number of other datasets that tell models apart.
        known: results on it, by model.
        models: all models, what to take now first; then by value.
        next: name of the model to measure next; None where all are measured.
        expected_gain: what that is expected to gain; before any result it is that of measuring a second one besides.
        second: before any result, the one that would be measured after `next`.
        worth: expected gain below which measuring isn't worth it, in the unit of the table.
        short_of_best: by how much the first of `models` is expected to be below the best one.
        point: what one point is in the unit of the table: 0.01 for accuracies from 0 to 1.
        unit: what gains are told in: points, or the metric's own name.
        spread: how far models are expected to differ on the dataset, a standard deviation.
        trust: 0 to 1, how far other datasets agree on which models go together.
        notes: what the reader should know.
    """

    dataset: str
    metric: str
    datasets: int
    known: dict[str, float]
    models: tuple[RankedModel, ...]
    next: str | None
    expected_gain: float
    second: str | None
    worth: float
    short_of_best: float
    point: float
    unit: str
    spread: float
    trust: float
    notes: tuple[str, ...]

    def worth_measuring(self) -> bool:
        """Return whether measuring the next model is worth it; the first one always is."""
        return self.next is not None and (not self.known or self.expected_gain >= self.worth)


def recommend_from_table(
    table: PerformanceTable, dataset: str, known: Mapping[str, float] | None = None,
    covariate: Mapping[str, float] | None = None, past_covariates: np.ndarray | None = None,
) -> TableRecommendation:  # fmt: skip
    """Rank all models of a table for a dataset by what is known of it.

    Args:
        table: the results. Those that it has on the dataset are known, too.
        dataset: name of the dataset; it may be new to the table.
        known: further results on the dataset, by model, in the unit of its metric.
        covariate: a cheap number by model on the dataset, higher is better, such as the accuracy of a linear probe.
        past_covariates: (M, D) the same on the datasets of the table, NaN where there is none; without it a covariate
            is trusted as its like usually are.

    Returns:
        The recommendation.

    Raises:
        DataError: fewer than two other datasets tell models apart.
    """
    others = [number for number, name in enumerate(table.datasets) if name != dataset]
    found = _known_results(table, dataset, known or {})
    metric = _metric(table, dataset)
    alike = np.array([table.metrics[number] == metric for number in others], bool)
    try:
        model = FewResultsModel(table.values[:, others], alike)
    except ValueError as error:
        raise DataError(f"{table.path}: besides {dataset!r}, {error} Measure models on more datasets.") from None
    notes = _notes(table, dataset, metric, alike, len(model.levels))
    if dataset in table.datasets:
        shift, helps = related_shift(table, table.datasets.index(dataset))
        model.shift_usual(shift)
        if helps is not None:
            notes.append(f"datasets near {dataset!r} by {helps} count more: on datasets left out that ranks better")
    if covariate:
        numbers = np.array([covariate.get(name, np.nan) for name in table.models], float)
        past = None if past_covariates is None else past_covariates[:, others]
        model.observe_covariate(numbers, *([] if past is None else [covariate_noise(table.values[:, others], past)]))
    tops = [value_range(table, table.metrics[number])[1] for number in others]
    shares = gain_shares(table.values[:, others], lambda column: tops[column])
    places = np.array([table.models.index(name) for name in found], int)
    posterior = model.posterior(places, np.array(list(found.values()), float), _DRAWS)
    return _recommendation(table, dataset, metric, found, model, posterior, shares, notes)


def _known_results(table: PerformanceTable, dataset: str, known: Mapping[str, float]) -> dict[str, float]:
    found = {}
    if dataset in table.datasets:
        column = table.values[:, table.datasets.index(dataset)]
        found = {name: float(value) for name, value in zip(table.models, column, strict=True) if np.isfinite(value)}
    return found | dict(known)


def _metric(table: PerformanceTable, dataset: str) -> str:
    """Take the dataset's own metric; for a new one that of most datasets."""
    if dataset in table.datasets:
        return table.metrics[table.datasets.index(dataset)]
    return max(dict.fromkeys(table.metrics), key=table.metrics.count)


def _notes(table: PerformanceTable, dataset: str, metric: str, alike: np.ndarray, datasets: int) -> list[str]:
    notes = []
    if alike.sum() < 2:
        notes.append(
            f"only {counted(int(alike.sum()), 'other dataset')} has values by {metric}: values and intervals are in "
            "the unit of the others, and only the order counts until results are known"
        )
    elif not alike.all():
        notes.append(f"values are in the unit of {metric}, as on {alike.sum()} of {len(alike)} other datasets")
    if datasets < 5:
        notes.append(f"{counted(datasets, 'other dataset')} only: intervals rest on few")
    never = np.isnan(np.delete(table.values, _column(table, dataset), axis=1)).all(1)
    if never.any():
        first = table.models[int(np.flatnonzero(never)[0])]
        notes.append(f"{counted(int(never.sum()), 'model')} (such as {first}) was measured on no other dataset")
    return notes


def _column(table: PerformanceTable, dataset: str) -> list[int]:
    return [table.datasets.index(dataset)] if dataset in table.datasets else []


def _recommendation(
    table: PerformanceTable, dataset: str, metric: str, found: dict[str, float], model: FewResultsModel,
    posterior: ValuePosterior, shares: GainShares, notes: list[str],
) -> TableRecommendation:  # fmt: skip
    names = table.models
    lowest, highest, point = value_range(table, metric)
    expected, spread = posterior.expected(), posterior.deviation()
    bounded = np.clip(posterior.draws, lowest, highest)
    order = np.argsort(-expected, kind="stable")
    measured = np.array([name in found for name in names])
    if measured.any():
        best = int(np.argmax(np.where(measured, expected, -np.inf)))
        if expected[order[0]] < expected[best] + _SWITCH * spread[order[0]]:
            order = np.concatenate([[best], order[order != best]])
        gains = posterior.expected_gain(float(expected[best]), highest)
    else:
        gains = np.maximum(bounded - bounded[:, order[:1]], 0.0).mean(0)
    gains = shares.gain * gains
    left = np.flatnonzero(~measured)
    by_gain = left[np.lexsort((-expected[left], -gains[left]))]
    following = by_gain if measured.any() else order
    chance = posterior.chance_best()
    low, high = posterior.quantile((1 - INTERVAL) / 2), posterior.quantile((1 + INTERVAL) / 2)
    low, high = (np.where(measured, expected, np.clip(end, lowest, highest)) for end in (low, high))
    static = static_places(table, dataset)
    ranked = tuple(
        RankedModel(
            rank=rank, name=names[index], value=float(np.clip(expected[index], lowest, highest)),
            low=float(low[index]), high=float(high[index]), measured=bool(measured[index]),
            chance_best=float(chance[index]), expected_gain=float(gains[index]), static_rank=static[index],
        )
        for rank, index in enumerate(order, start=1)
    )  # fmt: skip
    return TableRecommendation(
        dataset=dataset, metric=metric, datasets=len(model.levels), known=found, models=ranked,
        next=names[following[0]] if len(left) else None,
        expected_gain=float(gains[by_gain[0]]) if len(left) else 0.0,
        second=None if found or len(by_gain) < 2 else names[by_gain[0]],
        worth=WORTH * posterior.spread, point=point, unit="points" if highest in (1, 100) else metric,
        spread=posterior.spread, trust=model.trust, notes=tuple(notes),
        short_of_best=shares.short * float((bounded.max(1) - bounded[:, order[0]]).mean()),
    )  # fmt: skip


def static_places(table: PerformanceTable, dataset: str) -> list[int | None]:
    """Return each model's place by its mean rank on the other datasets, from 1; None where it was measured on none."""
    values = np.delete(table.values, _column(table, dataset), axis=1)
    static = np.round(mean_ranks(values), 12)
    known = np.isfinite(values).any(1)
    return [int((static[known] > own).sum()) + 1 if tried else None for own, tried in zip(static, known, strict=True)]


def value_range(table: PerformanceTable, metric: str) -> tuple[float, float, float]:
    """Find out what values a metric can have, from those that it has.

    Args:
        table: the results.
        metric: name of the metric.

    Returns:
        Least and greatest value, infinite where there is no bound, and what one point is: 0.01 for values from 0 to 1,
        else 1.
    """
    columns = [number for number, name in enumerate(table.metrics) if name == metric]
    values = table.values[:, columns]
    if not np.isfinite(values).any():
        return -np.inf, np.inf, 1.0
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low >= 0 and high <= 1:
        return 0.0, 1.0, 0.01
    if low >= 0 and 20 < high <= 100 and not _whole(values):
        return 0.0, 100.0, 1.0
    return (0.0 if low >= 0 else -np.inf), (0.0 if high <= 0 else np.inf), 1.0


def _whole(values: np.ndarray) -> bool:
    """Whether all are whole numbers, as ranks and counts are, which percentages hardly are."""
    found = values[np.isfinite(values)]
    return bool((found == np.round(found)).all())


def recommendation_json(found: TableRecommendation, table: PerformanceTable) -> dict[str, Any]:
    """Describe a recommendation as plain data.

    Args:
        found: the recommendation.
        table: the table that it is from.

    Returns:
        `schema_version`, `table`, `dataset`, `metric`, `known`, `take`, `next` (`model`, `expected_gain`, `worth`,
        `second`, `least_gain_worth`), `expected_short_of_best`, `models`, `notes`. Values and gains are in the table's
        unit.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "table": str(table.path),
        "dataset": found.dataset,
        "metric": found.metric,
        "known": found.known,
        "take": found.models[0].name,
        "expected_short_of_best": found.short_of_best,
        "next": {
            "model": found.next, "expected_gain": found.expected_gain, "worth": found.worth_measuring(),
            "second": found.second, "least_gain_worth": found.worth,
        },
        "models": [asdict(model) for model in found.models],
        "notes": list(found.notes),
    }  # fmt: skip


def recommendation_lines(found: TableRecommendation, table: PerformanceTable, top: int = 10) -> list[str]:
    """Lay a recommendation out as text.

    Args:
        found: the recommendation.
        table: the table that it is from.
        top: models to show; those measured, and the next one, are shown in any case.

    Returns:
        Lines without line ends.
    """
    digits = _digits(found.spread / 100)
    results = counted(len(found.known), "result") if found.known else "no result"
    lines = [
        f"{found.dataset}: {results} known; {counted(len(table.models), 'model')} ranked by "
        f"{counted(found.datasets, 'other dataset')} of {table.path}",
        "",
    ]
    all_known = len(found.known) <= top  # else those among the first `top` will do
    shown = [
        model
        for model in found.models
        if model.rank <= top or model.name == found.next or (model.measured and all_known)
    ]
    rows = [["rank", "model", found.metric, "90 % interval", "chance best", "expected gain", "static rank"]]
    for model in shown:
        interval = "measured" if model.measured else f"{model.low:.{digits}f} to {model.high:.{digits}f}"
        gain = "-" if model.measured else _points(model.expected_gain, found)
        static = "-" if model.static_rank is None else str(model.static_rank)
        chance = f"{100 * model.chance_best:.0f} %"
        rows.append([str(model.rank), model.name, f"{model.value:.{digits}f}", interval, chance, gain, static])
    lines += aligned(rows, left=(1,))
    if len(found.models) > len(shown):
        lines.append(f"and {len(found.models) - len(shown)} more (--top {len(found.models)} shows all)")
    lines += ["", *_advice(found), ""]
    lines += [f"note: {note}" for note in found.notes]
    unit = "points (1/100)" if found.point < 1 else found.unit
    return [
        *lines,
        f"expected gain: by how much measuring a model should raise the best value that you have, in {unit}; before "
        "any result, above the first model's",
        "static rank: by the mean rank on the other datasets, whatever is known of this one",
    ]


def _advice(found: TableRecommendation) -> list[str]:
    first = found.models[0]
    how = f"{'measured' if first.measured else 'expected'} {first.value:.4g}"
    short = _points(found.short_of_best, found)
    lines = [
        f"take now: {first.name} ({how}). It is the best one with a chance of {100 * first.chance_best:.0f} %, and "
        f"expected to be {short} {_unit(found)} below the best"
    ]
    if found.next is None:
        return [*lines, "measure next: nothing is left to measure"]
    gain = f"{_points(found.expected_gain, found)} {_unit(found)}"
    if not found.known:
        after = f"; then {found.second}, which should gain {gain}" if found.second else ""
        return [*lines, f"measure next: {found.next}, which you would take anyway{after}"]
    if found.worth_measuring():
        return [*lines, f"measure next: {found.next}, expected gain {gain}"]
    least = f"{_points(found.worth, found)} {_unit(found)}"
    return [
        *lines,
        f"measuring more isn't worth it: the largest expected gain is {gain} ({found.next}); below {least}, 1 % of "
        "the models' spread, it is called small",
    ]


def _digits(step: float) -> int:
    """Return the digits after the point that show a step."""
    return int(np.clip(np.ceil(-np.log10(max(step, 1e-9))), 0, 9))


def _points(value: float, found: TableRecommendation) -> str:
    digits = _digits(found.spread / found.point / 1000)
    points = value / found.point
    least = 10.0**-digits
    return "0" if points == 0 else f"<{least:g}" if abs(points) < least / 2 else f"{points:.{digits}f}"


def _unit(found: TableRecommendation) -> str:
    return found.unit if found.unit == "points" else f"({found.unit})"
