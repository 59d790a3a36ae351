"""Tool calls as models of the ChatML kind write them: <tool_call>{"name": ..., "arguments": {...}}</tool_call>."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from data.chat_messages import SURROGATE, Conversation, RowError
from data.chat_renderer import Renderer

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_CALLS = re.compile(rf"\s*{OPEN}(.*?){CLOSE}", re.DOTALL)
# A call that was cut off once its name was known.
_CUT = re.compile(rf'\s*{OPEN}\s*{{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(.*)', re.DOTALL)


@dataclass(frozen=True)
class ToolCall:
    """A call that a model wants made.

    Attributes:
        name: name of the function.
        arguments: JSON text of an object; of a call that was cut off its beginning.
    """

    name: str
    arguments: str

    def message(self, number: int, mark: str) -> dict[str, Any]:
        """Return it in OpenAI's form.

        Args:
            number: its place among the calls of the answer.
            mark: what sets the answer apart from all others; the call's id follows from both.
        """
        digest = hashlib.sha256(f"{mark}/{number}".encode()).hexdigest()[:24]
        return {"id": f"call_{digest}", "type": "function",
                "function": {"name": self.name, "arguments": self.arguments}}  # fmt: skip


class ToolCallText:
    """Tells calls from what is said beside them, while the text comes.

    What is said before the first call is shown as it comes. What begins like a call is held back to the end: it is
    calls if all of it is, and else was said.

    Args:
        must_call: whether there can be nothing but calls.
    """

    def __init__(self, must_call: bool = False) -> None:
        self._held, self._must_call = "", must_call

    def add(self, text: str) -> str:
        """Take in text; returns what is certain to have been said."""
        self._held += text
        at = self._held.find(OPEN)
        if at < 0:
            sizes = range(min(len(OPEN) - 1, len(self._held)), 0, -1)
            at = len(self._held) - next((size for size in sizes if OPEN.startswith(self._held[-size:])), 0)
        at = len(self._held[:at].rstrip())  # the template puts space between what is said and calls
        said, self._held = self._held[:at], self._held[at:]
        return said

    def end(self, cut: bool = False) -> tuple[str, list[ToolCall]]:
        """There is no more text.

        Args:
            cut: whether there would have been more: the last call may be half of one.

        Returns:
            What else was said, and the calls.
        """
        calls, at = [], 0
        while found := _CALLS.match(self._held, at):
            call = _call(found[1])
            if call is None:
                return self._held, []
            calls.append(call)
            at = found.end()
        rest = self._held[at:]
        if cut and (half := _CUT.match(rest)):
            return "", [*calls, ToolCall(json.loads(half[1]), _beginning(half[2]))]
        if cut and (self._must_call or (calls and f"\n{OPEN}".startswith(rest))):
            return "", calls  # what was cut off had no name yet
        return (self._held, []) if rest.strip() or not calls else ("", calls)


def writes_tool_calls(renderer: Renderer) -> bool:
    """Return whether a chat template shows tools, and calls of them in the form that is understood here."""
    if not renderer.knows_tools:
        return False
    function = {"name": "probe", "arguments": {"city": "SF"}}
    ask, call = {"role": "user", "content": "question"}, {"id": "call00001", "type": "function", "function": function}
    try:
        chat = Conversation.of([ask, {"role": "assistant", "content": None, "tool_calls": [call]}])
        text = renderer.render(chat, False)
    except RowError:
        return False
    found = _CALLS.search(text)
    return found is not None and _call(found[1]) == ToolCall("probe", '{"city": "SF"}')


def _beginning(text: str) -> str:
    """Return the arguments that a text begins with, or the part of them that it has."""
    try:
        _, end = json.JSONDecoder(parse_constant=_no_number).raw_decode(text)
    except (ValueError, RecursionError):
        return text
    return text[:end]


def _call(text: str) -> ToolCall | None:
    try:
        call = json.loads(text, parse_constant=_no_number)
        arguments = json.dumps(call.get("arguments", {}), ensure_ascii=False)
    except (ValueError, AttributeError, RecursionError):
        return None
    if not isinstance(call.get("name"), str) or not isinstance(call.get("arguments", {}), dict):
        return None
    return None if SURROGATE.search(call["name"] + arguments) else ToolCall(call["name"], arguments)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
