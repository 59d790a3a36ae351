"""Answers of OpenAI's protocol: whole ones, and events of streams. Each choice has exactly one end."""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from llm.sample_result import LENGTH, STOP
from llm.text_stream import IncrementalText
from service.openai.openai_requests import Wanted
from service.openai.token_texts import TokenTexts
from service.openai.tool_calls import ToolCallText
from service.sampling.sampling_loop import Increment, Ticket

TOOL_CALLS = "tool_calls"
_DONE = b"data: [DONE]\n\n"
_LEAST_LOGPROB = -9999.0  # JSON has no infinity
Json = dict[str, Any]


class Answers(Protocol):
    """Makes the answer to one request, of what its choices grow by."""

    def begin(self, tickets: Sequence[Ticket]) -> None:
        """Take the requests, of which the first has begun: what its weights are is told."""

    def take(self, number: int, new: Increment) -> list[bytes]:
        """Take in what a choice has grown by.

        Args:
            number: the choice, from 0.
            new: what has come.

        Returns:
            Events that tell it, of a request that streams.
        """

    def message(self, number: int) -> Json:
        """Return a choice as a message of the assistant, as the client gets it."""

    def finish(self, number: int) -> str:
        """Return why a choice has ended, as the client is told."""

    def whole(self, usage: Json) -> bytes:
        """Return the answer, all of whose choices have ended."""

    def end(self, usage: Json) -> list[bytes]:
        """Return the events that end a stream."""


class ChatChoice:
    """One answer of a chat.

    Args:
        tool_text: tells calls from what is said beside them; None where there are no tools.
        mark: what sets the answer apart from all others; ids of calls follow from it.

    Attributes:
        finish: why it has ended, as the client is told.
        calls: calls of tools, in OpenAI's form.
        begun: whether a stream of it has begun.
        parts: what it has grown by.
    """

    def __init__(self, tool_text: ToolCallText | None, mark: str) -> None:
        self.finish = ""
        self.calls: list[Json] = []
        self.begun = False
        self.parts: list[Increment] = []
        self._mark, self._tool_text = mark, tool_text
        self._said: list[str] = []

    def take(self, new: Increment) -> str:
        """Take in what has come; returns the text of it that can be shown. Calls are known at the end."""
        said = new.text if self._tool_text is None else self._tool_text.add(new.text)
        if new.finish is not None:
            self.finish = new.finish
            if self._tool_text is not None:
                rest, calls = self._tool_text.end(cut=new.finish == LENGTH)
                said += rest
                self.calls = [call.message(number, self._mark) for number, call in enumerate(calls)]
                if calls and new.finish == STOP:
                    self.finish = TOOL_CALLS
        self._said.append(said)
        return said

    def message(self) -> Json:
        """Return it as a message of the assistant."""
        said = "".join(self._said)
        if self.calls:
            return {"role": "assistant", "content": said or None, "tool_calls": self.calls}
        return {"role": "assistant", "content": said}


