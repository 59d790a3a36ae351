"""What is told of an evaluation beside its score: kinds of test rows, and answers that got worse."""

from collections.abc import Iterator, Sequence

from agents.driver import Driver
from agents.effects import EffectError
from agents.proposals import shortened
from agents.slices import ChangedAnswer, changed_answers, slices_of
from agents.state import Measured, TuneState
from agents.task.folder import TaskFolder
from agents.task.rows import TaskRow, read_rows
from data.data_error import DataError

_WORST, _WIDEST = 5, 100


def changed_in(folder: TaskFolder, driver: Driver, before: Measured, after: Measured) -> list[ChangedAnswer]:
    """Return the test rows by how much their scores changed, the worst losses first; none where they can't be read.

    Args:
        folder: the task's folder.
        driver: its run.
        before: an evaluation.
        after: a later one.
    """
    try:
        rows = read_rows(folder.test_rows)
        answers = [driver.answers_of(one) for one in (before, after)]
    except (DataError, EffectError, ValueError):
        return []
    if not len(rows) == len(answers[0]) == len(answers[1]) == len(after["scores"]) == len(before["scores"]):
        return []
    return changed_answers(rows, (before, answers[0]), (after, answers[1]))


def report_of(folder: TaskFolder, driver: Driver, state: TuneState, metric: str) -> list[str]:
    """Tell of the best round, or the last one where none is better than the base model, which rows it serves how.

    Args:
        folder: the task's folder.
        driver: its run.
        state: what is known.
        metric: name of the metric.
    """
    measured = [each for each in state["rounds"] if each["measured"] is not None]
    baseline = state["baseline"]
    if not measured or baseline is None:
        return []
    shown = state["rounds"][state["best"] - 1] if state["best"] else measured[-1]
    after = shown["measured"]
    assert after is not None
    return [
        *_slice_lines(read_rows(folder.test_rows), after, metric, shown["number"]),
        *_worse_lines(changed_in(folder, driver, baseline, after), metric, shown["number"]),
    ]


def _slice_lines(rows: Sequence[TaskRow], after: Measured, metric: str, number: int) -> Iterator[str]:
    found = slices_of(rows, after["scores"]) if len(rows) == len(after["scores"]) else []
    if found:
        yield f"slices of round {number}, the worst first (95 % intervals of the mean):"
        for one in found:
            yield f"  {one.told(metric)}{'; behind the others beyond chance' if one.behind else ''}"


def _worse_lines(changed: Sequence[ChangedAnswer], metric: str, number: int) -> Iterator[str]:
    worse = [one for one in changed if one.change < 0]
    if worse:
        yield f"answers of round {number} that are worse than the base model's: {len(worse)} of {len(changed)}"
    for one in worse[:_WORST]:
        texts = (shortened(" ".join(text.split()), _WIDEST) for text in (one.asked, one.wanted, one.before, one.after))
        asked, wanted, before, now = texts
        yield f"  {metric} {one.change:+.3g}  row {one.row}: {asked}"
        yield f"    wanted {wanted!r}, before {before!r}, now {now!r}"
