"""Rows that are probably labelled wrongly, found by what all other rows say of them.

Where answers are labels, each row is judged by the words of all others (naive Bayes, the row itself left out), so that
nothing can have learned its answer by heart; where losses are known, the trained model must doubt it too. Where answers
are free text, a row is suspect when its answer suits its question no better than the answers of other rows do.
"""

import math
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from agents.findings.evidence import Evidence, Losses, labels_of
from agents.proposals import line_of
from agents.state import Proposal
from agents.task.rows import TaskRow
from constants.counting import counted
from evaluation.text_metrics import label_of

_LEAST_SHARE, _LEAST = 0.05, 4  # suspect rows from which on the finding is made
_ROWS = 100  # rows below which words are too rare to judge by: clean rows were taken for wrong ones
_KNOWN = 0.6  # share of all rows whose label the others tell: below, they can't judge
_SMOOTH = 0.5
_SHOWN = 8
_LEAST_SWAPPED = 16


def mislabelled(seen: Evidence) -> Iterator[Proposal]:
    """Rows say another answer than all others, and the model, would give."""
    if seen.labels:
        yield from _of_labels(seen)
    elif seen.losses is not None and len(seen.losses.swapped) >= _LEAST_SWAPPED:
        yield from _of_texts(seen, seen.losses)


def doubted_labels(rows: Sequence[TaskRow]) -> list[tuple[TaskRow, str]]:
    """Return rows whose words speak for another label, each with the answer that says that label in other rows.

    Args:
        rows: training rows.

    Returns:
        The rows; none where answers are no labels, or rows are too few to judge by.
    """
    if len(rows) < _ROWS or not labels_of(rows):
        return []
    written = _written(rows)
    return [(row, written[label]) for row, label, _ in _suspects(rows, cross_checked(rows))]


def _written(rows: Sequence[TaskRow]) -> dict[str, str]:
    """Return how each label is written most often."""
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(label_of(row.answer), Counter())[row.answer] += 1
    return {label: counts.most_common(1)[0][0] for label, counts in found.items()}


def _suspects(rows: Sequence[TaskRow], said: Sequence[tuple[str, float, float]]) -> list[tuple[TaskRow, str, float]]:
    """Return rows that others speak against, with the label that these say and the probability of their own."""
    # Confident learning (Northcutt 2021): as sure of another label as of that label's own rows on average.
    own_of: dict[str, list[float]] = {}
    for row, (_, _, own) in zip(rows, said, strict=True):
        own_of.setdefault(label_of(row.answer), []).append(own)
    usual = {label: statistics.fmean(each) for label, each in own_of.items()}
    return [(row, label, own) for row, (label, other, own) in zip(rows, said, strict=True)
            if label != label_of(row.answer) and other >= usual[label]]  # fmt: skip


def _of_labels(seen: Evidence) -> Iterator[Proposal]:
    if len(seen.train) < _ROWS:
        return
    said = cross_checked(seen.train)
    known = sum(label_of(row.answer) == label for row, (label, _, _) in zip(seen.train, said, strict=True))
    suspect = _suspects(seen.train, said)
    agreed = _doubted_by_the_model(seen, [row for row, _, _ in suspect])
    if agreed is not None:
        suspect = [one for one in suspect if one[0].id in agreed]
    share = len(suspect) / len(seen.train)
    if known < _KNOWN * len(seen.train) or len(suspect) < _LEAST or share < _LEAST_SHARE:
        return
    suspect.sort(key=lambda one: one[2])
    judges = "the words of all other rows" if agreed is None else "the words of all other rows and the trained model"
    # The trained model must find the other label likelier than the row's own: to be wrong doesn't say what is right.
    losses, written = seen.losses or Losses(), _written(seen.train)
    relabel = {row.id: written[label] for row, label, _ in suspect if row.id in losses.others and row.id in losses.rows
               and losses.others[row.id].loss < losses.rows[row.id].loss}  # fmt: skip
    yield Proposal(
        finding="mislabelled", changes=[], drop=[row.id for row, _, _ in suspect], relabel=relabel,
        weight=min(0.96, 0.75 + 1.5 * share) if agreed is not None else min(0.9, 0.6 + 1.5 * share),
        evidence=[f"{len(suspect)} of {counted(len(seen.train), 'training row')} have an answer that {judges} speak "
                  f"against; {known / len(seen.train):.0%} of all rows are as the others say",
                  *(f"{line_of(row)}, rather {label!r}{_loss_text(seen, row)}" for row, label, _ in suspect[:_SHOWN])],
        expected="without wrong answers the model learns what is meant; look at the rows first",
    )  # fmt: skip


