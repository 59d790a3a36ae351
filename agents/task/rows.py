"""Rows of a task: conversations that end with an answer, each with its id and where it is from."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from constants.counting import counted
from data.chat_messages import Completion, Conversation, RowError
from data.conversations import open_source
from data.data_error import DataError
from data.preferences import read_preferences
from storage.files import write_atomically

_KINDS = ("slice", "meta")  # columns that say of what kinds a row is


@dataclass(frozen=True)
class TaskRow:
    """A row.

    Attributes:
        id: its id: made of its content, so that the same row has the same wherever it is from.
        messages: the conversation in OpenAI's form; the last message is the assistant's answer.
        origin: where it is from: `file` and `place`, or what made it.
        slices: kinds of rows that it is of, as the user's file says: its `slice`, and what is in its `meta`.
        rejected: an answer that is worse; "" where the row is no pair.
    """

    id: str
    messages: tuple[dict[str, Any], ...]
    origin: dict[str, Any]
    slices: Mapping[str, str] = field(default_factory=dict)
    rejected: str = ""

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The conversation up to the answer."""
        return list(self.messages[:-1])

    @property
    def question(self) -> str:
        """The text of the last message before the answer."""
        return str(self.messages[-2].get("content") or "")

    @property
    def answer(self) -> str:
        """The answer's text."""
        return str(self.messages[-1].get("content") or "")


@dataclass(frozen=True)
class RowsFound:
    """Rows of a file of the user's.

    Attributes:
        rows: rows that can be used.
        told: what the file is, in a line.
        left_out: of rows that can't be used how many, and the first of each kind, a line each.
    """

    rows: list[TaskRow]
    told: str
    left_out: list[str]


def read_samples(path: Path) -> RowsFound:
    """Read rows of any format that training reads (docs/language_data.md); a prompt and its completion are a chat.

    Args:
        path: file or folder.

    Raises:
        DataError: there is no row, or no format fits.
    """
    source = open_source(path)
    form, why = source.data_format, source.why
    if source.data_format == "prompt_completion" and not any(
        isinstance(row.example, Conversation) for row in source.rows()
    ):
        source = open_source(path, "alpaca", {"instruction": "prompt", "output": "completion"})
        why = "a prompt is a question, its completion the answer"
    rows, bad, first = [], Counter[str](), dict[str, str]()
    ids = Counter[str]()
    raw = {row.place: row.value for row in source.files.rows() if isinstance(row.value, Mapping)}
    for row in source.rows():
        example = row.example
        reason = _why_not(example)
        if reason is not None:
            bad[reason] += 1
            first.setdefault(reason, f"{row.place}: {example if isinstance(example, RowError) else reason}")
            continue
        assert isinstance(example, Conversation)
        key = _different(row_id(example.messages), ids)
        origin = {"file": Path(path).name, "place": row.place}
        rows.append(TaskRow(key, example.messages, origin, _slices_in(raw.get(row.place, {}))))
    if not rows:
        raise DataError(f"{path} has no row with a question and an answer. " + " ".join(first.values()))
    left_out = [f"{counted(count, 'row')} left out, {reason}: {first[reason]}" for reason, count in bad.most_common()]
    kinds = dict.fromkeys(name for row in rows for name in row.slices)
    unused = tuple(name for name in source.unused if not kinds or name not in _KINDS)
    told = replace(source, data_format=form, why=why, unused=unused).told()
    return RowsFound(rows, f"{told}; told apart by {', '.join(kinds)}" if kinds else told, left_out)


def _slices_in(value: Mapping[str, Any]) -> dict[str, str]:
    """Return what a row of the user's says of the kinds that it is of."""
    found: dict[str, str] = {}
    meta = value.get("meta")
    for name, part in [("slice", value.get("slice")), *(meta.items() if isinstance(meta, Mapping) else ())]:
        if isinstance(part, str | int | float) and str(part).strip():
            found[str(name)] = str(part).strip()
    return found


def read_pairs(path: Path) -> RowsFound:
    """Read pairs of answers, of which one is preferred (docs/language_models.md has their forms).

    Args:
        path: file or folder.

    Raises:
        DataError: there is no pair.
    """
    rows: list[TaskRow] = []
    bad, first, ids = Counter[str](), dict[str, str](), Counter[str]()
    for place, pair in read_preferences(path):
        reason = pair.reason if isinstance(pair, RowError) else None
        texts = [] if isinstance(pair, RowError) else [_as_chat(one) for one in (pair.chosen, pair.rejected)]
        if reason is None and not all(messages[-1].get("content") for messages in texts):
            reason = "one of its answers is no text"
        if reason is not None:
            bad[reason] += 1
            first.setdefault(reason, f"{place}: {pair if isinstance(pair, RowError) else reason}")
            continue
        key = row_id([*texts[0], texts[1][-1]])
        ids[key] += 1
        name = key if ids[key] == 1 else f"{key}-{ids[key]}"
        origin = {"file": Path(path).name, "place": place}
        rows.append(TaskRow(name, texts[0], origin, rejected=str(texts[1][-1]["content"])))
    if not rows:
        raise DataError(f"{path} has no pair of answers, which this trainer learns from. " + " ".join(first.values()))
    left_out = [f"{counted(count, 'row')} left out, {reason}: {first[reason]}" for reason, count in bad.most_common()]
    return RowsFound(rows, f"{path}: {counted(len(rows), 'pair')} of answers", left_out)


