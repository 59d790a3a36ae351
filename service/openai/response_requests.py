"""Requests of OpenAI's Responses protocol, read and checked: each becomes the chat request that asks the same.

A conversation comes as items: messages, calls of functions and their results. What one answer said and called comes
back as several items, and is one message of the assistant again, so that the next prompt goes on from the sampled ids.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llm.sampling_settings import SamplingSettings
from service.openai.openai_requests import ChatRequest, chat_request
from service.openai.said_before import Said
from service.web.openai_error import INVALID_TYPE, MISSING, UNKNOWN, UNSUPPORTED, RequestError, wrong

Json = dict[str, Any]

LOGPROBS = "message.output_text.logprobs"
_NOTHING_TO_INCLUDE = "reasoning.encrypted_content"  # there are no thoughts apart from the text
_INCLUDED = (LOGPROBS, _NOTHING_TO_INCLUDE)
# Fields that are the same in chats.
_SAME = {
    "frequency_penalty", "ignore_eos", "logit_bias", "metadata", "model", "presence_penalty", "prompt_cache_key",
    "prompt_cache_retention", "return_token_ids", "safety_identifier", "seed", "service_tier", "stop", "stop_token_ids",
    "stream", "stream_options", "temperature", "top_k", "top_logprobs", "top_p", "user",
}  # fmt: skip
# Fields that change no answer: `store` says for how long it is kept, `max_tool_calls` limits tools that are refused.
_WITHOUT_EFFECT = {"max_tool_calls", "prompt_cache_options", "reasoning", "store"}
_READ = {"include", "input", "instructions", "max_output_tokens", "parallel_tool_calls", "previous_response_id", "text",
         "tool_choice", "tools"}  # fmt: skip
_ONLY: dict[str, object] = {"background": False, "truncation": "disabled"}
_ROLES = ("user", "assistant", "system", "developer")
# What a field of the chat request is called here, in what is told of errors; the longest first.
_NAMES = (
    ("response_format.json_schema", "text.format"), ("response_format", "text.format"),
    ("max_completion_tokens", "max_output_tokens"), ("messages", "input"),
)  # fmt: skip


@dataclass(frozen=True)
class ResponseRequest:
    """A request for a response.

    Attributes:
        chat: the chat request that asks the same.
        told: fields of the request that its answer repeats.
        before: what it goes on from.
        messages: what it adds to that, without `instructions`, which hold for one answer only.
    """

    chat: ChatRequest
    told: Json
    before: Said | None = None
    messages: tuple[Json, ...] = field(default=())


def response_request(
    body: Mapping[str, Any], defaults: SamplingSettings, find: Callable[[str], Said | None]
) -> ResponseRequest:
    """Check a request for a response.

    Args:
        body: its fields.
        defaults: settings of fields that it doesn't have.
        find: returns what was said up to an earlier answer, by its id; None where there is none.

    Returns:
        The request.

    Raises:
        RequestError: something can't be done.
    """
    fields = {name: value for name, value in body.items() if value is not None}
    _require_known(fields)
    before = _before(fields.get("previous_response_id"), find)
    messages = tuple(_messages(fields.get("input")))
    front = [{"role": "system", "content": fields["instructions"]}] if "instructions" in fields else []
    if not isinstance(fields.get("instructions", ""), str):
        raise wrong("instructions", fields["instructions"], "it must be a text", INVALID_TYPE)
    chat: Json = {name: fields[name] for name in _SAME if name in fields}
    chat["messages"] = [*front, *(before.all() if before is not None else ()), *messages]
    if "max_output_tokens" in fields:
        chat["max_completion_tokens"] = fields["max_output_tokens"]
    chat |= _tools(fields) | _logprobs(fields) | _format(fields)
    with told_as_response():
        asked = chat_request(chat, defaults)
    return ResponseRequest(asked, _told(fields), before, messages)


@contextmanager
def told_as_response() -> Iterator[None]:
    """Tell what is wrong with a chat request by the names that its fields have here."""
    try:
        yield
    except RequestError as error:
        message, param = error.message, error.param
        for old, new in _NAMES:
            if param is not None and param.startswith(old):
                param, message = new + param[len(old) :], message.replace(old, new, 1)
                break
        if param is not None and param.startswith("tools["):
            param, message = param.replace(".function", "", 1), message.replace(".function", "", 1)
        raise RequestError(message, param, error.status, error.kind, error.code, error.headers) from error


def _require_known(fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name in _ONLY:
            if value != _ONLY[name]:
                raise wrong(name, value, f"only {json.dumps(_ONLY[name])} is supported", UNSUPPORTED)
        elif name == "conversation":
            raise wrong(name, value, "it is not supported: send the items, or previous_response_id", UNSUPPORTED)
        elif name not in _SAME | _WITHOUT_EFFECT | _READ:
            known = ", ".join(sorted(_SAME | _READ))
            raise RequestError(f"{name} is not supported; known are {known}", name, code=UNKNOWN)


def _before(id: object, find: Callable[[str], Said | None]) -> Said | None:
    if id is None:
        return None
    said = find(id) if isinstance(id, str) else None
    if said is None:
        raise RequestError(
            f"previous_response_id is {json.dumps(id)}; there is no such response any more: send all items as input",
            "previous_response_id", code="previous_response_not_found",
        )  # fmt: skip
    return said


def _messages(given: object) -> list[Json]:
    """Return the messages of items."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise wrong("input", given, "it must be a text, or a list of 1 item or more",
                    MISSING if given is None else INVALID_TYPE)  # fmt: skip
    messages: list[Json] = []
    open_answer = False  # whether a call would belong to the message before
    for number, item in enumerate(given):
        where = f"input[{number}]"
        if not isinstance(item, dict):
            raise wrong(where, item, "it must be an object", INVALID_TYPE)
        kind = item.get("type") or "message"
        if kind == "message":
            messages.append(_message(item, where))
            open_answer = messages[-1]["role"] == "assistant"
        elif kind == "function_call":
            if not open_answer:
                messages.append({"role": "assistant", "content": None})
                open_answer = True
            messages[-1].setdefault("tool_calls", []).append(_call(item, where))
        elif kind == "function_call_output":
            if not isinstance(item.get("call_id"), str):
                raise wrong(
                    f"{where}.call_id", item.get("call_id"), "it must be the call_id of a function_call", MISSING
                )
            text = _text(item.get("output"), f"{where}.output")
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": text})
            open_answer = False
        elif kind != "reasoning" or item.get("summary") or item.get("content") or item.get("encrypted_content"):
            raise wrong(f"{where}.type", kind, "supported are message, function_call and function_call_output",
                        UNSUPPORTED)  # fmt: skip
    if not messages:
        raise wrong("input", given, "it has no message")
    return messages


