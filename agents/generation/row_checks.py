"""Which new rows can be used: of the samples' form, none twice, none near the test; and how different they are."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from agents.task.rows import TaskRow, bare_question
from agents.task.task_parts import GeneratorPlan
from data.near_duplicates import near_pairs, trigrams
from evaluation.text_metrics import label_of

_LABELS = 20  # different answers of a classification at most
_OFTEN = 4  # rows of each of them on average, at least
_LONGER, _SHORT = 4, 200  # times the longest answer of the samples; letters that are never too many
_LOOKED_AT = 300  # rows whose nearest one is looked for


@dataclass(frozen=True)
class Checked:
    """Rows that were checked.

    Attributes:
        kept: rows that can be used.
        left_out: how many can't be, by reason.
        figures: sentences on how different they are.
    """

    kept: list[TaskRow]
    left_out: dict[str, int]
    figures: list[str]


def checked_rows(
    made: Sequence[TaskRow], train: Sequence[TaskRow], test: Sequence[TaskRow], plan: GeneratorPlan
) -> Checked:
    """Check new rows, and keep as many as are wanted.

    Args:
        made: new rows.
        train: training rows.
        test: test rows.
        plan: how many are wanted, and what is too near.
    """
    known = [*test, *train]
    form, cut = _Form(train), _common_beginning([bare_question(row) for row in known])
    there, left_out, fit = {row.id for row in known}, Counter[str](), []
    asked = {bare_question(row) for row in test}
    for row in made:
        reason = form.fault_of(row)
        if reason is None and bare_question(row) in asked:
            reason = "asks what a test row asks"
        if reason is None and row.id in there:
            reason = "is there already"
        if reason is not None:
            left_out[reason] += 1
            continue
        there.add(row.id)
        fit.append(row)
    texts = [bare_question(row)[cut:] for row in (*known, *fit)]
    gone = dict[int, str]()
    for share, earlier, later in sorted(near_pairs(texts, min(plan.near, plan.leak)), key=lambda one: one[2]):
        if later < len(known) or earlier in gone or later in gone:
            continue
        if earlier < len(test) and share >= plan.leak:
            gone[later] = "is too near to a test row"
        elif earlier >= len(test) and share >= plan.near:
            gone[later] = "is nearly there already"
    left_out.update(gone.values())
    kept = [row for at, row in enumerate(fit, len(known)) if at not in gone]
    if more := len(kept) - plan.rows:
        kept = kept[: plan.rows]
        left_out.update({"is more than wanted": max(0, more)} if more > 0 else {})
    return Checked(kept, dict(left_out), _figures(kept, train, cut))


class _Form:
    """What answers of the samples have in common: JSON with some keys, one of a few labels, or a length."""

    def __init__(self, rows: Sequence[TaskRow]) -> None:
        answers = [row.answer for row in rows]
        keys = [_keys_of(answer) for answer in answers]
        self._keys = [one for one in keys if one is not None] if None not in keys else []
        labels = Counter(label_of(answer) for answer in answers)
        few = len(labels) <= _LABELS and len(labels) * _OFTEN <= len(answers)
        self._labels = set(labels) if few and not self._keys else set()
        self._longest = max(_SHORT, *(_LONGER * len(answer) for answer in answers))

    def fault_of(self, row: TaskRow) -> str | None:
        """Say why a row is not of the form; None where it is."""
        if self._keys:
            keys = _keys_of(row.answer)
            if keys is None:
                return "has an answer that is no JSON, as all samples have"
            if not set.intersection(*map(set, self._keys)) <= keys <= set.union(*map(set, self._keys)):
                return "has JSON with other keys than the samples"
        if self._labels and label_of(row.answer) not in self._labels:
            return "has an answer that is none of the samples' labels"
        if len(row.answer) > self._longest:
            return f"has an answer {_LONGER} times as long as the longest sample's"
        return None


def _keys_of(text: str) -> set[str] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return set(value) if isinstance(value, dict) else None


def _common_beginning(texts: Sequence[str]) -> int:
    """Return how many letters all questions begin with: an instruction, which would make all of them alike."""
    first, last = min(texts, default=""), max(texts, default="")
    same = next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), 0)
    return max(first.rfind(" ", 0, same), first.rfind("\n", 0, same)) + 1


def _figures(kept: Sequence[TaskRow], train: Sequence[TaskRow], cut: int) -> list[str]:
    if not kept:
        return []
    new, old = ([bare_question(row)[cut:] for row in rows[:_LOOKED_AT]] for rows in (kept, train))
    told = [f"different words and pairs of words of the questions: {_distinct(new, 1):.0%} and {_distinct(new, 2):.0%} "
            f"(samples {_distinct(old, 1):.0%} and {_distinct(old, 2):.0%})"]  # fmt: skip
    grams = [trigrams(text) for text in (*new, *old)]
    near = [max((_alike(grams[at], other) for number, other in enumerate(grams) if number != at), default=0.0)
            for at in range(len(new))]  # fmt: skip
    own = [max((_alike(one, other) for number, other in enumerate(grams[len(new) :]) if number != at), default=0.0)
           for at, one in enumerate(grams[len(new) :])]  # fmt: skip
    return [*told, f"likeness to the nearest other question, of trigrams: {fmean(near):.2f} (samples {fmean(own):.2f})"]


def _alike(first: set[str], second: set[str]) -> float:
    return len(first & second) / max(1, len(first | second))


def _distinct(texts: Sequence[str], size: int) -> float:
    """Return the share of different ones among all runs of some words (distinct-n; Li et al. 2016)."""
    grams = [tuple(words[at : at + size]) for text in texts if (words := text.lower().split())
             for at in range(len(words) - size + 1)]  # fmt: skip
    return len(set(grams)) / max(1, len(grams))
