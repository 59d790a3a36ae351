"""A conversation with a model: what was said, the prompt that the model reads of it, and its answers as they come."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from config.chat_config import ChatConfig
from constants.counting import counted
from data.chat_messages import Completion, Conversation, Example, RowError
from llm.sample_result import CANCELLED, LENGTH, Sample, SampleHandle
from llm.sampling import Sampler, sampler_of
from llm.sampling_settings import SampleRequest, SamplingSettings
from llm.saved_model import SavedModel, open_base

_ADAPTER = "trained"
_ROOM = 4  # a quarter of the context, at most, is kept free for an answer


class ChatError(Exception):
    """What was said can't be answered; the text says why. The conversation is as it was before."""


def sampling_of(config: ChatConfig) -> SamplingSettings:
    """Return how answers are drawn, by the settings of a chat."""
    return SamplingSettings(
        temperature=config.temperature, top_p=config.top_p, top_k=config.top_k or None, seed=config.seed,
        max_tokens=config.max_tokens or None,
    )  # fmt: skip


@dataclass
class Answer:
    """An answer that grows while it is given.

    Attributes:
        sample: its tokens and its text.
        prompt_tokens: tokens that the model read for it.
        known_tokens: those of them that had been computed before.
        first_after: seconds from the question to the first token; None before it.
        seconds: seconds from the first token to the last.
        context: tokens of the model's context.
    """

    sample: Sample
    prompt_tokens: int
    context: int
    known_tokens: int = 0
    first_after: float | None = None
    seconds: float = 0.0

    @property
    def was_cut(self) -> bool:
        """Whether it lacks its end: stopped by somebody, or by the limit of tokens."""
        return self.sample.finish in (CANCELLED, LENGTH)

    def line(self) -> str:
        """Say how it went: tokens, speed, time to the first, and how full the context is."""
        tokens = len(self.sample.tokens)
        parts = [counted(tokens, "token")]
        if self.first_after is not None:
            known = f" ({self.known_tokens:,} of {self.prompt_tokens:,} tokens were known)" if self.known_tokens else ""
            parts.append(f"the first after {self.first_after:.2f} s{known}")
        if tokens > 1 and self.seconds:
            parts.append(f"then {(tokens - 1) / self.seconds:.0f} tokens/s")
        parts.append(f"context {self.prompt_tokens + tokens:,} of {self.context:,}")
        return ", ".join(parts)

    def end_line(self) -> str:
        """Say why it lacks its end; empty where it doesn't."""
        if self.sample.finish == CANCELLED:
            return "stopped"
        if self.sample.finish != LENGTH:
            return ""
        full = self.prompt_tokens + len(self.sample.tokens) >= self.context
        return "cut off: the context is full" if full else "cut off at max_tokens"


@dataclass
class _Turn:
    """A question and its answer."""

    question: str
    answer: str = ""
    tokens: tuple[int, ...] = ()
    was_cut: bool = False


