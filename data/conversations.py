"""Formats of text data: found out by the names of the columns, told, and brought to conversations."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from constants.counting import counted
from data.chat_messages import WEIGHTS, Completion, Conversation, Document, Example, RowError
from data.data_error import DataError
from data.text_files import TEXT, FileRow, TextFiles, find_files

AUTO = "auto"
MESSAGES, PROMPT_COMPLETION, ALPACA, SHAREGPT, CHATML, PLAIN = (
    "messages", "prompt_completion", "alpaca", "sharegpt", "chatml", "text",
)  # fmt: skip
_LOOKED_AT = 200  # rows by which the format is found out
_NEEDED = {
    MESSAGES: "`messages`, a list of role and content",
    PROMPT_COMPLETION: "`prompt` and `completion`, taken as they are, without a chat template",
    ALPACA: "`instruction` and `output`, perhaps `input`",
    SHAREGPT: "`conversations`, a list of from and value",
    CHATML: "`text` with <|im_start|> and <|im_end|>",
    PLAIN: "`text`, of which all is trained on",
}
_ASKED = {  # where only questions are wanted; answers are not looked at
    PROMPT_COMPLETION: "`prompt`",
    ALPACA: "`instruction`, perhaps `input`",
    PLAIN: "`text`, or lines of text",
}
FORMATS = tuple(_NEEDED)
_QUESTIONS = {"human", "input", "instruction", "prompt", "q", "query", "question", "questions", "request", "user"}
_ANSWERS = {
    "answer",
    "answers",
    "chosen",
    "response",
    "output",
    "completion",
    "reply",
    "assistant",
    "target",
    "label",
    "a",
}
_LISTS = ("messages", "conversations", "conversation")
_USED = {
    MESSAGES: {*_LISTS, "system", "tools"}, PROMPT_COMPLETION: {"prompt", "completion", "tools"},
    ALPACA: {"instruction", "input", "output", "system", "history"}, SHAREGPT: {*_LISTS, "system", "tools"},
    CHATML: {"text"}, PLAIN: {"text"},
}  # fmt: skip
_SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "model": "assistant", "system": "system", "tool": "tool", "observation": "tool", "function_response": "tool",
    "function_call": "assistant",
}  # fmt: skip
_TURN = re.compile(r"<\|im_start\|>([^\n]*)\n(.*?)<\|im_end\|>", re.DOTALL)
_BETWEEN = re.compile(r"(?:\s|<\|endoftext\|>|<s>|</s>)*")


@dataclass(frozen=True)
class Row:
    """One example of a source.

    Attributes:
        place: where it is, such as `line 5`.
        example: what it says, or why it can't be used.
    """

    place: str
    example: Example | RowError


@dataclass(frozen=True)
class TextSource:
    """Rows of text data whose format is known. Made by `open_source`.

    Attributes:
        files: files that are read.
        data_format: one of `FORMATS`.
        why: how the format was found out.
        unused: names of columns that are not used.
        columns: names of the format's columns, and what they are called in the files.
        answers: whether rows need answers; else they may lack them, and are not looked at where they have some.
        absent: columns of the files that `columns` names, and no row has by which the format was found out.
    """

    files: TextFiles
    data_format: str
    why: str
    unused: tuple[str, ...]
    columns: Mapping[str, str]
    answers: bool = True
    absent: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """File or folder that was given."""
        return self.files.path

    def told(self) -> str:
        """Say in one line what was found, and why."""
        count = f", {len(self.files.files)} files" if self.path.is_dir() else ""
        unused = f"; not used: {', '.join(self.unused)}" if self.unused else ""
        unused += (
            f"; data_columns names {', '.join(self.absent)}, which no row has that was looked at" if self.absent else ""
        )
        passed = f"; not read: {', '.join(self.files.passed_over[:3])}" if self.files.passed_over else ""
        return f"{self.path}: {self.files.kinds}{count}, format {self.data_format} ({self.why}){unused}{passed}"

    def rows(self) -> Iterator[Row]:
        """Read all rows; of a row that can't be used why."""
        convert = _CONVERTERS[self.data_format]
        for row in self.files.rows():
            for place, value in _parts(row, self):
                if isinstance(value, RowError):
                    yield Row(place, value)
                    continue
                try:
                    yield Row(place, convert(_renamed(value, self.columns), self.answers))
                except RowError as error:
                    yield Row(place, error)


