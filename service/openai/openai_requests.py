"""Requests of OpenAI's protocol, read and checked: what can't be done is refused by the name of its field.

A field that is null has its default. None is passed over in silence, but those that can't change an answer.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from data.chat_messages import SURROGATE
from llm.sampling_settings import MOST_STOPS, SamplingSettings, SettingError
from service.openai.answer_form import AnswerForm, answer_form
from service.web.openai_error import INVALID_TYPE, MISSING, UNKNOWN, UNSUPPORTED, RequestError
from service.web.openai_error import wrong as _wrong

MOST_CHOICES = 128
MOST_TOP_LOGPROBS = 20
# Of plain completions, as the protocol has it; chats go on to the end of the context.
COMPLETION_TOKENS = 16

# Fields that change no answer. How much to think and to write are hints to models that were taught to heed them.
_WITHOUT_EFFECT = {
    "metadata", "prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "safety_identifier", "service_tier",
    "user", "verbosity",
}  # fmt: skip
# Fields that do what they say only with these values.
_ONLY: dict[str, tuple[object, ...]] = {
    "min_p": (0,),
    "modalities": (["text"],),
    "repetition_penalty": (1,),
    "store": (False,),
    "suffix": ("",),
}
_SETTINGS = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty")
_COMMON = {*_SETTINGS, "ignore_eos", "logit_bias", "logprobs", "max_tokens", "model", "n", "response_format",
           "return_token_ids", "stop", "stop_token_ids", "stream", "stream_options"}  # fmt: skip
_OF_CHATS = {*_COMMON, "max_completion_tokens", "messages", "parallel_tool_calls", "tool_choice", "tools",
             "top_logprobs"}  # fmt: skip
_OF_COMPLETIONS = {*_COMMON, "best_of", "echo", "prompt"}
_NOT_OF_CHATS, _NOT_OF_COMPLETIONS = {"suffix"}, {"modalities"}
_HALF_ESCAPED = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Wanted:
    """What both kinds of requests ask.

    Attributes:
        model: name of the model.
        settings: how tokens are drawn; without a seed where the request has none.
        choices: answers to each prompt.
        stream: whether answers are sent as they grow.
        include_usage: whether a stream ends by counts of tokens.
        logprobs: None for none; else how many of the likeliest tokens are told beside each token.
        return_token_ids: whether the ids of prompts and answers are told (as vLLM does).
        form: the form that each answer must have.
        echo: whether the text of the prompt is told in front of each answer.
        only_prompt: whether nothing is told but that: the client wants no token, where the sampler gives one at least.
    """

    model: str
    settings: SamplingSettings
    choices: int
    stream: bool
    include_usage: bool
    logprobs: int | None
    return_token_ids: bool
    form: AnswerForm
    echo: bool = False
    only_prompt: bool = False


@dataclass(frozen=True)
class ChatRequest:
    """A request for the next message of a conversation.

    Attributes:
        wanted: what is asked.
        messages: the conversation, as it was sent.
    """

    wanted: Wanted
    messages: tuple[dict[str, Any], ...]

    @property
    def tools(self) -> tuple[dict[str, Any], ...]:
        """Tools that the model may call, as they were sent; none where it was told not to."""
        return self.wanted.form.tools


@dataclass(frozen=True)
class CompletionRequest:
    """A request for what follows on texts.

    Attributes:
        wanted: what is asked.
        prompts: of each its text, or its token ids.
    """

    wanted: Wanted
    prompts: tuple[str | tuple[int, ...], ...]


def read_body(body: bytes) -> dict[str, Any]:
    """Read the JSON of a request.

    Raises:
        RequestError: it is none, or it has half of a character in it.
    """
    try:
        read = json.loads(body.decode("utf-8-sig"), parse_constant=_no_number)
    except RecursionError as error:
        raise RequestError("the request's body is nested too deeply") from error
    except ValueError as error:
        raise RequestError(f"the request's body is not JSON in UTF-8: {error}") from error
    if not isinstance(read, dict):
        raise RequestError("the request's body must be a JSON object")
    if _HALF_ESCAPED.search(body):
        _require_whole(read)
    return read


def chat_request(body: Mapping[str, Any], defaults: SamplingSettings) -> ChatRequest:
    """Check a request for a chat completion.

    Args:
        body: its fields.
        defaults: settings of fields that it doesn't have.

    Returns:
        The request. Its messages are checked by who renders them.

    Raises:
        RequestError: something can't be done.
    """
    fields = _fields(body, _OF_CHATS, _NOT_OF_CHATS)
    if not isinstance(fields.get("messages"), list) or not fields["messages"]:
        raise _missing("messages", fields.get("messages"), "it must be a list of 1 message or more")
    for number, message in enumerate(fields["messages"], 1):
        if not isinstance(message, dict):
            raise _wrong("messages", message, f"message {number} must be an object with role and content")
    logprobs = _flag(fields, "logprobs")
    top = _whole(fields, "top_logprobs", 0, MOST_TOP_LOGPROBS)
    if top is not None and not logprobs:
        raise _wrong("top_logprobs", top, "it needs logprobs: true")
    most = "max_tokens"
    if "max_completion_tokens" in fields:
        most = "max_completion_tokens"
        if fields.get("max_tokens", fields[most]) != fields[most]:
            raise _wrong("max_tokens", fields["max_tokens"], f"max_completion_tokens is {fields[most]}: give one")
    wanted = _wanted(fields, defaults, most, (top or 0) if logprobs else None)
    return ChatRequest(wanted, tuple(fields["messages"]))


def completion_request(body: Mapping[str, Any], defaults: SamplingSettings) -> CompletionRequest:
    """Check a request for a completion.

    Args:
        body: its fields.
        defaults: settings of fields that it doesn't have; 16 tokens, as the protocol has it, where they name no number.

    Returns:
        The request.

    Raises:
        RequestError: something can't be done.
    """
    fields = _fields(body, _OF_COMPLETIONS, _NOT_OF_COMPLETIONS)
    if defaults.max_tokens is None:
        defaults = replace(defaults, max_tokens=COMPLETION_TOKENS)
    echo, logprobs = _flag(fields, "echo"), _whole(fields, "logprobs", 0, MOST_TOP_LOGPROBS)
    only_prompt = echo and fields.get("max_tokens") == 0 and not isinstance(fields["max_tokens"], bool)
    wanted = _wanted({**fields, "max_tokens": 1} if only_prompt else fields, defaults, "max_tokens", logprobs)
    if fields.get("best_of", wanted.choices) != wanted.choices:
        raise _wrong("best_of", fields["best_of"], "only the value of n is supported: ask for n answers with logprobs, "
                     "and choose", UNSUPPORTED)  # fmt: skip
    settings = replace(wanted.settings, prompt_logprobs=logprobs) if echo else wanted.settings
    wanted = replace(wanted, settings=settings, echo=echo, only_prompt=only_prompt)
    return CompletionRequest(wanted, _prompts(fields.get("prompt")))


def _fields(body: Mapping[str, Any], known: set[str], others: set[str]) -> dict[str, Any]:
    """Return the fields that are not null, after a look at each name."""
    fields = {name: value for name, value in body.items() if value is not None}
    for name, value in fields.items():
        if name in known or name in _WITHOUT_EFFECT:
            continue
        if name in ("functions", "function_call"):
            raise _wrong(name, value, "it is not supported: use tools and tool_choice", UNSUPPORTED)
        if name not in _ONLY or name in others:
            raise RequestError(f"{name} is not supported; known are {', '.join(sorted(known))}", name, code=UNKNOWN)
        allowed = _ONLY[name]
        if not any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in allowed):
            shown = " or ".join(json.dumps(each) for each in allowed)
            raise _wrong(name, value, f"only {shown} is supported", UNSUPPORTED)
    if not isinstance(fields.get("model"), str):
        raise _missing("model", fields.get("model"), "it must be the name of a model")
    return fields


def _wanted(fields: Mapping[str, Any], defaults: SamplingSettings, most: str, logprobs: int | None) -> Wanted:
    stream = _flag(fields, "stream")
    given: dict[str, Any] = {name: fields[name] for name in _SETTINGS if name in fields}
    if most in fields:
        given["max_tokens"] = fields[most]
    stops = [*_stop_strings(fields.get("stop")), *_stop_ids(fields.get("stop_token_ids"))]
    if stops:
        given["stop"] = tuple(stops)
    if fields.get("logit_bias"):
        given["logit_bias"] = _biases(fields["logit_bias"])
    form = answer_form(fields)
    if form.grammar is not None:
        given["grammar"] = form.grammar
    if _flag(fields, "ignore_eos"):
        given["end_ids"] = ()
    try:
        settings = replace(defaults, **given, logprobs=logprobs or 0)
    except SettingError as error:
        field = most if error.field == "max_tokens" else error.field
        if field == "stop" and isinstance(error.given, int):
            field = "stop_token_ids"
        raise _wrong(field, error.given, error.allowed) from error
    choices = _whole(fields, "n", 1, MOST_CHOICES)
    return Wanted(
        fields["model"], settings, 1 if choices is None else choices, stream, _include_usage(fields, stream), logprobs,
        _flag(fields, "return_token_ids"), form,
    )  # fmt: skip


def _include_usage(fields: Mapping[str, Any], stream: bool) -> bool:
    options = fields.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise _wrong("stream_options", options, "it is allowed with stream: true only")
    if not isinstance(options, dict):
        raise _wrong("stream_options", options, "it must be an object")
    options = {name: value for name, value in options.items() if value is not None}
    for name in options:
        if name not in ("include_usage", "include_obfuscation"):
            raise RequestError(f"stream_options.{name} is not supported", f"stream_options.{name}")
    if _flag(options, "include_obfuscation", "stream_options."):
        raise _wrong("stream_options.include_obfuscation", True, "only false is supported")
    return _flag(options, "include_usage", "stream_options.")


def _stop_strings(stop: object) -> Sequence[str]:
    if stop is None:
        return ()
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > MOST_STOPS or not all(isinstance(each, str) for each in stops):
        raise _wrong("stop", stop, f"it must be a string, or a list of up to {MOST_STOPS}")
    return stops


def _stop_ids(ids: object) -> Sequence[int]:
    if ids is None:
        return ()
    if not isinstance(ids, list) or not all(isinstance(each, int) and not isinstance(each, bool) for each in ids):
        raise _wrong("stop_token_ids", ids, "it must be a list of token ids")
    return ids


def _biases(given: object) -> tuple[tuple[int, float], ...]:
    """Return the biases of tokens, whose ids are text in JSON."""
    if not isinstance(given, dict) or not all(each.isascii() and each.isdecimal() for each in given):
        raise _wrong("logit_bias", given, "it must be an object of token ids, as text, and numbers")
    return tuple((int(token[:12]), bias) for token, bias in given.items())


def _prompts(prompt: object) -> tuple[str | tuple[int, ...], ...]:
    several = isinstance(prompt, list) and any(isinstance(each, str | list) for each in prompt)
    given = prompt if several and isinstance(prompt, list) else [prompt]
    prompts = [_one_prompt(each) for each in given]
    if len(prompts) > MOST_CHOICES or None in prompts:
        raise _wrong("prompt", prompt, f"it must be a text, a list of token ids, or a list of up to {MOST_CHOICES} of "
                     "these, none of them empty")  # fmt: skip
    return tuple(each for each in prompts if each is not None)


def _one_prompt(prompt: object) -> str | tuple[int, ...] | None:
    """Return a prompt; None where it is none."""
    if isinstance(prompt, str):
        return prompt or None
    if not isinstance(prompt, list) or not all(isinstance(each, int) and not isinstance(each, bool) for each in prompt):
        return None
    return tuple(prompt) or None


def _flag(fields: Mapping[str, Any], name: str, where: str = "") -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise _wrong(where + name, value, "allowed are true and false", INVALID_TYPE)
    return value


def _whole(fields: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _wrong(name, value, f"allowed are integers from {least} to {most}")
    return value


def _missing(field: str, given: object, allowed: str) -> RequestError:
    return _wrong(field, given, allowed, MISSING if given is None else INVALID_TYPE)


def _require_whole(value: Any, path: str = "") -> None:
    """Refuse half of a surrogate pair, which has no bytes, wherever it is."""
    if isinstance(value, str):
        half = SURROGATE.search(value)
        if half:
            field = path.split(".")[0].split("[")[0] or None
            raise RequestError(f"{path or 'the body'} has half of a character in it (\\u{ord(half[0]):x}): escapes of "
                               "characters beyond U+FFFF come in pairs", field)  # fmt: skip
    elif isinstance(value, list):
        for number, each in enumerate(value):
            _require_whole(each, f"{path}[{number}]")
    elif isinstance(value, dict):
        for name, each in value.items():
            _require_whole(name, path)
            _require_whole(each, f"{path}.{name}" if path else name)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