@dataclass
class Chat:
    """A conversation, kept as long as nobody resets it.

    Attributes:
        model: the model that answers.
        settings: how answers are drawn; may be replaced at any time.
        system: system message; empty for none.
        turns: questions and answers, oldest first.
        notes: what is to be told of the last question: turns that are no longer read.
    """

    model: SavedModel
    settings: SamplingSettings
    system: str = ""
    turns: list[_Turn] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sampler = sampler_of(self.model.base, self.model.adapter, _ADAPTER, pack=True)
        self._untrained: Sampler | None = None
        self._dropped = 0  # oldest turns that the model no longer reads

    # -------------------------------------------------------------------------------------------------- conversation

    def set_system(self, text: str) -> None:
        """Give the conversation a system message.

        Args:
            text: the message; empty for none.

        Raises:
            ChatError: the model's template takes none.
        """
        before, self.system = self.system, text
        try:
            self._prompt([*self.turns, _Turn("?")])
        except ChatError:
            self.system = before
            raise
        self._dropped = 0

    def reset(self) -> None:
        """Forget all turns; the system message stays."""
        self.turns, self._dropped = [], 0

    def undo(self) -> str | None:
        """Forget the last question and its answer; returns the question, None where there is none."""
        self._dropped = 0
        return self.turns.pop().question if self.turns else None

    def messages(self) -> list[dict[str, Any]]:
        """Return the conversation as rows of training data have it; answers that were cut off are not trained on."""
        return self._messages(self.turns)

    def json_line(self) -> str:
        """Return the conversation as a line of JSON lines, format messages."""
        return json.dumps({"messages": self.messages()}, ensure_ascii=False)

    def _messages(self, turns: Sequence[_Turn], weights: bool = True) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{"role": "system", "content": self.system}] if self.system else []
        for turn in turns:
            found.append({"role": "user", "content": turn.question})
            if turn.tokens:
                cut = {"weight": 0} if turn.was_cut and weights else {}
                found.append({"role": "assistant", "content": turn.answer, **cut})
        return found

    # ------------------------------------------------------------------------------------------------------- answers

    def ask(self, question: str, stopped: Callable[[], bool] = lambda: False) -> Iterator[tuple[str, Answer]]:
        """Ask the next question.

        Args:
            question: what is said.
            stopped: asked after each step whether the answer shall end here. What was said until then stays.

        Yields:
            New characters of the answer, and the answer so far; once more at its end, perhaps without a character.

        Raises:
            ChatError: it can't be answered.
        """
        self.notes = []
        turn = _Turn(question)
        prompt = self._fitting_prompt(turn)
        answer = None
        for text, answer in self._stream(self._sampler, prompt, self._adapter, stopped):
            turn.answer += text
            yield text, answer
        if answer is not None and answer.sample.tokens:  # else it was stopped before anything was said
            turn.tokens, turn.was_cut = tuple(answer.sample.tokens), answer.was_cut
            self.turns.append(turn)

    def base_answer(self, stopped: Callable[[], bool] = lambda: False) -> Iterator[tuple[str, Answer]]:
        """Let the base model answer the last question; the conversation stays as it is.

        Args:
            stopped: as in `ask`.

        Raises:
            ChatError: there is no question yet, or no base model to compare with.
            ModelError: the base model can't be loaded.
        """
        if not self.turns:
            raise ChatError("there is no question yet")
        sampler = self._base_sampler()
        turn = self.turns.pop()
        try:
            prompt = self._fitting_prompt(_Turn(turn.question))
        finally:
            self.turns.append(turn)
        yield from self._stream(sampler, prompt, None, stopped)

    def require_base(self) -> None:
        """Load what `base_answer` needs.

        Raises:
            ChatError: there is no base model to compare with.
            ModelError: it can't be loaded.
        """
        self._base_sampler()

    def answer_rows(self, rows: Sequence[Example]) -> list[Sample | ChatError]:
        """Answer conversations and prompts that have nothing to do with one another, all at once.

        Args:
            rows: conversations up to a question, or prompts without a template.

        Returns:
            Of each its answer, or why there is none.
        """
        found: list[SampleHandle | ChatError] = []
        for row in rows:
            try:
                prompt = self.model.renderer.prompt(row)
                self._require_room(len(prompt))
                found.append(self._sampler.submit(SampleRequest(prompt, self.settings, adapter=self._adapter)))
            except (RowError, ChatError) as error:
                found.append(ChatError(str(error)))
        while self._sampler.step():
            pass
        return [each if isinstance(each, ChatError) else each.result()[0] for each in found]

    @property
    def _adapter(self) -> str | None:
        return None if self.model.adapter is None else _ADAPTER

    def _base_sampler(self) -> Sampler:
        if self.model.weights is None:
            raise ChatError("this is the base model: there is nothing to compare it with")
        if self.model.adapter is not None:
            return self._sampler
        if self._untrained is None:
            if self.model.record is None:
                raise ChatError("nothing says from which base model this one was trained")
            some = next(self.model.base.model.parameters())
            base = open_base(self.model.record.base_model, some.device, some.dtype).base
            own = self.model.base
            self._untrained = Sampler(replace(base, template=own.template, end_ids=own.end_ids))
        return self._untrained

    def _stream(
        self, sampler: Sampler, prompt: list[int], adapter: str | None, stopped: Callable[[], bool]
    ) -> Iterator[tuple[str, Answer]]:
        handle = sampler.submit(SampleRequest(prompt, self.settings, adapter=adapter))
        (sample,) = handle.samples
        answer = Answer(sample, len(prompt), self.model.base.context)
        begin, shown = time.perf_counter(), 0
        try:
            while not handle.done and not stopped():
                sampler.step()
                now = time.perf_counter()
                if answer.first_after is None:
                    if not sample.tokens:
                        continue  # the prompt is still read
                    answer.first_after, answer.known_tokens = now - begin, handle.cached_tokens
                answer.seconds = now - begin - answer.first_after
                if len(sample.text) > shown:
                    text, shown = sample.text[shown:], len(sample.text)
                    yield text, answer
        finally:
            sampler.cancel(handle)  # where somebody has left in the middle
        handle.result()  # tells what failed
        yield sample.text[shown:], answer

    # ------------------------------------------------------------------------------------------------------- prompts

    def _fitting_prompt(self, turn: _Turn) -> list[int]:
        """Return the prompt of a question; the oldest turns are left out where the context has no room for them."""
        context = self.model.base.context
        most = self.settings.max_tokens
        room = max(1, min(context // _ROOM, most or context))
        dropped = min(self._dropped, len(self.turns))
        while True:
            prompt = self._prompt([*self.turns[dropped:], turn])
            if len(prompt) + room <= context or dropped == len(self.turns):
                break
            dropped += 1
        self._require_room(len(prompt))
        if dropped > self._dropped:
            self.notes.append(
                f"the context of {context:,} tokens is full: the oldest {counted(dropped, 'turn')} of "
                f"{len(self.turns) + 1} are no longer read by the model (/save has them, /reset begins anew)"
            )
        self._dropped = dropped
        return prompt

    def _require_room(self, length: int) -> None:
        context = self.model.base.context
        if length >= context:
            raise ChatError(
                f"this is {length:,} tokens, and the model's context is {context:,}, in which the answer must have room"
            )

    def _prompt(self, turns: Sequence[_Turn]) -> list[int]:
        messages = self._messages(turns, weights=False)
        first = 1 if self.system else 0
        sampled = {first + 2 * number + 1: turn.tokens for number, turn in enumerate(turns[:-1])}
        try:
            return self.model.renderer.prompt(Conversation.of(messages), sampled=sampled)
        except RowError as error:
            raise ChatError(str(error)) from error


def question_in(value: Any) -> Example:
    """Return what a row of JSON asks.

    Args:
        value: `{"messages": [...]}`, whose last answer, where it ends with one, is left out; or `{"prompt": ...}`, of
            text, to which no template is applied, or of messages.

    Raises:
        RowError: it is neither.
    """
    if not isinstance(value, dict):
        raise RowError("a row is no mapping")
    messages = value.get("messages", value.get("prompt"))
    if isinstance(messages, str) and "messages" not in value:
        return Completion(messages, "")
    if not isinstance(messages, list):
        raise RowError('a row needs "messages", a list of role and content, or "prompt"')
    if messages and isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant":
        messages = messages[:-1]
    return Conversation.of(messages, value.get("tools"))