def open_source(
    path: Path | str, data_format: str = AUTO, columns: Mapping[str, str] | None = None, answers: bool = True
) -> TextSource:
    """Find out the format of text data.

    Args:
        path: file or folder, as `data.text_files.find_files` takes it.
        data_format: one of `FORMATS`; `auto` finds it out.
        columns: names of the format's columns and what they are called in the files, such as
            `{"prompt": "question", "completion": "answer"}`.
        answers: whether rows need answers. Without, a prompt or an instruction is enough, and each line of a file of
            text is a row.

    Returns:
        The source; nothing but its beginning has been read.

    Raises:
        DataError: there is nothing to read, no format fits, or several do.
    """
    files, columns = find_files(path), dict(columns or {})
    if data_format != AUTO and data_format not in FORMATS:
        raise DataError(f"data_format is {data_format}; allowed are {AUTO}, {', '.join(FORMATS)}.")
    known = {name for used in _USED.values() for name in used}
    if strange := sorted(set(columns) - known):
        raise DataError(
            f"data_columns names {strange[0]}, which no format has; allowed are {', '.join(sorted(known))}."
        )
    rows = list(islice(files.rows(), _LOOKED_AT))
    good = [(row.place, _renamed(row.value, columns)) for row in rows if not isinstance(row.value, RowError)]
    if not rows:
        raise DataError(f"{path} has no row.")
    if not good:
        first = rows[0]
        raise DataError(
            f"{path}: none of the first {counted(len(rows), 'row')} can be read; {first.place}: {first.value}."
        )
    names = list(dict.fromkeys(name for _, value in good for name in value))
    if data_format == AUTO:
        data_format, why = _found(path, good, names, answers)
    else:
        why = "as data_format says"
        if not any(
            data_format in _fitting(value, answers) or _has_columns(data_format, value, answers) for _, value in good
        ):
            needed = _needed(answers)[data_format]
            raise DataError(f"{path}: data_format = {data_format} needs {needed}; the rows have {_listed(names)}.")
    unused = tuple(name for name in names if name not in _USED[data_format])
    there = {name for row in rows if not isinstance(row.value, RowError) for name in row.value}
    absent = tuple(other for other in columns.values() if other not in there)
    return TextSource(files, data_format, why, unused, columns, answers, absent)


def parse_columns(text: str) -> dict[str, str]:
    """Read `prompt=question, completion=answer`.

    Args:
        text: pairs of a format's column and what it is called in the files; empty for none.

    Raises:
        DataError: a pair without `=`.
    """
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if any(not (name.strip() and sign and other.strip()) for name, sign, other in pairs):
        raise DataError(f"data_columns is {text}; it must be pairs such as prompt=question, completion=answer.")
    return {name.strip(): other.strip() for name, _, other in pairs}


def _needed(answers: bool) -> dict[str, str]:
    return _NEEDED if answers else _NEEDED | _ASKED


def _found(
    path: Path | str, rows: list[tuple[str, Mapping[str, Any]]], names: list[str], answers: bool
) -> tuple[str, str]:
    """Return the one format that fits, and why."""
    first: dict[str, str] = {}
    for place, value in rows:
        for name in _fitting(value, answers):
            first.setdefault(name, place)
    formats = _needed(answers)
    if not first:
        needed = "; ".join(f"{name}: {what}" for name, what in formats.items())
        raise DataError(
            f"{path}: no format fits rows with {_listed(names)}. {_advice(names, answers)} Formats are {needed}."
        )
    if len(first) > 1:
        fits = " and ".join(f"{name} ({place}: {formats[name]})" for name, place in first.items())
        choices = " or ".join(f"data_format = {name}" for name in first)
        raise DataError(f"{path}: the format isn't clear, since rows fit {fits}. Say which is meant: {choices}.")
    found = next(iter(first))
    return found, f"rows have {formats[found]}"


def _advice(names: list[str], answers: bool) -> str:
    """Say how columns of other names are given, by the file's own names where these say what they are."""
    asked = next((name for name in names if name.strip().lower() in _QUESTIONS), None)
    answered = next((name for name in names if name.strip().lower() in _ANSWERS), None)
    question, answer = asked or "question", answered or "answer"
    if not answers:
        return f"Name the column of questions: data_columns = instruction={question}."
    return (
        f"Name the columns of questions and answers: data_columns = instruction={question}, output={answer} for the "
        f"model's chat template; data_columns = prompt={question}, completion={answer} for text as it is."
    )


