"""What a row of text data is: a conversation, a prompt with its completion, or a document."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WEIGHTS = ("weight", "train", "training")  # names of whether a message is trained on
ROLES = ("system", "developer", "user", "assistant", "tool")
_OTHER_ROLES = {"function": "tool"}  # of OpenAI's first interface
SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character, which has no bytes
_TEXT_PARTS = ("text", "input_text", "output_text")  # the last two in OpenAI's later interface
_REASONING = ("reasoning_content", "reasoning", "thinking")


class RowError(ValueError):
    """A row that can't be used; the text says why, without the place of the row.

    Args:
        reason: why, in words that many rows may share: `the answer is empty`.
        detail: what only this row has, such as the number of the message.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Conversation:
    """Messages in the form that chat templates take. Made by `Conversation.of`.

    Attributes:
        messages: `role`, `content` (text or None), and what else a message has; arguments of tool calls are mappings.
        tools: descriptions of the tools, as JSON schemas.
        weights: of each message whether it is trained on, where it is an assistant's.
    """

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    weights: tuple[bool, ...] = field(default=())

    @staticmethod
    def of(
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | str | None = None,
        broken_calls: bool = False,
    ) -> "Conversation":
        """Bring messages of OpenAI's form into the one that templates take.

        Args:
            messages: messages with `role` and `content`; content is text, None, or a list of parts of text. Arguments
                of tool calls are mappings, or JSON text of one. An assistant's `weight` of 0 leaves it untrained.
            tools: descriptions of tools; a list, or JSON text of one.
            broken_calls: whether a call may have arguments that are no JSON of a mapping, as models write them at
                times: they stay the text that they are.

        Returns:
            The conversation.

        Raises:
            RowError: an unknown role, content that is no text, or arguments that are no JSON.
        """
        if not isinstance(messages, Sequence) or isinstance(messages, str):
            raise RowError("messages are not a list", f"they are {_kind(messages)}")
        if not messages:
            raise RowError("there is no message")
        done, weights = [], []
        for number, message in enumerate(messages, 1):
            message, weight = _message(message, f"message {number}", broken_calls)
            done.append(message)
            weights.append(weight)
        return Conversation(tuple(done), _tools(tools), tuple(weights))

    def trains_on(self, number: int) -> bool:
        """Say whether a message (counted from 0) is an assistant's that is trained on."""
        return self.messages[number]["role"] == "assistant" and (not self.weights or self.weights[number])

    def is_empty(self, number: int) -> bool:
        """Say whether a message has neither text, nor thoughts, nor tool calls."""
        message = self.messages[number]
        return not message.get("content") and not message.get("tool_calls") and not reasoning_of(message)


@dataclass(frozen=True)
class Completion:
    """Text, and what follows it; no template is put around them."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Document:
    """Text that is learned as it is, from its first word to its end."""

    text: str


Example = Conversation | Completion | Document


def reasoning_of(message: Mapping[str, Any]) -> str:
    """Return the thoughts that a message has beside its content."""
    return next((message[name] for name in _REASONING if isinstance(message.get(name), str) and message[name]), "")


def half_a_character(surrogate: str) -> RowError:
    """Say of half of a surrogate pair that its row can't be used."""
    return RowError("half a character", f"the lone surrogate \\u{ord(surrogate):04x}")


def strings_of(value: object) -> Iterator[str]:
    """Yield all text in plain data, the keys of mappings included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from strings_of(key)
            yield from strings_of(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from strings_of(part)


def _message(message: object, where: str, broken_calls: bool) -> tuple[dict[str, Any], bool]:
    if not isinstance(message, Mapping):
        raise RowError("a message is not a mapping of role and content", f"{where} is {_kind(message)}")
    role = message.get("role")
    if role not in ROLES and role not in _OTHER_ROLES:
        given = f"{where} has the role {role!r}" if "role" in message else f"{where} has no role"
        raise RowError(f"unknown role; allowed are {', '.join(ROLES)}", given)
    weight = _weight(message, where)
    calls = message.get("tool_calls")
    if not calls and isinstance(message.get("function_call"), Mapping):
        calls = [{"type": "function", "function": message["function_call"]}]
    # What is null isn't there: `'name' in message` must not hold of a message that only has the columns of others.
    done = {key: value for key, value in message.items()
            if value is not None and key not in (*WEIGHTS, "tool_calls", "function_call")}  # fmt: skip
    done["role"] = _OTHER_ROLES.get(role, role)
    done["content"] = _content(message.get("content"), bool(calls), where)
    if calls:
        done["tool_calls"] = _calls(calls, where, broken_calls)
    return done, weight != 0


def _weight(message: Mapping[str, Any], where: str) -> float:
    """Return whether a message is trained on: what it says as `weight`, or as `train`, in axolotl's words."""
    said = {name: message[name] for name in WEIGHTS if message.get(name) is not None}
    for name, value in said.items():
        if not isinstance(value, int | float) or value not in (0, 1):
            raise RowError(f"a message's {name} must be 0 or 1", f"{where} has {value!r}")
    if len(set(map(float, said.values()))) > 1:
        raise RowError(f"a message's {' and '.join(said)} say different things", where)
    return next(iter(said.values()), 1)


