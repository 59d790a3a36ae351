"""What was said to a model and what it said: one record of each answer, with the exact token ids."""

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from data.chat_messages import Conversation, RowError
from llm.sampling_settings import SamplingSettings

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Exchange:
    """One answer to one request. Token ids are the truth, text is made of them.

    Attributes:
        key: whose request it was.
        number: place of the request among those of its key, from 0, in the order in which they arrived.
        choice: which of the request's answers, from 0 (`n`).
        model: name of the model that was asked for.
        version: id of the weights that answered; no others ever have it.
        prompt_ids: ids that the model read.
        token_ids: sampled ids, the one that ended the answer included, whether or not its text was shown.
        logprobs: of each sampled id, under the model as it is: without temperature, top_p and top_k.
        finish: why it ended, as the client was told: stop, length or tool_calls; or cancelled, where the client went
            away before it had all of it.
        stopped_by: the id or the string that ended it; None for length and cancelled.
        settings: how the ids were drawn, the seed that was really used included.
        answer: the assistant's message as the client got it, in OpenAI's form.
        messages: messages of the request as the client sent them; none for a plain completion.
        tools: tools of the request as the client sent them.
        sampled: of earlier answers, by the number of their message from 0, the ids that they were sampled as; they are
            in `prompt_ids` wherever the template shows the answer's text unchanged.
        time: seconds since the epoch at which it ended.
    """

    key: str
    number: int
    choice: int
    model: str
    version: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: str
    stopped_by: int | str | None
    settings: SamplingSettings
    answer: Message
    messages: tuple[Message, ...] = ()
    tools: tuple[Message, ...] = ()
    sampled: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    time: float = 0.0


class UnknownKeyError(LookupError):
    """No exchanges are recorded under this key, and only those that are may ask."""


@dataclass
class _Record:
    seed: int | None
    requests: int = 0
    exchanges: list[Exchange] = field(default_factory=list)
    said: dict[bytes, Exchange] = field(default_factory=dict)  # by all that was said up to and with its answer
    unanswered: set[int] = field(default_factory=set)  # numbers of requests that are being sampled


class ExchangeLog:
    """Exchanges by key, from `open` to `close`. Any thread may use it.

    Where a client sends back an answer that it got, unchanged and after the same messages, the log knows the ids that
    were sampled, so that the next prompt can go on from them: encoding the text again could give others.

    Args:
        only_open: whether requests are refused whose key is not open; else they are answered and not recorded.
    """

    def __init__(self, only_open: bool = True) -> None:
        self.only_open = only_open
        self._records: dict[str, _Record] = {}
        self._others = 0  # requests of keys that are not open
        self._lock = threading.Lock()

    def open(self, key: str, seed: int | None = None) -> None:
        """Begin to record.

        Args:
            key: any text; each rollout has one of its own.
            seed: seed of requests that name none: each gets its own, from this and its number. None leaves them
                without.

        Raises:
            ValueError: it is open already.
        """
        with self._lock:
            if key in self._records:
                raise ValueError(f"the key {key!r} is open already")
            self._records[key] = _Record(seed)

    def close(self, key: str) -> list[Exchange]:
        """End recording; requests of the key that are still under way are not recorded any more.

        Returns:
            The key's exchanges, by number and choice.
        """
        with self._lock:
            return _in_order(self._record(key, remove=True).exchanges)

    def exchanges(self, key: str) -> list[Exchange]:
        """Return the exchanges of an open key so far, by number and choice."""
        with self._lock:
            return _in_order(self._record(key).exchanges)

    def require(self, key: str) -> None:
        """Refuse a key that may not ask.

        Raises:
            UnknownKeyError: the key is not open, and has to be.
        """
        if self.only_open and key not in self._records:
            raise UnknownKeyError(f"the key {key!r} is not open")

    def begin(self, key: str) -> tuple[int, int | None]:
        """Count a request that has arrived.

        Returns:
            Its number, and the seed that it has if it names none.

        Raises:
            UnknownKeyError: the key is not open, and has to be.
        """
        with self._lock:
            if key not in self._records and not self.only_open:
                self._others += 1
                return self._others - 1, None
            record = self._record(key)
            number, record.requests = record.requests, record.requests + 1
            return number, None if record.seed is None else seed_of(record.seed, number)

    def expect(self, key: str, numbers: Iterable[int], answered: bool = False) -> None:
        """Note that requests are being sampled, or that they won't be, since they are answered otherwise.

        Args:
            key: whose requests they are.
            numbers: their numbers.
            answered: whether they have their answer.
        """
        with self._lock:
            record = self._records.get(key)
            if record is not None:
                record.unanswered = record.unanswered.difference(numbers) | set(() if answered else numbers)

    def unanswered(self, key: str) -> set[int]:
        """Return the numbers of an open key's requests that are being sampled: nobody has had their answer yet.

        Once a client has done with its requests, these are answers that it didn't wait for. Those of which it is known
        already that the client has gone are exchanges that were cancelled.
        """
        with self._lock:
            return set(self._record(key).unanswered)

    def add(self, exchange: Exchange) -> None:
        """Record an exchange, where its key is open."""
        with self._lock:
            record = self._records.get(exchange.key)
            if record is not None:
                record.exchanges.append(exchange)
                record.unanswered.discard(exchange.number)
                if exchange.messages:
                    with suppress(RowError):  # an answer without anything in it is no message to go on from
                        chat = Conversation.of([*exchange.messages, exchange.answer], exchange.tools, broken_calls=True)
                        record.said[_marks(chat)[-1]] = exchange

    def sampled(self, key: str, chat: Conversation) -> dict[int, tuple[int, ...]]:
        """Return the ids that earlier answers in a conversation were sampled as.

        Args:
            key: whose conversation it is.
            chat: the conversation.

        Returns:
            Of each message (from 0) that is an answer the key got after the same messages, its ids. What the longest
            of these had in its own prompt is taken over, so that prompts go on from one another.
        """
        with self._lock:
            record = self._records.get(key)
            if record is None or not record.said or not any(each["role"] == "assistant" for each in chat.messages):
                return {}
            marks = _marks(chat)
            for number in range(len(marks) - 1, -1, -1):
                found = record.said.get(marks[number])
                if found is not None:
                    return {**found.sampled, number: found.token_ids}
            return {}

    def _record(self, key: str, remove: bool = False) -> _Record:
        if key not in self._records:
            raise UnknownKeyError(f"the key {key!r} is not open")
        return self._records.pop(key) if remove else self._records[key]


def seed_of(seed: int, number: int) -> int:
    """Return the seed of one request out of the seed of its key.

    Args:
        seed: seed of the key.
        number: number of the request.

    Returns:
        63 bits that depend on both.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:8], "big") >> 1


def _in_order(exchanges: Iterable[Exchange]) -> list[Exchange]:
    return sorted(exchanges, key=lambda each: (each.number, each.choice))


def _marks(chat: Conversation) -> list[bytes]:
    """Return a digest of a conversation up to each of its messages."""
    whole = hashlib.sha256(_plain(chat.tools))
    marks = []
    for message in chat.messages:
        whole.update(_plain(_said(message)))
        marks.append(whole.digest())
    return marks


def _said(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a message says: clients send back null or nothing for what isn't there."""
    said = {name: value for name, value in message.items() if name != "tool_calls" and value not in (None, "", [])}
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return {**said, "calls": [(call["name"], call["arguments"]) for call in calls]}


def _plain(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