def _loss_text(seen: Evidence, row: TaskRow) -> str:
    found = seen.losses.rows.get(row.id) if seen.losses is not None else None
    return f", loss {found.loss:.2g}" if found is not None else ""


def _doubted_by_the_model(seen: Evidence, rows: Sequence[TaskRow]) -> set[str] | None:
    """Return the ids of rows whose loss is above the median of all; None where losses are not known."""
    losses = seen.losses.rows if seen.losses is not None else {}
    if not losses:
        return None
    ordered = sorted(one.loss for one in losses.values())
    middle = ordered[len(ordered) // 2]
    return {row.id for row in rows if row.id not in losses or losses[row.id].loss > middle}


def cross_checked(rows: Sequence[TaskRow]) -> list[tuple[str, float, float]]:
    """Judge the label of each row by the words of all others: naive Bayes, the row itself left out.

    Args:
        rows: rows whose answers are labels.

    Returns:
        Of each row the likeliest label, its probability, and that of the row's own.
    """
    labels = sorted({label_of(row.answer) for row in rows})
    own = [label_of(row.answer) for row in rows]
    words = [set(re.findall(r"\w+", row.question.lower())) for row in rows]
    rows_of = Counter(own)
    rows_with = {label: Counter(word for mine, has in zip(own, words, strict=True) if mine == label for word in has)
                 for label in labels}  # fmt: skip
    found = []
    for mine, has in zip(own, words, strict=True):
        scores = {}
        for label in labels:
            itself = label == mine
            count = rows_of[label] - itself
            score = math.log((count + 1) / (len(rows) - 1 + len(labels)))
            score += sum(math.log((rows_with[label][word] - itself + _SMOOTH) / (count + 2 * _SMOOTH)) for word in has)
            scores[label] = score
        top = max(scores.values())
        total = sum(math.exp(score - top) for score in scores.values())
        best = max(labels, key=lambda label, scores=scores: scores[label])  # type: ignore[misc]  # bound on purpose
        found.append((best, math.exp(scores[best] - top) / total, math.exp(scores[mine] - top) / total))
    return found


def _of_texts(seen: Evidence, losses: Losses) -> Iterator[Proposal]:
    """Find answers that suit other questions as well as their own."""
    rows = {row.id: row for row in seen.train}
    gain = {key: sum(one.loss for one in others) / len(others) - losses.rows[key].loss
            for key, others in losses.swapped.items() if others and key in losses.rows and key in rows}  # fmt: skip
    suits = [key for key, value in gain.items() if value > 0]
    suspect = sorted((key for key, value in gain.items() if value <= 0), key=gain.__getitem__)
    share = len(suspect) / max(1, len(gain))
    middle = sorted(gain.values())[len(gain) // 2] if gain else 0.0
    # Where nothing was learned about questions yet, half of the answers suit others better: that says nothing.
    if len(suspect) < _LEAST or share < _LEAST_SHARE or len(suits) < 0.7 * len(gain) or middle < 0.1:
        return
    yield Proposal(
        finding="mislabelled", changes=[], drop=suspect, weight=min(0.85, 0.5 + 1.5 * share),
        evidence=[f"{len(suspect)} of {len(gain)} rows that were looked at have answers that suit other questions as "
                  f"well as their own; of half of the rows the own answer is {middle:.2g} nats a token better",
                  *(f"{line_of(rows[key])}, loss {losses.rows[key].loss:.2g}" for key in suspect[:_SHOWN])],
        expected="without answers to other questions the model learns what is meant; look at the rows first",
    )  # fmt: skip
