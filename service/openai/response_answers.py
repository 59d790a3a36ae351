"""Answers of OpenAI's Responses protocol: whole ones, and the events of streams."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence

from llm.sample_result import LENGTH
from service.openai.openai_answers import ChatChoice, Json, event, to_json, told_logprobs
from service.openai.openai_requests import Wanted
from service.openai.response_requests import ResponseRequest
from service.openai.token_texts import TokenTexts
from service.openai.tool_calls import ToolCallText
from service.sampling.sampling_loop import Increment, Ticket

_DONE, _CUT, _GROWS = "completed", "incomplete", "in_progress"


class ResponseAnswers:
    """The answer to a request for a response: a message, where something is said, and the calls after it.

    Args:
        asked: the request.
        texts: how tokens are shown.
        prompt_ids: ids of the prompt.
        mark: what sets the request apart from all others; ids of calls follow from it.
        keep: takes the answer's id and message once it has ended, before the client hears of it.
    """

    def __init__(
        self,
        asked: ResponseRequest,
        texts: TokenTexts,
        prompt_ids: Sequence[int],
        mark: str,
        keep: Callable[[str, Json], None],
    ) -> None:
        self._asked, self._texts, self._prompt_ids, self._keep = asked, texts, prompt_ids, keep
        wanted = asked.chat.wanted
        calls = ToolCallText(wanted.form.must_call) if asked.chat.tools else None
        self._choice = ChatChoice(calls, f"{mark}/0")
        name = uuid.uuid4().hex
        self._id, self._message_id = f"resp_{name}", f"msg_{name}"
        self._created, self._version = time.time(), ""
        self._text: list[str] = []
        self._events, self._says = 0, False  # so many were sent; whether the message has begun among them

    @property
    def _wanted(self) -> Wanted:
        return self._asked.chat.wanted

    def begin(self, tickets: Sequence[Ticket]) -> None:
        """Take the requests, of which the first has begun."""
        self._version = next((ticket.version for ticket in tickets if ticket.version), "")

    def take(self, number: int, new: Increment) -> list[bytes]:
        """Take in what the answer has grown by."""
        choice = self._choice
        choice.parts.append(new)
        said = choice.take(new)
        self._text.append(said)
        if not self._wanted.stream:
            return []
        events: list[bytes] = []
        if not choice.begun:
            choice.begun = True
            for kind in ("created", _GROWS):
                events.append(self._event(f"response.{kind}", response=self._response(_GROWS, [])))
        ends_silent = new.finish is not None and not choice.calls
        if (said or ends_silent) and not self._says:
            events += self._begin_message()
        if said:
            logprobs = self._logprobs([new]) or []
            events.append(self._event("response.output_text.delta", delta=said, logprobs=logprobs, **self._at_text()))
        if new.finish is not None:
            events += self._end_items()
        return events

    def message(self, number: int) -> Json:
        """Return the answer as a message of the assistant."""
        return self._choice.message()

    def finish(self, number: int) -> str:
        """Return why the answer has ended."""
        return self._choice.finish

    def whole(self, usage: Json) -> bytes:
        """Return the answer, which has ended."""
        return to_json(self._ended(usage))

    def end(self, usage: Json) -> list[bytes]:
        """Return the event that ends a stream."""
        response = self._ended(usage)
        return [self._event(f"response.{response['status']}", response=response)]

    # ----------------------------------------------------------------------------------------------------- its parts

    def _ended(self, usage: Json) -> Json:
        self._keep(self._id, self._choice.message())
        told = self._response(self._status(), self._items(), _usage(usage))
        if self._wanted.return_token_ids:
            ids = [token for part in self._choice.parts for token in part.tokens]
            told |= {"prompt_token_ids": list(self._prompt_ids), "token_ids": ids}
        return told

    def _response(self, status: str, items: list[Json], usage: Json | None = None) -> Json:
        return {
            "id": self._id, "object": "response", "created_at": self._created, "status": status, "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == _CUT else None,
            "model": self._wanted.model, "system_fingerprint": self._version, "output": items, "usage": usage,
            "store": False, **self._asked.told,
        }  # fmt: skip

    def _status(self) -> str:
        return _CUT if self._choice.finish == LENGTH else _DONE

    def _at_text(self) -> Json:
        return {"item_id": self._message_id, "output_index": 0, "content_index": 0}

    def _begin_message(self) -> list[bytes]:
        self._says = True
        item = {"id": self._message_id, "type": "message", "role": "assistant", "status": _GROWS, "content": []}
        return [
            self._event("response.output_item.added", output_index=0, item=item),
            self._event("response.content_part.added", part=_part("", None), **self._at_text()),
        ]

    def _end_items(self) -> list[bytes]:
        """Return the events that end the message, and those of the calls, which are known at the end only."""
        events = []
        for place, item in enumerate(self._items()):
            if item["type"] == "message":
                part = item["content"][0]
                done = {"text": part["text"], "logprobs": part["logprobs"]}
                events.append(self._event("response.output_text.done", **done, **self._at_text()))
                events.append(self._event("response.content_part.done", part=part, **self._at_text()))
            else:
                at = {"item_id": item["id"], "output_index": place}
                begun, arguments = {**item, "arguments": "", "status": _GROWS}, item["arguments"]
                events += [
                    self._event("response.output_item.added", output_index=place, item=begun),
                    self._event("response.function_call_arguments.delta", delta=arguments, **at),
                    self._event("response.function_call_arguments.done", name=item["name"], arguments=arguments, **at),
                ]
            events.append(self._event("response.output_item.done", output_index=place, item=item))
        return events

    def _items(self) -> list[Json]:
        said, calls = "".join(self._text), self._choice.calls
        items: list[Json] = []
        status = self._status()
        if said or not calls:
            part = _part(said, self._logprobs(self._choice.parts))
            items.append({"id": self._message_id, "type": "message", "role": "assistant",
                          "status": _DONE if calls else status, "content": [part]})  # fmt: skip
        for place, call in enumerate(calls, 1):
            items.append({
                "id": call["id"].replace("call_", "fc_", 1), "type": "function_call", "call_id": call["id"],
                **call["function"], "status": status if place == len(calls) else _DONE,
            })  # fmt: skip
        return items

    def _logprobs(self, parts: Sequence[Increment]) -> list[Json] | None:
        return None if self._wanted.logprobs is None else [_whole(entry) for entry in told_logprobs(self._texts, parts)]

    def _event(self, kind: str, **fields: object) -> bytes:
        numbered = {"type": kind, "sequence_number": self._events, **fields}
        self._events += 1
        return f"event: {kind}\n".encode() + event(numbered)


def _part(text: str, logprobs: list[Json] | None) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}


def _whole(entry: Json) -> Json:
    """Return the logprobs of a token; its bytes are a list here always."""
    likely = [{**each, "bytes": each["bytes"] or []} for each in entry["top_logprobs"]]
    return {**entry, "bytes": entry["bytes"] or [], "top_logprobs": likely}


def _usage(usage: Mapping[str, object]) -> Json:
    details = usage["prompt_tokens_details"]
    assert isinstance(details, dict)
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": details["cached_tokens"], "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"], "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }  # fmt: skip