def _as_chat(example: Conversation | Completion) -> tuple[dict[str, Any], ...]:
    if isinstance(example, Conversation):
        return example.messages
    return ({"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.completion})


def _why_not(example: Conversation | Completion | object) -> str | None:
    if isinstance(example, RowError):
        return example.reason
    if not isinstance(example, Conversation):
        return "it is a text without question and answer"
    if len(example.messages) < 2 or example.messages[-1]["role"] != "assistant":
        return "it does not end with an assistant's answer"
    if not str(example.messages[-1].get("content") or "").strip():
        return "its answer is no text"
    return None


def _different(key: str, ids: Counter[str]) -> str:
    """Return an id that no row before has: with a number behind where one has it."""
    ids[key] += 1
    return key if ids[key] == 1 else f"{key}-{ids[key]}"


def row_id(messages: Sequence[dict[str, Any]]) -> str:
    """Return the id of a row with these messages."""
    return hashlib.sha256(json.dumps(list(messages), sort_keys=True).encode()).hexdigest()[:12]


def split_rows(rows: Sequence[TaskRow], share: float) -> tuple[list[TaskRow], list[TaskRow]]:
    """Hold back a share of the rows, by their questions: no question is on both sides.

    Args:
        rows: rows.
        share: share of the different questions that is held back, at least one.

    Returns:
        Rows to train on and rows to measure with, in their order.

    Raises:
        DataError: there are not two different questions.
    """
    questions = sorted({question_digest(row) for row in rows})
    if len(questions) < 2:
        raise DataError("all rows ask the same question; to measure, two different ones are needed at least")
    held = set(questions[: max(1, min(len(questions) - 1, round(share * len(questions))))])
    return ([row for row in rows if question_digest(row) not in held],
            [row for row in rows if question_digest(row) in held])  # fmt: skip


def question_digest(row: TaskRow) -> str:
    """Return a digest of what a row asks, whatever it answers."""
    return row_id(row.asked)


PASSAGES_END = "passages_end"
"""Entry of an origin: how many letters of the question are passages, which were put in front of it."""


def bare_question(row: TaskRow) -> str:
    """Return what a row asks last, without passages in front of it."""
    return row.question[int(row.origin.get(PASSAGES_END) or 0) :]


def with_changes(rows: Sequence[TaskRow], drop: Collection[str], add: Sequence[TaskRow]) -> list[TaskRow]:
    """Return rows after some are taken out and others added; what is done already stays done.

    Args:
        rows: rows.
        drop: ids of rows to take out.
        add: rows to add; those whose ids are there already are not added again.
    """
    kept = [row for row in rows if row.id not in set(drop)]
    there = {row.id for row in kept}
    return [*kept, *(row for row in add if row.id not in there)]


def relabelled(row: TaskRow, answer: str) -> TaskRow:
    """Return a row with another answer, which says what it had before.

    Args:
        row: the row.
        answer: its new answer.
    """
    messages = (*row.messages[:-1], {**row.messages[-1], "content": answer})
    return replace(row, id=row_id(messages), messages=messages, origin={**row.origin, "answer_before": row.answer})


def write_rows(path: Path, rows: Sequence[TaskRow]) -> None:
    """Write rows as training reads them: JSON lines with `id`, `messages`, `origin`, and `slices` where it has some.

    Raises:
        OutputError: it can't be written.
    """
    values = (
        {"id": row.id, "messages": row.messages, "origin": row.origin}
        | ({"slices": dict(row.slices)} if row.slices else {})
        | ({"rejected": row.rejected} if row.rejected else {})
        for row in rows
    )
    lines = (json.dumps(value, ensure_ascii=False) for value in values)
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))


def read_rows(path: Path) -> list[TaskRow]:
    """Read rows that `write_rows` has written, or that a person has changed since.

    Raises:
        DataError: a line is no such row.
    """
    return list(_rows_of(path))


def _rows_of(path: Path) -> Iterator[TaskRow]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from None
    ids = Counter[str]()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            messages = Conversation.of(value["messages"]).messages
            reason = _why_not(Conversation.of(value["messages"]))
            if reason:
                raise ValueError(reason)
            key = _different(str(value.get("id") or row_id(messages)), ids)
            slices = {str(name): str(part) for name, part in dict(value.get("slices") or {}).items()}
            rejected = str(value.get("rejected") or "")
            yield TaskRow(key, messages, dict(value.get("origin") or {}), slices, rejected)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}:{number}: no row with `messages`: {error}") from None