class ChatAnswers:
    """Answers to a request for a chat completion.

    Args:
        wanted: what was asked.
        texts: how tokens are shown.
        prompt_ids: ids of the prompt.
        calls_tools: whether calls of tools are looked for.
        mark: what sets the request apart from all others; ids of calls follow from it.
    """

    def __init__(
        self, wanted: Wanted, texts: TokenTexts, prompt_ids: Sequence[int], calls_tools: bool, mark: str
    ) -> None:
        self._wanted, self._texts, self._prompt_ids = wanted, texts, prompt_ids
        self._choices = [
            ChatChoice(ToolCallText(wanted.form.must_call) if calls_tools else None, f"{mark}/{number}")
            for number in range(wanted.choices)
        ]
        self._head: Json = {}
        self._told_prompt = False

    def begin(self, tickets: Sequence[Ticket]) -> None:
        """Take the requests, of which the first has begun."""
        kind = "chat.completion.chunk" if self._wanted.stream else "chat.completion"
        self._head = _head("chatcmpl", kind, self._wanted, tickets)

    def take(self, number: int, new: Increment) -> list[bytes]:
        """Take in what a choice has grown by."""
        choice = self._choices[number]
        said = choice.take(new)
        if not self._wanted.stream:
            choice.parts.append(new)
            return []
        events = []
        if not choice.begun:
            choice.begun = True
            events.append(self._event(number, {"role": "assistant", "content": "", "refusal": None}))
        logprobs = self._logprobs([new])
        ids = new.tokens if self._wanted.return_token_ids and new.tokens else None
        if said or logprobs or ids:
            events.append(self._event(number, {"content": said}, logprobs=logprobs, ids=ids))
        if new.finish is not None:
            for place, call in enumerate(choice.calls):
                events.append(self._event(number, {"tool_calls": [{"index": place, **call}]}))
            events.append(self._event(number, {}, choice.finish))
        return events

    def message(self, number: int) -> Json:
        """Return a choice as a message of the assistant."""
        return self._choices[number].message()

    def finish(self, number: int) -> str:
        """Return why a choice has ended."""
        return self._choices[number].finish

    def whole(self, usage: Json) -> bytes:
        """Return the answer, all of whose choices have ended."""
        told = []
        for number, choice in enumerate(self._choices):
            one = {
                "index": number, "message": {**choice.message(), "refusal": None},
                "logprobs": self._logprobs(choice.parts), "finish_reason": choice.finish,
            }  # fmt: skip
            if self._wanted.return_token_ids:
                one["token_ids"] = [token for part in choice.parts for token in part.tokens]
            told.append(one)
        answer = {**self._head, "choices": told, "usage": usage}
        if self._wanted.return_token_ids:
            answer["prompt_token_ids"] = self._prompt_ids
        return to_json(answer)

    def end(self, usage: Json) -> list[bytes]:
        """Return the events that end a stream."""
        return _end(self._wanted, self._head, usage)

    def _event(
        self,
        number: int,
        delta: Json,
        finish: str | None = None,
        logprobs: Json | None = None,
        ids: Sequence[int] | None = None,
    ) -> bytes:
        choice: Json = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        if ids is not None:
            choice["token_ids"] = ids
        chunk = {**self._head, "choices": [choice]}
        if self._wanted.return_token_ids and not self._told_prompt:
            self._told_prompt, chunk["prompt_token_ids"] = True, self._prompt_ids
        if self._wanted.include_usage:
            chunk["usage"] = None
        return event(chunk)

    def _logprobs(self, parts: Sequence[Increment]) -> Json | None:
        if self._wanted.logprobs is None:
            return None
        content = told_logprobs(self._texts, parts)
        return {"content": content, "refusal": None} if content or not self._wanted.stream else None


class _CompletionChoice:
    """One answer of a plain completion."""

    def __init__(self, place: int, prompt_ids: Sequence[int]) -> None:
        self.place, self.prompt_ids = place, prompt_ids
        self.finish, self.begun = "", False
        self.parts: list[Increment] = []
        self.text: list[str] = []
        self.characters, self.offset = IncrementalText(), 0