def _fitting(value: Mapping[str, Any], answers: bool) -> list[str]:
    """Return the formats that a row may be of."""
    fitting = []
    for name in _LISTS:
        kind = _kind_of_list(value.get(name))
        if kind and kind not in fitting:
            fitting.append(kind)
    fitting += [name for name in (PROMPT_COMPLETION, ALPACA) if _has_columns(name, value, answers)]
    if isinstance(value.get("text"), str):
        fitting.append(CHATML if "<|im_start|>" in value["text"] else PLAIN)
    return fitting


def _has_columns(name: str, value: Mapping[str, Any], answers: bool) -> bool:
    asked = {PROMPT_COMPLETION: {"prompt"}, ALPACA: {"instruction"}, PLAIN: {"text"}, CHATML: {"text"}}
    answered = {PROMPT_COMPLETION: {"completion"}, ALPACA: {"output"}}
    if name in asked:
        return asked[name] | (answered.get(name, set()) if answers else set()) <= value.keys()
    return any(other in value for other in _LISTS)


def _kind_of_list(value: Any) -> str | None:
    """Say by the first message of a list whether it has role and content, or from and value."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    first = value[0] if isinstance(value, list) and value else None
    if not isinstance(first, Mapping):
        return None
    return SHAREGPT if "from" in first and "role" not in first else MESSAGES


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:12]) or "no column"


def _renamed(value: Mapping[str, Any] | RowError, columns: Mapping[str, str]) -> Mapping[str, Any]:
    if isinstance(value, RowError) or not columns:
        return {} if isinstance(value, RowError) else value
    taken = set(columns.values())
    new = {name: value[other] for name, other in columns.items() if other in value}
    return {**{name: part for name, part in value.items() if name not in taken and name not in columns}, **new}


def _parts(row: FileRow, source: TextSource) -> Iterator[tuple[str, Mapping[str, Any] | RowError]]:
    """Cut a file of ChatML text into its conversations, and one of questions into lines; anything else is one row."""
    is_text = source.files.files[0][1] == TEXT and not isinstance(row.value, RowError)
    if is_text and source.data_format == PLAIN and not source.answers:
        for number, line in enumerate(str(row.value["text"]).split("\n"), 1):  # type: ignore[index]
            if line.strip():
                yield f"{row.place} line {number}" if source.path.is_dir() else f"line {number}", {"text": line.strip()}
        return
    if source.data_format != CHATML or isinstance(row.value, RowError) or source.files.files[0][1] != TEXT:
        yield row.place, row.value
        return
    text, at = str(row.value["text"]), 0
    for end in [
        match.end() for match in re.finditer(r"<\|im_end\|>[ \t]*\r?\n(?=[ \t]*\r?\n)|<\|endoftext\|>", text)
    ] + [len(text)]:
        part = text[at:end]
        if _BETWEEN.fullmatch(part) is None:
            first = at + len(part) - len(part.lstrip())
            line = f"line {text.count(chr(10), 0, first) + 1}"
            yield (f"{row.place} {line}" if source.path.is_dir() else line), {"text": part}
        at = end


def _string(value: Mapping[str, Any], name: str, default: str | None = None) -> str:
    found = value.get(name, default)
    if found is None and default is not None:
        return default
    if not isinstance(found, str):
        if name not in value:
            raise RowError(f"there is no `{name}`")
        raise RowError(f"`{name}` is no text", f"it is {'null' if found is None else repr(found)[:40]}")
    return found


def _list(value: Mapping[str, Any], name: str) -> list[Any]:
    found = value.get(name)
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError as error:
            raise RowError(f"`{name}` is no JSON", str(error)) from error
    if not isinstance(found, list):
        raise RowError(f"`{name}` is no list" if name in value else f"there is no `{name}`")
    return found


def _name_of_list(value: Mapping[str, Any]) -> str:
    return next((name for name in _LISTS if value.get(name) is not None), _LISTS[0])


def _of_messages(value: Mapping[str, Any], answers: bool) -> Example:
    messages = _list(value, _name_of_list(value))
    if value.get("system"):
        if any(isinstance(message, Mapping) and message.get("role") == "system" for message in messages[:1]):
            raise RowError("there are two system messages: `system`, and one among the messages")
        messages = [{"role": "system", "content": _string(value, "system")}, *messages]
    return _with_answer(Conversation.of(messages, value.get("tools")), answers)


def _of_sharegpt(value: Mapping[str, Any], answers: bool) -> Example:
    turns = _list(value, _name_of_list(value))
    messages: list[dict[str, Any]] = []
    if value.get("system"):
        messages.append({"role": "system", "content": _string(value, "system")})
    for number, turn in enumerate(turns, 1):
        speaker = turn.get("from") if isinstance(turn, Mapping) else None
        if speaker not in _SPEAKERS:
            raise RowError(f"unknown role; allowed are {', '.join(_SPEAKERS)}", f"message {number} is from {speaker!r}")
        message: dict[str, Any] = {"role": _SPEAKERS[speaker], "content": turn.get("value")}
        if speaker == "function_call":
            message |= {"content": None, "tool_calls": _called(turn.get("value"), number)}
        message |= {name: turn[name] for name in WEIGHTS if name in turn}
        messages.append(message)
    return _with_answer(Conversation.of(messages, value.get("tools")), answers)


def _called(value: Any, number: int) -> list[Any]:
    try:
        calls = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise RowError("a function_call is no JSON", f"message {number}: {error}") from error
    return calls if isinstance(calls, list) else [calls]


def _of_prompt_completion(value: Mapping[str, Any], answers: bool) -> Example:
    prompt, completion = value.get("prompt"), value.get("completion")
    if not answers:
        return Conversation.of(prompt, value.get("tools")) if isinstance(prompt, list) else Completion(
            _string(value, "prompt"), "")  # fmt: skip
    if isinstance(prompt, list):
        answer = completion if isinstance(completion, list) else [
            {"role": "assistant", "content": _answer(value, "completion")}]  # fmt: skip
        asked = [{**message, "weight": 0} if isinstance(message, Mapping) else message for message in prompt]
        return _with_answer(Conversation.of([*asked, *answer], value.get("tools")), answers)
    return Completion(_string(value, "prompt"), _answer(value, "completion"))


def _of_alpaca(value: Mapping[str, Any], answers: bool) -> Example:
    instruction, more = _string(value, "instruction"), _string(value, "input", "")
    messages: list[dict[str, Any]] = []
    if _string(value, "system", ""):
        messages.append({"role": "system", "content": value["system"]})
    if value.get("history"):
        for pair in _list(value, "history"):
            if not (isinstance(pair, list) and len(pair) == 2):
                raise RowError("`history` is no list of pairs")
            messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    messages.append({"role": "user", "content": f"{instruction}\n\n{more}" if more else instruction})
    if answers:
        messages.append({"role": "assistant", "content": _answer(value, "output")})
    return Conversation.of(messages)


def _answer(value: Mapping[str, Any], name: str) -> str:
    answer = _string(value, name)
    if not answer.strip():
        raise RowError("the answer is empty")
    return answer


def _of_chatml(value: Mapping[str, Any], answers: bool) -> Example:
    text, at, messages = _string(value, "text"), 0, []
    while at < len(text):
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing too
        turn = _TURN.match(text, at)
        if turn is None:
            break
        messages.append({"role": turn[1].strip(), "content": turn[2]})
        at = turn.end()
    if at < len(text):
        line = text.count("\n", 0, at) + 1
        raise RowError("ChatML is broken", f"line {line} of the text is outside of <|im_start|>role ... <|im_end|>")
    return _with_answer(Conversation.of(messages), answers)


def _of_text(value: Mapping[str, Any], answers: bool) -> Example:
    text = _string(value, "text")
    if not text.strip():
        raise RowError("the text is empty")
    return Document(text)


def _with_answer(chat: Conversation, answers: bool) -> Conversation:
    if answers and not any(map(chat.trains_on, range(len(chat.messages)))):
        raise RowError("there is no answer: no message of an assistant that is trained on")
    return chat


_CONVERTERS: dict[str, Callable[[Mapping[str, Any], bool], Example]] = {
    MESSAGES: _of_messages, PROMPT_COMPLETION: _of_prompt_completion, ALPACA: _of_alpaca, SHAREGPT: _of_sharegpt,
    CHATML: _of_chatml, PLAIN: _of_text,
}  # fmt: skip