def _message(item: Mapping[str, Any], where: str) -> Json:
    if item.get("role") not in _ROLES:
        raise wrong(f"{where}.role", item.get("role"), f"allowed are {', '.join(_ROLES)}",
                    MISSING if item.get("role") is None else INVALID_TYPE)  # fmt: skip
    return {"role": item["role"], "content": _text(item.get("content"), f"{where}.content")}


def _text(content: object, where: str) -> str:
    """Return the text of a content, which may come in parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong(
            where, content, "it must be a text, or a list of parts", MISSING if content is None else INVALID_TYPE
        )
    texts = []
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        name = "refusal" if kind == "refusal" else "text"
        if kind not in ("input_text", "output_text", "text", "refusal") or not isinstance(part.get(name), str):
            raise wrong(
                f"{where}[{number}].type", kind, "only text is supported: input_text and output_text", UNSUPPORTED
            )
        texts.append(part[name])
    return "".join(texts)


def _call(item: Mapping[str, Any], where: str) -> Json:
    for name in ("call_id", "name", "arguments"):
        if not isinstance(item.get(name), str):
            raise wrong(f"{where}.{name}", item.get(name), "it must be a text", MISSING)
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def _result(item: Mapping[str, Any], where: str) -> Json:
    id = item.get("call_id")
    if not isinstance(id, str):
        raise wrong(f"{where}.call_id", id, "it must be the call_id of a function_call", MISSING)
    return {"role": "tool", "tool_call_id": id, "content": _text(item.get("output"), f"{where}.output")}


def _tools(fields: Mapping[str, Any]) -> Json:
    """Return the tools, and which of them may be called, in the form of chats."""
    given = fields.get("tools", [])
    if not isinstance(given, list):
        raise wrong(
            "tools", given, "it must be a list of {type: function, name, description, parameters}", INVALID_TYPE
        )
    tools = []
    for number, tool in enumerate(given):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind != "function":
            raise wrong(f"tools[{number}].type", kind, 'only "function" is supported', UNSUPPORTED)
        if not isinstance(tool.get("name"), str):
            raise wrong(f"tools[{number}].name", tool.get("name"), "it must be the name of the function", MISSING)
        function = {name: tool[name] for name in ("name", "description", "parameters", "strict")
                    if tool.get(name) is not None}  # fmt: skip
        tools.append({"type": "function", "function": function})
    if not tools:  # what is said about calls then says nothing
        if fields.get("tool_choice", "auto") not in ("auto", "none"):
            raise wrong("tool_choice", fields["tool_choice"], "it needs tools")
        return {}
    found: Json = {"tools": tools}
    if "parallel_tool_calls" in fields:
        found["parallel_tool_calls"] = fields["parallel_tool_calls"]
    if "tool_choice" in fields:
        found["tool_choice"] = _choice(fields["tool_choice"])
    return found


def _choice(given: object) -> object:
    if not isinstance(given, dict):
        return given
    if given.get("type") == "function":
        return {"type": "function", "function": {"name": given.get("name")}}
    if given.get("type") == "allowed_tools" and isinstance(given.get("tools"), list):
        named = [_choice(each) for each in given["tools"]]
        return {"type": "allowed_tools", "allowed_tools": {"mode": given.get("mode"), "tools": named}}
    return given


def _logprobs(fields: Mapping[str, Any]) -> Json:
    included = fields.get("include", [])
    if not isinstance(included, list) or not all(each in _INCLUDED for each in included):
        raise wrong("include", included, f"supported are {' and '.join(_INCLUDED)}", UNSUPPORTED)
    return {"logprobs": True} if LOGPROBS in included or fields.get("top_logprobs") is not None else {}


def _format(fields: Mapping[str, Any]) -> Json:
    text = fields.get("text", {})
    if not isinstance(text, dict) or not text.keys() <= {"format", "verbosity"}:
        raise wrong("text", text, "it must be an object with format and verbosity", INVALID_TYPE)
    given = text.get("format")
    if given is None:
        return {}
    if isinstance(given, dict) and given.get("type") == "json_schema":
        schema = {name: value for name, value in given.items() if name != "type" and value is not None}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"response_format": given}


def _told(fields: Mapping[str, Any]) -> Json:
    """Return what an answer repeats of its request, each with its default."""
    text = {"format": {"type": "text"}, **{name: value for name, value in fields.get("text", {}).items() if value}}
    defaults: Json = {
        "background": False, "instructions": None, "max_output_tokens": None, "metadata": {},
        "parallel_tool_calls": True, "previous_response_id": None, "reasoning": {"effort": None, "summary": None},
        "temperature": 1.0, "text": text, "tool_choice": "auto", "tools": [], "top_p": 1.0, "truncation": "disabled",
        "user": None,
    }  # fmt: skip
    given: Sequence[str] = [name for name in defaults if name in fields and name != "text"]
    return {**defaults, **{name: fields[name] for name in given}}
