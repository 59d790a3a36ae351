"""Pairs of answers to one question, of which one is preferred, read from files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.chat_messages import Completion, Conversation, RowError
from data.conversations import parse_columns
from data.data_error import DataError
from data.text_files import find_files

NEEDED = (
    "`prompt` (messages, or text that is taken as it is), `chosen` and `rejected`; or `messages` that end with the "
    "better answer, and `rejected`; or `chosen` and `rejected` as conversations that begin alike"
)


@dataclass(frozen=True)
class Preference:
    """Two answers to one question.

    Attributes:
        place: where the row is, such as `line 5`.
        chosen: the question with the better answer.
        rejected: the question with the other one.
    """

    place: str
    chosen: Conversation | Completion
    rejected: Conversation | Completion


def read_preferences(path: Path, columns: str = "") -> Iterator[tuple[str, Preference | RowError]]:
    """Read rows.

    Args:
        path: .jsonl, .json, .csv or .parquet file, or a folder of them.
        columns: names of columns that are called otherwise, such as `prompt=question`.

    Yields:
        Where a row is, and what it says or why it can't be used.

    Raises:
        DataError: there is no such file, or no row.
    """
    names, empty = parse_columns(columns), True
    for row in find_files(path).rows():
        empty = False
        try:
            if isinstance(row.value, RowError):
                raise row.value
            value = {**row.value, **{name: row.value[other] for name, other in names.items() if other in row.value}}
            yield row.place, preference_of(value, row.place)
        except RowError as error:
            yield row.place, error
    if empty:
        raise DataError(f"{path} has no row.")


def preference_of(value: Mapping[str, Any], place: str) -> Preference:
    """Return the two answers of a row.

    Args:
        value: the row.
        place: where it is.

    Raises:
        RowError: it has not two different answers to one question.
    """
    chosen, rejected, prompt = value.get("chosen"), value.get("rejected"), value.get("prompt")
    messages = value.get("messages")
    if rejected is None or (chosen is None and not isinstance(messages, list)):
        raise RowError(f"a pair is {NEEDED}", f"the row has {', '.join(map(str, value)) or 'nothing'}")
    if isinstance(prompt, str):
        if not isinstance(chosen, str) or not isinstance(rejected, str):
            raise RowError("the prompt is text, and an answer is not")
        found = Preference(place, Completion(prompt, chosen), Completion(prompt, rejected))
    else:
        asked = prompt if isinstance(prompt, list) else messages if isinstance(messages, list) else []
        if chosen is None:
            asked, chosen = asked[:-1], asked[-1:]
        tools = value.get("tools")
        one, other = (_conversation(asked, answer, tools) for answer in (chosen, rejected))
        if one.messages[:-1] != other.messages[:-1]:
            raise RowError("`chosen` and `rejected` are not answers to the same question")
        found = Preference(place, one, other)
    if found.chosen == found.rejected:
        raise RowError("`chosen` and `rejected` are the same: there is nothing to prefer")
    return found


def _conversation(asked: Sequence[Any], answer: Any, tools: Any) -> Conversation:
    """Return a conversation of which the last answer alone is trained on."""
    if isinstance(answer, str):
        answer = [{"role": "assistant", "content": answer}]
    elif isinstance(answer, Mapping):
        answer = [answer]
    whole = [*asked, *(answer if isinstance(answer, list) else [])]
    if len(whole) < 2 or not isinstance(whole[-1], Mapping) or whole[-1].get("role") != "assistant":
        raise RowError("a pair does not end with an assistant's answers")
    before = [{**message, "weight": 0} if isinstance(message, Mapping) else message for message in whole[:-1]]
    return Conversation.of([*before, {**whole[-1], "weight": 1}], tools)
