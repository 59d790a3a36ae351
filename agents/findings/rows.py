"""Findings in the rows themselves: too few, there twice, among the test rows, of one label, too long."""

import re
from collections.abc import Iterator

from agents.findings.evidence import Evidence
from agents.proposals import line_of
from agents.state import Proposal
from agents.task.rows import TaskRow, question_digest
from constants.counting import counted

_FEW, _BETTER = 50, 200  # rows below which a training learns little, and from which more bring less
_RARE = 0.1  # share of the rows that an even spread would give a label, below which it is rare
_CUT_OFF = 0.05  # share of answers that do not end in time
_SHOWN = 3


def few_rows(seen: Evidence) -> Iterator[Proposal]:
    """There are too few rows to learn from; how many more there are to be is for whoever makes them."""
    count = len({(question_digest(row), row.answer) for row in seen.train})
    if count < _BETTER:
        yield Proposal(
            finding="few_rows", changes=[], weight=0.9 if count < _FEW else 0.5 * (1 - count / _BETTER),
            evidence=[f"{counted(count, 'different training row')}; most tasks are learned from {_BETTER} and more"],
            expected="more rows, of cases that are not there yet, teach more than other settings",
        )  # fmt: skip


def duplicated_rows(seen: Evidence) -> Iterator[Proposal]:
    """Rows are there twice, so that they count twice."""
    there: set[tuple[str, str]] = set()
    twice = []
    for row in seen.train:
        key = (_plain_question(row), row.answer.strip())
        if key in there:
            twice.append(row)
        there.add(key)
    if twice:
        share = len(twice) / len(seen.train)
        yield Proposal(
            finding="duplicated_rows", changes=[], drop=[row.id for row in twice], weight=min(0.88, 0.3 + 3 * share),
            evidence=[f"{len(twice)} of {counted(len(seen.train), 'training row')} say what an earlier one says",
                      *(line_of(row) for row in twice[:_SHOWN])],
            expected="each row counts once, and validation measures what is new",
        )  # fmt: skip


def test_rows_in_training(seen: Evidence) -> Iterator[Proposal]:
    """Test rows ask what training rows ask: their scores say how well the model remembers."""
    asked = {_plain_question(row) for row in seen.test}
    same = [row for row in seen.train if _plain_question(row) in asked]
    if same and len(same) < len(seen.train):
        known = {_plain_question(row) for row in same}
        leaked = sum(_plain_question(row) in known for row in seen.test)
        yield Proposal(
            finding="test_rows_in_training", changes=[], drop=[row.id for row in same],
            weight=0.97 if leaked >= 0.02 * len(seen.test) else 0.8,
            evidence=[f"{leaked} of {counted(len(seen.test), 'test row')} ask what a training row asks: "
                      "their scores say too much", *_gap(seen, known), *(line_of(row) for row in same[:_SHOWN])],
            expected="without these rows the score falls to what new questions will get",
        )  # fmt: skip


def _gap(seen: Evidence, known: set[str]) -> list[str]:
    """Say what test rows score that were trained on, and what the others do."""
    measured = seen.last["measured"]
    if measured is None or len(measured["scores"]) != len(seen.test):
        return []
    parts: list[list[float]] = [[], []]
    for row, score in zip(seen.test, measured["scores"], strict=True):
        parts[_plain_question(row) in known].append(score)
    if not all(parts):
        return []
    new, seen_before = (sum(part) / len(part) for part in parts)
    return [f"{seen.task.metric} of these is {seen_before:.4g} on average, of the others {new:.4g}"]


def _plain_question(row: TaskRow) -> str:
    """Return what a row asks, without what makes no other question: case, blanks, signs at the end."""
    return " ".join(re.sub(r"\W+", " ", str(one.get("content") or "").lower()).strip() for one in row.asked)


def imbalanced(seen: Evidence) -> Iterator[Proposal]:
    """Of the labels of a classification one is rare."""
    labels = seen.labels
    if not labels:
        return
    even = len(seen.train) / len(labels)
    rare = {label: count for label, count in labels.items() if count < _RARE * even * 2}
    if rare:
        most, times = labels.most_common(1)[0]
        yield Proposal(
            finding="imbalanced", changes=[], weight=0.55,
            evidence=[f"{label!r} is the answer of {counted(count, 'row')}, {most!r} of {times}: an even spread would "
                      f"be {even:.0f}" for label, count in sorted(rare.items(), key=lambda one: one[1])],
            expected="more rows of the rare answers, so that they are not passed over",
        )  # fmt: skip


def truncated_rows(seen: Evidence) -> Iterator[Proposal]:
    """Training rows are longer than max_length, and are left out for it."""
    long = seen.last["trained"]["rows"].get("too_long", 0)
    if not long:
        return
    used, limit = seen.last["trained"]["rows"].get("used", 0), seen.number("max_length")
    yield Proposal(
        finding="truncated_rows", weight=0.6 + 0.3 * min(1.0, long / max(1, used)),
        changes=[seen.change("max_length", 2 * limit)] if limit else [],
        evidence=[f"{counted(long, 'training row')} longer than max_length = {limit:g} tokens, "
                  f"{counted(used, 'row')} used"],
        expected="twice the length lets long rows be learned from",
    )  # fmt: skip


def answers_cut_off(seen: Evidence) -> Iterator[Proposal]:
    """Answers do not end in max_tokens, though what is wanted would."""
    measured = seen.last["measured"]
    if measured is None or measured["cut_off"] <= _CUT_OFF:
        return
    longest = max(len(row.answer.encode()) for row in seen.test)
    rows = seen.last["trained"]["rows"]
    mean = rows.get("answer_tokens", 0) / max(1, rows.get("used", 0))
    learned = f", and the answers to learn from {mean:.0f} tokens in the mean" if mean else ""
    yield Proposal(
        finding="answers_cut_off", changes=[], weight=0.45,
        evidence=[f"{measured['cut_off']:.0%} of the answers did not end in {seen.task.max_tokens} tokens; the longest "
                  f"answer that is wanted has {longest} bytes{learned}"],
        expected="a model that has learned to end says what is wanted and no more; where that is longer, a larger "
        "max_tokens in task.yaml of a new task",
    )  # fmt: skip
