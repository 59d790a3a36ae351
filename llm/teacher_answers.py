"""Answers of a base model to many prompts, kept in a journal: what is there is not sampled again."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from llm.base_model import BaseModel
from llm.sample_result import SampleHandle
from llm.sampling import Sampler
from llm.sampling_settings import SampleRequest, SamplingSettings
from model.causal_lm import CausalLM
from model.packed_attention import PackedRows
from storage.answer_journal import WHOLE, AnswerJournal, KeptAnswer, read_answers

_KEEP_SECONDS = 1.0  # finished answers wait at most so long to be written


@dataclass(frozen=True)
class Asked:
    """A prompt that is to be answered.

    Attributes:
        prompt: token ids, as the sampler gets them.
        shown: what they say, for the journal: see `KeptAnswer.asked`.
    """

    prompt: tuple[int, ...]
    shown: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @cached_property
    def key(self) -> str:
        """The prompt's digest."""
        return hashlib.sha256(" ".join(map(str, self.prompt)).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class AnswerProgress:
    """How far a model has come with its answers.

    Attributes:
        done: answers that are there, those of earlier runs included.
        total: answers that are wanted.
        tokens: tokens that were sampled.
        seconds: time that this took.
        left: seconds that the rest will take, from what was done; None before the first answer.
    """

    done: int
    total: int
    tokens: int
    seconds: float
    left: float | None


class BaseAnswers:
    """Answers of a base model, from a journal and, where they are not in it, sampled now.

    An answer depends on the weights, the prompt, the settings and its number alone: its random numbers are drawn from
    a seed of its own, so that neither other questions nor their order change it (beyond rounding). With another limit
    of its length one that ended before it is the same.

    Args:
        base: the model, without an adapter.
        settings: how answers are sampled; the seed is that of all of them.
        folder: where journals are.
        first: file of answers that go before those of the journal: a run's own; it may be missing.
        keep: whether new answers enter the journal.
        pack: whether the sampler may keep the weights a second time (`Sampler`).

    Attributes:
        journal: the journal of this model and these settings.
        sampled: answers that were sampled, not read.
        damaged: lines of the journal that can't be read.
    """

    def __init__(
        self,
        base: BaseModel,
        settings: SamplingSettings,
        folder: Path,
        first: Path | None = None,
        keep: bool = True,
        pack: bool = True,
    ) -> None:
        self._base, self._settings, self._first, self._keep, self._pack = base, settings, first, keep, pack
        self._sampler: Sampler | None = None
        self.sampled = self.damaged = 0
        weight = next(base.model.parameters())
        facts = {
            "base_model": base.source, "base_digest": base.digest, "dtype": str(weight.dtype).removeprefix("torch."),
            "end_ids": list(base.end_ids), "temperature": settings.temperature,
            "seed": None if settings.greedy else settings.seed,
        }  # fmt: skip
        named = {name: value for name, value in facts.items() if name != "base_model"}
        digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]
        self.journal = AnswerJournal(folder / digest, facts)

    def answers(
        self,
        asked: Sequence[Asked],
        samples: int = 1,
        tell: Callable[[AnswerProgress], None] = lambda _: None,
    ) -> list[list[KeptAnswer]]:
        """Answer prompts.

        Args:
            asked: the prompts.
            samples: answers to each.
            tell: function that is told how far it is, now and then, while answers are sampled.

        Returns:
            Of each prompt its answers.

        Raises:
            EngineError: a prompt leaves no room in the context, or the logits are not finite.
            OutputError: the journal can't be written.
        """
        found = self.known(asked)
        wanted = [(each, number) for each in dict.fromkeys(asked) for number in range(samples)]
        missing = [pair for pair in wanted if (pair[0].key, pair[1]) not in found]
        if missing and self._keep:
            with self.journal as journal:
                found = self.known(asked)  # another process may have answered them, while this one waited
                missing = [pair for pair in wanted if (pair[0].key, pair[1]) not in found]
                found |= self._sample(missing, len(wanted), tell, journal.keep)
        elif missing:
            found |= self._sample(missing, len(wanted), tell, lambda _: None)
        return [[found[each.key, number] for number in range(samples)] for each in asked]

    def known(self, asked: Sequence[Asked]) -> dict[tuple[str, int], KeptAnswer]:
        """Return the answers that need not be sampled, by the prompt's digest and their number.

        Args:
            asked: the prompts that they are wanted for.
        """
        found, self.damaged = self.journal.read()
        if self._first is not None:
            found |= read_answers(self._first)[0]
        limits = {each.key: self._limit(each) for each in asked}
        return {
            place: answer for place, answer in found.items() if place[0] in limits and _fits(answer, limits[place[0]])
        }

    def _limit(self, asked: Asked) -> int:
        room = self._base.context - len(asked.prompt)
        return room if self._settings.max_tokens is None else min(room, self._settings.max_tokens)

    def forget(self) -> None:
        """Let go of what sampling needs memory for; more answers can be asked for."""
        self._sampler = None
        if isinstance(self._base.model, CausalLM):
            self._base.model.unpack_weights()

    def _sample(
        self,
        missing: Sequence[tuple[Asked, int]],
        total: int,
        tell: Callable[[AnswerProgress], None],
        keep: Callable[[Sequence[KeptAnswer]], None],
    ) -> dict[tuple[str, int], KeptAnswer]:
        if self._sampler is None:
            self._sampler = Sampler(self._base, pack=self._pack)
        sampler = self._sampler
        under_way: dict[SampleHandle, tuple[Asked, int]] = {}
        for each, number in missing:
            settings = dataclasses.replace(self._settings, seed=self._seed(each, number))
            under_way[sampler.submit(SampleRequest(each.prompt, settings))] = (each, number)
        found: dict[tuple[str, int], KeptAnswer] = {}
        waiting: list[KeptAnswer] = []
        began = last = time.monotonic()
        tokens = 0
        while under_way:
            sampler.step()
            for handle in [handle for handle in under_way if handle.done]:
                each, number = under_way.pop(handle)
                (sample,) = handle.result()
                tokens += len(sample.tokens)
                finish = str(sample.finish)
                answer = KeptAnswer(each.key, number, tuple(sample.tokens), finish, sample.text, each.shown)
                found[each.key, number] = answer
                waiting.append(answer)
            now = time.monotonic()
            if waiting and (now - last > _KEEP_SECONDS or not under_way):
                keep(waiting)
                waiting, last = [], now
                seconds = now - began
                left = seconds / len(found) * len(under_way)
                tell(AnswerProgress(total - len(under_way), total, tokens, seconds, left))
        self.sampled += len(found)
        return found

    def _seed(self, asked: Asked, number: int) -> int | None:
        """Return a seed that belongs to one answer, whatever else is asked."""
        if self._settings.greedy:
            return None
        text = f"{self._settings.seed} {asked.key} {number}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def _fits(answer: KeptAnswer, limit: int) -> bool:
    """Say whether an answer is what would be sampled with a limit of its length."""
    return len(answer.tokens) == limit or (answer.finish == WHOLE and len(answer.tokens) < limit)


def prompt_seconds(base: BaseModel, prompts: Sequence[Sequence[int]], repeats: int = 3) -> float:
    """Measure how long the model reads prompts, one after another and without what it remembers: the mean of one.

    Args:
        base: the model, without an adapter.
        prompts: token ids of each.
        repeats: how often each is read; the fastest counts.
    """
    device = next(base.model.parameters()).device
    total = 0.0
    with torch.inference_mode():
        for prompt in prompts:
            tokens, rows = torch.tensor(list(prompt), device=device), PackedRows.of([len(prompt)], device=device)
            times = []
            for _ in range(repeats):
                began = time.perf_counter()
                base.model.hidden(tokens, rows)[-1].sum().item()  # a synchronisation: the work is to be over
                times.append(time.perf_counter() - began)
            total += min(times)
    return total / len(prompts)
