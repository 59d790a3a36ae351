"""What is asked of whoever makes rows, and rows out of what came back."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.retrieval.passage import Passage
from agents.task.rows import TaskRow, bare_question, row_id
from data.chat_messages import Conversation, RowError

_EXAMPLES = 4  # samples that a request shows
_ROWS = 4  # rows that a request asks for


@dataclass(frozen=True)
class RowRequest:
    """Some rows that are wanted.

    Attributes:
        id: its id.
        way: how they are to be made, one of `agents.task.task_parts.WAYS`.
        count: how many.
        examples: samples that they are to be like.
        passages: what they are to be about, where the way is `documents`.
    """

    id: str
    way: str
    count: int
    examples: Sequence[TaskRow]
    passages: Sequence[Passage] = field(default=())

    def row(self, question: str, answer: str, maker: str) -> TaskRow:
        """Return a row that this request has brought, behind the system message of its first example.

        Args:
            question: what it asks.
            answer: the answer.
            maker: who made it.

        Raises:
            RowError: it has no text.
        """
        head = [dict(one) for one in self.examples[0].messages[:1] if one["role"] == "system"] if self.examples else []
        said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return self.row_of([*head, *said], maker)

    def row_of(self, messages: Sequence[Mapping[str, Any]], maker: str) -> TaskRow:
        """Return a row of messages that this request has brought.

        Args:
            messages: the conversation, in OpenAI's form; an answer at its end.
            maker: who made it.

        Raises:
            RowError: it is no conversation that ends with an answer to a question.
        """
        said = Conversation.of(messages).messages
        if len(said) < 2 or said[-1]["role"] != "assistant" or said[-2]["role"] != "user":
            raise RowError("it is no question with its answer")
        if not all(isinstance(one.get("content"), str) and one["content"].strip() for one in said[-2:]):
            raise RowError("its question or its answer is empty")
        origin: dict[str, Any] = {"made_by": maker, "way": self.way, "from": [row.id for row in self.examples]}
        if self.passages:
            origin["documents"] = [one.source for one in self.passages]
        return TaskRow(row_id(said), said, origin)


def requests_for(
    rows: Sequence[TaskRow], ways: Sequence[str], count: int, seed: int, passages: Sequence[Passage]
) -> Iterator[RowRequest]:
    """Yield requests for as many rows and a third more, since some of them can't be used; the ways take turns.

    Args:
        rows: samples, at least one.
        ways: how rows are to be made.
        count: how many are wanted.
        seed: of what is drawn.
        passages: pieces of documents; without any, none are made by `documents`.
    """
    draw, made, number = random.Random(seed), 0, 0
    ways = [way for way in ways if way != "documents" or passages]
    while ways and made < count * 4 / 3:
        way = ways[number % len(ways)]
        examples = draw.sample(list(rows), min(_EXAMPLES, len(rows)))
        about = draw.sample(list(passages), min(2, len(passages))) if way == "documents" else []
        yield RowRequest(f"{number:05d}-{way}", way, _ROWS, examples, about)
        made, number = made + _ROWS, number + 1


def shown(row: TaskRow) -> tuple[str, str]:
    """Return question and answer of a row, as they are shown to whoever makes more."""
    return bare_question(row), row.answer
