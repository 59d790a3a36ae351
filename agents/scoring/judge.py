"""A model judges answers; how far it agrees with a person is known before it is used."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.task.task_parts import JudgePlan
from data.data_error import DataError

_LEAST = 10  # rows that a person has judged, at least
_TOKENS = 200
_RESAMPLES = 2000
_NAMES = {"question": ("question", "prompt", "input"), "answer": ("answer", "completion", "output"),
          "wanted": ("wanted", "reference"), "label": ("label", "verdict")}  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """An answer that a person has judged: question, answer, what was wanted ("" for nothing), and the verdict."""

    question: str
    answer: str
    wanted: str
    label: str


@dataclass(frozen=True)
class Agreement:
    """How far a judge agrees with a person.

    Attributes:
        count: answers that both have judged.
        accuracy: share on which they agree.
        kappa: Cohen's kappa: 1 for full agreement, 0 for what chance gives.
        low: lower end of kappa's 95 % interval, by bootstrap over the answers.
        high: upper end of it.
    """

    count: int
    accuracy: float
    kappa: float
    low: float
    high: float


def read_labels(plan: JudgePlan) -> list[Judged]:
    """Read answers that a person has judged: JSON lines or CSV with `question`, `answer`, `label`, maybe `wanted`.

    Args:
        plan: who judges; its choices are what labels may be.

    Raises:
        DataError: a row lacks something or has another label, there are few, or all are judged alike.
    """
    found = []
    for place, row in _rows_of(plan.labels):
        values = {name: next((str(row[one]) for one in names if row.get(one) not in (None, "")), "")
                  for name, names in _NAMES.items()}  # fmt: skip
        if missing := [name for name in ("question", "answer", "label") if not values[name]]:
            raise DataError(f"{place}: no {missing[0]}; needed are question, answer and label")
        label = next((one for one in plan.choices if one.lower() == values["label"].strip().lower()), None)
        if label is None:
            raise DataError(
                f"{place}: the label is {values['label']!r}; the judge's choices are {', '.join(plan.choices)}"
            )
        found.append(Judged(values["question"], values["answer"], values["wanted"], label))
    if len(found) < _LEAST:
        raise DataError(
            f"{plan.labels} has {len(found)} judged answers, which say nothing of a judge; {_LEAST} are the least"
        )
    if len({one.label for one in found}) < 2:
        raise DataError(f"{plan.labels} judges all answers {found[0].label}: a judge that always says so would agree")
    return found


def _rows_of(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is no text in UTF-8'}"
        ) from None
    if path.suffix.lower() == ".csv":
        return [(f"{path}:{number}", row) for number, row in enumerate(csv.DictReader(text.splitlines()), 2)]
    found: list[tuple[str, Mapping[str, Any]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: no JSON: {error}") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: no JSON object")
            found.append((f"{path}:{number}", row))
    return found


def judge_request(key: str, plan: JudgePlan, description: str, one: Judged) -> dict[str, Any]:
    """Return what the judge is asked of an answer, as `agents.endpoint.asking.ask_all` takes it.

    Args:
        key: id of the answer.
        plan: who judges.
        description: what the task is.
        one: the answer.
    """
    parts = [f"The task: {description}", f"An answer is good if: {plan.criterion}" if plan.criterion else "",
             f"Question:\n{one.question}", f"A right answer:\n{one.wanted}" if one.wanted else "",
             f"The answer to judge:\n{one.answer}",
             f"Judge the answer. Reply with one word and nothing else: {' or '.join(plan.choices)}."]  # fmt: skip
    messages = [{"role": "system", "content": "You judge answers strictly and say only your verdict."},
                {"role": "user", "content": "\n\n".join(part for part in parts if part)}]  # fmt: skip
    return {"id": key, "messages": messages, "max_tokens": _TOKENS}


def verdict_in(text: str, choices: Sequence[str]) -> str | None:
    """Return the verdict that a judge has said; None where it names none of the choices, or several.

    Args:
        text: what it said; where several are named, its last line counts.
        choices: its verdicts.
    """
    lines = [line for line in text.strip().splitlines() if line.strip()]
    for part in (text, lines[-1] if lines else ""):
        # The longest first, so that "very good" is not taken for "good".
        rest, named = part.lower(), set[str]()
        for choice in sorted(choices, key=len, reverse=True):
            rest, times = re.subn(rf"(?<!\w){re.escape(choice.lower())}(?!\w)", " ", rest)
            if times:
                named.add(choice)
        if len(named) == 1:
            return named.pop()
    return None


def agreement_of(labels: Sequence[str], verdicts: Sequence[str | None]) -> Agreement:
    """Return how far verdicts agree with labels; where there is no verdict, there is no agreement.

    Args:
        labels: of a person.
        verdicts: of the judge, in the same order.
    """
    names = {name: at for at, name in enumerate(dict.fromkeys([*labels, *(one or "" for one in verdicts)]))}
    first = np.array([names[one] for one in labels])
    second = np.array([names[one or ""] for one in verdicts])
    draw = np.random.default_rng(0).integers(0, len(first), (_RESAMPLES, len(first)))
    kappas = [_kappa(first[at], second[at], len(names)) for at in draw]
    low, high = np.quantile(kappas, [0.025, 0.975])
    accuracy = float((first == second).mean())
    return Agreement(len(first), accuracy, _kappa(first, second, len(names)), float(low), float(high))


def _kappa(first: np.ndarray, second: np.ndarray, count: int) -> float:
    """Return Cohen's kappa (1960); 0 where chance alone would agree fully."""
    agreed = float((first == second).mean())
    shares = [np.bincount(one, minlength=count) / len(one) for one in (first, second)]
    by_chance = float((shares[0] * shares[1]).sum())
    return (agreed - by_chance) / (1 - by_chance) if by_chance < 1 else 0.0
