"""Scores by kinds of test rows, each with its interval, and the rows that got worse most."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from agents.state import Measured
from agents.task.rows import TaskRow
from evaluation.mean_interval import mean_interval
from evaluation.text_metrics import label_of

_LEAST = 5  # rows of a slice
_MOST = 12  # values of a field that make slices
_LENGTHS = ("short", "medium", "long")


@dataclass(frozen=True)
class SliceScore:
    """How good the answers to one kind of rows are.

    Attributes:
        field: what the rows are told apart by: a field of the user's, `length of the question`, `answer`.
        value: what they have there.
        rows: numbers of its rows.
        mean: mean of their scores.
        low: lower end of the 95 % interval of the mean.
        high: upper end of it.
        others: mean of all other rows' scores.
        behind: whether it is worse than the others beyond chance: the 95 % interval of the difference, made wider for
            the number of slices that are looked at, is below 0.
    """

    field: str
    value: str
    rows: tuple[int, ...]
    mean: float
    low: float
    high: float
    others: float
    behind: bool

    def told(self, metric: str) -> str:
        """Return it in a line."""
        return (
            f"{self.field} = {self.value}: {metric} {self.mean:.4g} [{self.low:.4g}, {self.high:.4g}] "
            f"of {len(self.rows)} rows"
        )


def slices_of(rows: Sequence[TaskRow], scores: Sequence[float]) -> list[SliceScore]:
    """Return the scores of all slices of some rows, the worst first.

    Args:
        rows: test rows.
        scores: score of each.
    """
    values = np.array(scores)
    groups = [(field, value, numbers) for field, parts in _fields(rows) for value, numbers in parts.items()
              if _LEAST <= len(numbers) <= len(rows) - _LEAST]  # fmt: skip
    found = []
    for field, value, numbers in groups:
        inside = np.zeros(len(rows), dtype=bool)
        inside[numbers] = True
        own, others = values[inside], values[~inside]
        low, high = mean_interval(own) or (float("nan"), float("nan"))
        behind = _gap_above(own, others, 0.05 / len(groups))
        found.append(
            SliceScore(field, value, tuple(numbers), float(own.mean()), low, high, float(others.mean()), behind)
        )
    return sorted(found, key=lambda one: one.mean)


def _gap_above(own: np.ndarray, others: np.ndarray, tail: float) -> bool:
    """Say whether others have a higher mean, by a bootstrap of both, with this probability of saying so by chance."""
    generator = np.random.default_rng(0)
    means = [part[generator.integers(0, len(part), (4000, len(part)))].mean(1) for part in (own, others)]
    return bool(np.quantile(means[1] - means[0], tail) > 0)


def _fields(rows: Sequence[TaskRow]) -> Iterator[tuple[str, dict[str, list[int]]]]:
    """Yield what rows can be told apart by, with the numbers of the rows of each value."""
    for name in dict.fromkeys(name for row in rows for name in row.slices):
        yield name, _grouped([row.slices.get(name, "") for row in rows])
    lengths = np.array([len(row.question) for row in rows])
    if len(rows) >= 3 * _LEAST and lengths.min() < lengths.max():
        short, long = np.quantile(lengths, [1 / 3, 2 / 3])
        yield "length of the question", _grouped([_LENGTHS[int(each > short) + int(each > long)] for each in lengths])
    yield "answer", _grouped([label_of(row.answer) for row in rows])


def _grouped(values: Sequence[str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for number, value in enumerate(values):
        if value:
            groups.setdefault(value, []).append(number)
    return groups if len(groups) <= _MOST else {}


@dataclass(frozen=True)
class ChangedAnswer:
    """A test row whose answer changed: what it asks and wants, both answers, and by how much the score changed."""

    row: str
    asked: str
    wanted: str
    before: str
    after: str
    change: float


def changed_answers(
    rows: Sequence[TaskRow], before: tuple[Measured, Sequence[str]], after: tuple[Measured, Sequence[str]]
) -> list[ChangedAnswer]:
    """Return all answers with how much their scores changed, the worst losses first.

    Args:
        rows: test rows.
        before: an evaluation, and its answers.
        after: a later one.
    """
    found = [
        ChangedAnswer(row.id, row.question, row.answer, was, now, later - earlier)
        for row, was, now, earlier, later in zip(
            rows, before[1], after[1], before[0]["scores"], after[0]["scores"], strict=True
        )
    ]
    return sorted(found, key=lambda one: one.change)