class CompletionAnswers:
    """Answers to a request for completions; choices of each prompt follow one another.

    Args:
        wanted: what was asked.
        texts: how tokens are shown.
        prompts: ids of each prompt.
        prompt_texts: text of each prompt; None for one that came as ids.
    """

    def __init__(
        self,
        wanted: Wanted,
        texts: TokenTexts,
        prompts: Sequence[Sequence[int]],
        prompt_texts: Sequence[str | None] = (),
    ) -> None:
        self._wanted, self._texts, self._prompt_texts = wanted, texts, prompt_texts
        self._choices = [_CompletionChoice(place, ids) for place, ids in enumerate(prompts)
                         for _ in range(wanted.choices)]  # fmt: skip
        self._head: Json = {}
        self._tickets: Sequence[Ticket] = ()

    def begin(self, tickets: Sequence[Ticket]) -> None:
        """Take the requests, of which the first has begun."""
        self._head, self._tickets = _head("cmpl", "text_completion", self._wanted, tickets), tickets

    def take(self, number: int, new: Increment) -> list[bytes]:
        """Take in what a choice has grown by."""
        choice = self._choices[number]
        if self._wanted.only_prompt:
            new = Increment(new.sample, (), (), None, "", new.finish and LENGTH)
        choice.text.append(new.text)
        choice.finish = new.finish or ""
        if not self._wanted.stream:
            choice.parts.append(new)
            return []
        tells_tokens = self._wanted.return_token_ids or self._wanted.logprobs is not None
        if not (new.text or new.finish or (new.tokens and tells_tokens)):
            return []
        chunk = {**self._head, "choices": [self._told(number, [new])]}
        if self._wanted.include_usage:
            chunk["usage"] = None
        return [event(chunk)]

    def message(self, number: int) -> Json:
        """Return a choice as a message of the assistant."""
        return {"role": "assistant", "content": "".join(self._choices[number].text)}

    def finish(self, number: int) -> str:
        """Return why a choice has ended."""
        return self._choices[number].finish

    def whole(self, usage: Json) -> bytes:
        """Return the answer, all of whose choices have ended."""
        choices = [self._told(number, choice.parts) for number, choice in enumerate(self._choices)]
        return to_json({**self._head, "choices": choices, "usage": usage})

    def end(self, usage: Json) -> list[bytes]:
        """Return the events that end a stream."""
        return _end(self._wanted, self._head, usage)

    def _told(self, number: int, parts: Sequence[Increment]) -> Json:
        choice = self._choices[number]
        echoes, first = self._wanted.echo and not choice.begun, not choice.begun
        choice.begun = True
        text = "".join(part.text for part in parts)
        told = {
            "index": number, "text": self._prompt_text(choice) + text if echoes else text,
            "logprobs": self._logprobs(choice, parts, echoes), "finish_reason": parts[-1].finish,
        }  # fmt: skip
        if self._wanted.return_token_ids:
            told["token_ids"] = [token for part in parts for token in part.tokens]
            if first:
                told["prompt_token_ids"] = choice.prompt_ids
        return told

    def _prompt_text(self, choice: _CompletionChoice) -> str:
        given = self._prompt_texts[choice.place]
        if given is not None:
            return given
        characters = IncrementalText()
        return "".join(characters.add(self._texts(token)[1] or b"") for token in choice.prompt_ids) + characters.end()

    def _logprobs(self, choice: _CompletionChoice, parts: Sequence[Increment], echoes: bool) -> Json | None:
        if self._wanted.logprobs is None:
            return None
        told: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        entries: list[tuple[int, float | None, list[tuple[int, float]] | None]] = []
        handle = self._tickets[choice.place].handle
        if echoes and handle is not None and handle.prompt_logprobs is not None:
            likeliest = handle.prompt_likeliest or [None, *([] for _ in choice.prompt_ids[1:])]
            entries += zip(choice.prompt_ids, handle.prompt_logprobs, likeliest, strict=True)
        entries += [entry for part in parts for entry in part.entries()]
        for token, logprob, likely in entries:
            text, raw = self._texts(token)
            told["tokens"].append(text)
            told["token_logprobs"].append(None if logprob is None else _finite(logprob))
            told["top_logprobs"].append(
                None if likely is None else {self._texts(each)[0]: _finite(value) for each, value in likely}
            )
            told["text_offset"].append(choice.offset)
            choice.offset += len(choice.characters.add(raw or b""))
        return told


def usage_of(prompts: int, completions: int, cached: int) -> Json:
    """Return counts of tokens in OpenAI's form.

    Args:
        prompts: tokens of all prompts, each counted once.
        completions: sampled tokens of all answers.
        cached: tokens of prompts that were known already.
    """
    return {
        "prompt_tokens": prompts, "completion_tokens": completions, "total_tokens": prompts + completions,
        "prompt_tokens_details": {"cached_tokens": cached},
    }  # fmt: skip


def told_logprobs(texts: TokenTexts, parts: Sequence[Increment]) -> list[Json]:
    """Return of each sampled token its log-probability, and those of the likeliest, in OpenAI's form.

    Args:
        texts: how tokens are shown.
        parts: what an answer has grown by.
    """

    def entry(token: int, logprob: float) -> Json:
        text, raw = texts(token)
        return {"token": text, "logprob": _finite(logprob), "bytes": None if raw is None else list(raw)}

    return [
        {**entry(token, logprob), "top_logprobs": [entry(*each) for each in likeliest]}
        for part in parts
        for token, logprob, likeliest in part.entries()
    ]


def to_json(value: Mapping[str, Any]) -> bytes:
    """Return a value as JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event(value: Mapping[str, Any]) -> bytes:
    """Return a value as one event of a stream."""
    return b"data: " + to_json(value) + b"\n\n"


def _head(prefix: str, kind: str, wanted: Wanted, tickets: Sequence[Ticket]) -> Json:
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": wanted.model,
        "system_fingerprint": next((ticket.version for ticket in tickets if ticket.version), ""),
    }  # fmt: skip


def _end(wanted: Wanted, head: Json, usage: Json) -> list[bytes]:
    return [event({**head, "choices": [], "usage": usage}), _DONE] if wanted.include_usage else [_DONE]


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST_LOGPROB)