def _content(content: object, may_lack: bool, where: str) -> str | None:
    if isinstance(content, str):
        return content
    if content is None:
        if may_lack:
            return None
        raise RowError("a message has no content", where)
    if isinstance(content, Sequence):
        parts = []
        for part in content:
            if isinstance(part, str):
                parts.append(part)
            elif (
                isinstance(part, Mapping)
                and part.get("type", "text") in _TEXT_PARTS
                and isinstance(part.get("text"), str)
            ):
                parts.append(part["text"])
            else:
                kind = part.get("type") if isinstance(part, Mapping) else _kind(part)
                raise RowError("only text can be used", f"{where} has a part of the type {kind!r}")
        return "".join(parts)
    raise RowError("content is no text", f"that of {where} is {_kind(content)}")


def _calls(calls: object, where: str, broken: bool) -> list[dict[str, Any]]:
    if isinstance(calls, str):
        calls = _json(calls, "tool_calls", where)
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise RowError("tool_calls are not a list", f"those of {where} are {_kind(calls)}")
    done = []
    for call in calls:
        call = _json(call, "tool_calls", where) if isinstance(call, str) else call
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise RowError("a tool call has no function with a name", where)
        arguments = _kept_arguments(function.get("arguments"), where, broken)
        outer = _without_nulls(call, "function") if "function" in call else {}
        inner = {**_without_nulls(function, "arguments"), "arguments": arguments}
        done.append({"type": "function", **outer, "function": inner})
    return done


def _kept_arguments(given: object, where: str, broken: bool) -> dict[str, Any] | str:
    """Return a call's arguments; where they may be broken, the text of those that are."""
    try:
        return _arguments(given, where)
    except RowError:
        if broken and isinstance(given, str):
            return given
        raise


def _arguments(arguments: object, where: str) -> dict[str, Any]:
    if isinstance(arguments, str):
        arguments = _json(arguments, "arguments", where) if arguments.strip() else {}
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, Mapping):
        raise RowError("arguments of a tool call are not a mapping", f"those of {where} are {_kind(arguments)}")
    if not all(map(math.isfinite, _floats_of(arguments))):
        raise RowError("arguments have a number that JSON has no words for", f"{where}: it is not finite")
    return dict(arguments)


def _tools(tools: object) -> tuple[dict[str, Any], ...]:
    if isinstance(tools, str):
        tools = _json(tools, "tools", "the row") if tools.strip() else None
    if tools is None:
        return ()
    if not isinstance(tools, Sequence):
        raise RowError("tools are not a list of descriptions", f"they are {_kind(tools)}")
    found = [_json(tool, "tools", "the row") if isinstance(tool, str) else tool for tool in tools]
    strange = next((tool for tool in found if not isinstance(tool, Mapping)), None)
    if strange is not None or None in found:
        raise RowError("tools are not a list of descriptions", f"one of them is {_kind(strange)}")
    return tuple(_tool(dict(tool)) for tool in found)


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Put the schema of a tool's parameters in place of JSON text of it, without properties of other rows' tools."""
    function = tool.get("function", tool)
    if not isinstance(function, Mapping):
        raise RowError("tools are not a list of descriptions", f"the function of one is {_kind(function)}")
    function = _without_nulls(function, "parameters") | (
        {"parameters": _schema(function["parameters"])} if "parameters" in function else {}
    )
    return _without_nulls(tool, "function") | {"function": function} if "function" in tool else function


def _schema(value: Any) -> Any:
    """Return a JSON schema; what is null in it is no schema, but the key of another tool in the same column.

    A value that may be null stays: `default`, `const`, `enum` and examples.
    """
    if isinstance(value, str):
        value = _json(value, "parameters of a tool", "the row")
    if not isinstance(value, Mapping):
        return value
    done: dict[str, Any] = {}
    for key, part in value.items():
        if key in ("default", "const", "example", "examples", "enum"):
            done[key] = part
        elif key in ("properties", "$defs", "definitions", "patternProperties") and isinstance(part, Mapping):
            done[key] = {name: _schema(one) if isinstance(one, Mapping) else one
                         for name, one in part.items() if one is not None}  # fmt: skip
        elif isinstance(part, Mapping):
            done[key] = _schema(part)
        elif key in ("anyOf", "oneOf", "allOf") and isinstance(part, list):
            done[key] = [_schema(one) if isinstance(one, Mapping) else one for one in part]
        elif part is not None:
            done[key] = part
    return done


def _without_nulls(value: Mapping[str, Any], besides: str) -> dict[str, Any]:
    return {key: part for key, part in value.items() if key != besides and part is not None}


def _floats_of(value: object) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _floats_of(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _floats_of(part)


def _json(text: str, what: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RowError(f"{what} are not JSON", f"{where}: {error}") from error


def _kind(value: object) -> str:
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", dict: "a mapping", list: "a list"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
