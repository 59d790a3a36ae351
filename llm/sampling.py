"""Sampling from a language model: many requests at once, whose rows join and leave between the steps.

    sampler = Sampler(base, bank)
    handle = sampler.submit(SampleRequest(prompt_ids, SamplingSettings(temperature=0.7, max_tokens=100), samples=4))
    while sampler.step():
        pass                                   # handle.samples grow; handle.samples[0].text is the text so far
    tokens = handle.result()[0].tokens

A step reads some of the prompts that wait, and gives each row one more token. What several prompts begin with is
computed once. What a row gets depends on its own request and the weights, and on its neighbours by rounding only.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

import numpy
import torch
from torch import Tensor

from llm.base_model import BaseModel
from llm.engine_error import EngineError, NonFiniteError, UnknownAdapterError
from llm.lookahead import Lookahead
from llm.prefix_cache import PrefixCache, begins_alike
from llm.sample_result import CANCELLED, FAILED, STOP, RecalledSample, Sample, SampleHandle
from llm.sampled_weights import SampledWeights, WeightsIdentity, identity_of, mark_of
from llm.sampling_settings import SampleRequest, SamplingSettings, SettingError
from llm.text_stream import SampleText, TokenBytes
from llm.token_choice import Chosen, SampleRandom, TokenChoice, likeliest
from llm.token_grammar import TokenGrammars
from llm.token_rules import TokenRules, rules_of
from model.causal_lm import CausalLM, KeyValueCache
from model.key_value_cache import SharedPrefix, reading_cost
from model.lora import AdapterRows, LoraAdapter, LoraBank

# Tokens that prompts must have in common for one to wait until the other is read.
_WORTH_SHARING = 32
# Of so many tokens the keys and values are copied, at least, in the time in which one token is read.
_COPIED = 50
# Tokens of keys and values that must be saved in each step for a prefix to be read by several rows in one place.
_WORTH_REFERRING = 512
# Tokens of keys and values that must be saved in each step for rows to be moved in memory.
_WORTH_ARRANGING = 2000
# Waiting prompts that are looked at in a step.
_LOOK_AHEAD = 64
# Logits of so many tokens of a prompt are in memory at a time.
_LOGITS_AT_ONCE = 128
_NOWHERE = -1
# With more rows a pass costs more for each token that is guessed.
_FEW_ROWS = 4


@dataclass(frozen=True)
class SamplerLimits:
    """What a sampler does at a time.

    Attributes:
        rows: samples that grow together; more wait.
        prefill_tokens: tokens of prompts that are read in one step; longer prompts take several, between which samples
            go on.
        prefix_bytes: memory for beginnings that later prompts may share; 0 for none.
        lookahead: tokens of a row that are guessed from its own text and checked in one pass, at most, where there are
            few rows; 0 for none. What is sampled is the same.
    """

    rows: int = 64
    prefill_tokens: int = 512
    prefix_bytes: int = 256 * 2**20
    lookahead: int = 8

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("prefill_tokens", 1), ("prefix_bytes", 0), ("lookahead", 0)):
            if getattr(self, name) < least:
                raise SettingError(name, getattr(self, name), f"allowed are integers of {least} or more")


@dataclass(eq=False)
class _Prompt:
    """A request on its way from its prompt to its last sample."""

    handle: SampleHandle
    weights: SampledWeights
    tokens: numpy.ndarray
    ends: frozenset[int]
    limit: int  # tokens of a sample
    slot: int = _NOWHERE  # where the prompt lies, until all samples have taken it over
    done: int = 0  # tokens read
    grouped: int = 0  # tokens of keys and values that rows with the same prefix save in each step
    shared: SharedPrefix | None = None  # the whole prompt, for many samples
    last: Tensor | None = None  # (1, width), hidden state of the last token
    joined: int = 0  # samples that have begun


@dataclass(eq=False)
class _Row:
    """A sample that grows."""

    prompt: _Prompt
    sample: Sample
    random: SampleRandom | None  # None where the likeliest token is taken
    slot: int
    rules: TokenRules | None = None  # None where tokens are drawn from the model as it is
    lookahead: Lookahead | None = None

    @property
    def settings(self) -> SamplingSettings:
        return self.prompt.handle.request.settings


@dataclass
class _Batch:
    """What stays the same for as long as the rows do."""

    choice: TokenChoice
    adapters: AdapterRows | None


class Sampler:
    """Samples of one model and its adapters.

    `submit` and `cancel` may be called by any thread at any time, `step` by one at a time.

    Args:
        base: the model. Its weights lose their gradients where they are packed.
        bank: its adapters; None for none.
        limits: what is done at a time.
        pack: whether frozen weights are kept a second time, in the order in which few rows are multiplied fastest.
    """

    def __init__(
        self,
        base: BaseModel,
        bank: LoraBank | None = None,
        limits: SamplerLimits | None = None,
        pack: bool = True,
    ) -> None:
        self.base, self.bank, self.limits = base, bank, limits or SamplerLimits()
        if pack and isinstance(base.model, CausalLM):
            base.model.pack_weights()
        self._model = cast(CausalLM, base.model)  # or what has its methods
        self._device = next(self._model.parameters()).device
        self._vocabulary = base.vocabulary
        self._guesses = self.limits.lookahead > 0 and isinstance(base.model, CausalLM)
        self._token_bytes: TokenBytes | None = None
        self._grammars: TokenGrammars | None = None
        if base.tokenizer is not None:
            self._token_bytes = TokenBytes(base.tokenizer)
            self._grammars = TokenGrammars(base.tokenizer, self._token_bytes, self._vocabulary)
        self._cache = self._new_cache()
        self._prefixes = PrefixCache(self.limits.prefix_bytes)
        self._inbox: deque[Callable[[], None]] = deque()  # from other threads
        self._lock = threading.RLock()
        self._waiting: list[_Prompt] = []
        self._reading: list[_Prompt] = []
        self._ready: list[_Prompt] = []  # read, with samples that have not begun
        self._rows: list[_Row] = []  # in the order of the cache
        self._batch: _Batch | None = None
        self._known_weights: weakref.WeakSet[SampledWeights] = weakref.WeakSet()
        self._recent_weights: SampledWeights | None = None  # kept for the next request, where none is under way

    # --------------------------------------------------------------------------------------------------------- requests

    def submit(self, request: SampleRequest) -> SampleHandle:
        """Take in a request, which begins at a later step.

        Args:
            request: the request.

        Returns:
            Its handle.

        Raises:
            SettingError: the prompt has an unknown token or leaves no room in the context, or a setting can't be used.
            UnknownAdapterError: there is no such adapter.
        """
        handle, ends, limit = self._begun(request)
        weights = self._weights(request.adapter)
        prompt = _Prompt(handle, weights, numpy.asarray(request.prompt), ends, limit)
        self._put(lambda: self._waiting.append(prompt))
        return handle

    def recall(self, request: SampleRequest, samples: Sequence[RecalledSample]) -> SampleHandle:
        """Make again what came of a request that was answered before, without asking the model.

        Args:
            request: the request.
            samples: what was sampled for it.

        Returns:
            Its handle, which has ended.

        Raises:
            SettingError: the request can't be done.
            ValueError: these are not as many samples as it asks for.
        """
        handle, ends, limit = self._begun(request)
        for sample, known in zip(handle.samples, samples, strict=True):
            for token, logprob in zip(known.tokens, known.logprobs, strict=True):
                sample.take(token, logprob, ends, limit)
            if sample.likeliest is not None:
                sample.likeliest += [[(token, logprob) for token, logprob in each] for each in known.likeliest]
            sample.end(known.finish, known.stopped_by)
        return handle

    def _begun(self, request: SampleRequest) -> tuple[SampleHandle, frozenset[int], int]:
        """Return the handle of a request of which nothing is sampled yet, the ids that end it, and its longest."""
        self.check(request)
        settings, room = request.settings, self.base.context - len(request.prompt)
        ends = set(self.base.end_ids if settings.end_ids is None else settings.end_ids)
        strings = []
        for stop in settings.stop:
            special = self._token_bytes.special_id(stop) if isinstance(stop, str) and self._token_bytes else None
            if isinstance(stop, str) and special is None:
                strings.append(stop)
            else:
                ends.add(stop if isinstance(stop, int) else special)  # type: ignore[arg-type]
        samples = []
        for _ in range(request.samples):
            text = None if self._token_bytes is None else SampleText(self._token_bytes, strings)
            samples.append(Sample(likeliest=[] if settings.logprobs else None, _text=text))
        limit = room if settings.max_tokens is None else min(room, settings.max_tokens)
        return SampleHandle(request, samples), frozenset(ends), limit

    def check(self, request: SampleRequest) -> None:
        """Refuse what `submit` would, whatever the weights.

        Args:
            request: the request.

        Raises:
            SettingError: the prompt has an unknown token or leaves no room in the context, or a setting can't be used.
        """
        settings, length = request.settings, len(request.prompt)
        biased = [token for token, _ in settings.logit_bias]
        for name, ids in (("prompt", request.prompt), ("stop", settings.stop), ("end_ids", settings.end_ids or ()),
                          ("logit_bias", biased)):  # fmt: skip
            numbers = [each for each in ids if isinstance(each, int)]
            if numbers and not 0 <= min(numbers) <= max(numbers) < self._vocabulary:
                wrong = next(number for number in numbers if not 0 <= number < self._vocabulary)
                raise SettingError(name, wrong, f"token ids go from 0 to {self._vocabulary - 1}")
        if self.base.context - length < 1:
            raise SettingError("prompt", f"of {length} tokens", f"the model's context is {self.base.context} tokens, "
                               "and one at least must be left for the answer")  # fmt: skip
        strings = [stop for stop in settings.stop if isinstance(stop, str)]
        if strings and self._token_bytes is None:
            raise SettingError("stop", strings[0], "the model has no tokenizer: only token ids can be used")
        if settings.grammar is not None:
            if self._grammars is None:
                raise SettingError("grammar", "asked for", "the model has no tokenizer")
            self._grammars.check(settings.grammar)

    def cancel(self, handle: SampleHandle) -> None:
        """End a request; its memory is free at once, or after the step that runs.

        Args:
            handle: the request; one that has ended is left alone.
        """
        self._put(lambda: self._end(handle, CANCELLED))

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Sample]]:
        """Do requests to their end, together with those that are under way.

        Args:
            requests: the requests.

        Returns:
            Of each request its samples.

        Raises:
            EngineError: a request can't be done, or failed.
        """
        handles = [self.submit(request) for request in requests]
        while not all(handle.done for handle in handles):
            self.step()
        return [handle.result() for handle in handles]

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._inbox or self._waiting or self._reading or self._ready or self._rows)

    @property
    def rows(self) -> int:
        """Samples that grow now."""
        return len(self._rows)

    @property
    def waiting(self) -> int:
        """Requests none of whose samples has begun."""
        return len(self._waiting) + len(self._reading)

    @property
    def slots(self) -> int:
        """Rows of the cache that are in use, by prompts and samples."""
        return len(self._cache.slots)

    # ------------------------------------------------------------------------------------------------------------ steps

    def step(self) -> bool:
        """Read some of the prompts that wait, and give each row one more token.

        Returns:
            Whether there is more to do.
        """
        with self._lock, torch.inference_mode():
            self._open_inbox()
            self._check_weights()
            self._admit()
            if self._reading:
                self._read()
            if self._ready:
                self._begin()
            if self._rows:
                self._grow()
            self._open_inbox()
            return self.busy

    def clear_prefixes(self) -> None:
        """Forget beginnings that were kept for later prompts."""
        with self._lock:
            self._prefixes.clear()

    def release(self) -> None:
        """End what is under way, and give the memory back that it and earlier requests took."""
        with self._lock, torch.inference_mode():
            self._open_inbox()
            for prompt in (*self._waiting, *self._under_way()):
                self._end(prompt.handle, CANCELLED)
            self._prefixes.clear()
            self._cache = self._new_cache()
            self._recent_weights = None

    def _new_cache(self) -> KeyValueCache:
        return self._model.new_cache(slots=min(self.limits.rows, 8))

    def _put(self, work: Callable[[], None]) -> None:
        self._inbox.append(work)
        if self._lock.acquire(blocking=False):
            try:
                with torch.inference_mode():  # in which the cache may have grown
                    self._open_inbox()
            finally:
                self._lock.release()

    def _open_inbox(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _weights(self, name: str | None) -> SampledWeights:
        """Return the weights of an adapter as they are now: the same object as long as they stay the same."""
        adapter = None
        if name is not None:
            if self.bank is None or name not in self.bank:
                known = ", ".join(self.bank.names()) if self.bank is not None else ""
                raise UnknownAdapterError(f"there is no adapter {name!r}; there are: {known or 'none'}")
            adapter = self.bank[name]
        identity = identity_of(self._model, adapter)
        found = next((each for each in list(self._known_weights) if each.identity == identity), None)
        if found is None:
            self._forget_old_weights()
            found = SampledWeights(self._model, name, adapter)
            self._known_weights.add(found)
        self._recent_weights = found
        return found

    def _forget_old_weights(self) -> None:
        """Drop beginnings made with weights that nobody can ask for any more: they keep them in memory.

        While an agent learns, each step has weights of its own; those of a hundred steps are gigabytes.
        """
        adapters = [] if self.bank is None else [self.bank[name] for name in self.bank.names()]
        current = {mark_of(list(each.parameters())[-1]) for each in (self._model, *adapters)}
        self._prefixes.keep(lambda weights: isinstance(weights, WeightsIdentity) and weights.last in current)

    # ------------------------------------------------------------------------------------------------ prompts that wait

    def _admit(self) -> None:
        """Let prompts begin to be read, as many as there is room for."""
        room = self.limits.rows - len(self._rows)
        room -= sum(_left(prompt) for prompt in (*self._reading, *self._ready))
        for prompt in self._waiting[:_LOOK_AHEAD]:
            if room <= 0:
                return
            known = None
            if prompt.handle.request.settings.prompt_logprobs is None:  # else all of it is read
                # The last token is always read: the first of the answer follows from it.
                known = self._prefixes.find(prompt.weights.identity, prompt.tokens[:-1])
            if self._is_being_read(prompt, known.length if known else 0):
                continue
            self._waiting.remove(prompt)
            self._place(prompt, known)
            self._reading.append(prompt)
            room -= _left(prompt)

    def _is_being_read(self, prompt: _Prompt, known: int) -> bool:
        """Return whether a prompt that is read now has much in common with this one: then it waits for that."""
        if prompt.handle.request.settings.prompt_logprobs is not None or not self.limits.prefix_bytes:
            return False
        beginning = prompt.tokens[:-1]
        return any(
            begins_alike(each.tokens, beginning, known + _WORTH_SHARING)
            for each in self._reading
            if each.weights is prompt.weights
        )

    def _place(self, prompt: _Prompt, known: SharedPrefix | None) -> None:
        """Take a slot for a prompt; a beginning that many rows share is referred to, else it is copied."""
        if known is None:
            prompt.slot = self._cache.take()
            return
        samples, beginning = _left(prompt), prompt.tokens[: known.length]
        for other in (*self._waiting[:_LOOK_AHEAD], *self._reading):
            alike = other is not prompt and other.weights is prompt.weights
            if alike and begins_alike(other.tokens[:-1], beginning, known.length):
                samples += _left(other)
        prompt.grouped = (samples - 1) * known.length
        refer = prompt.grouped >= _WORTH_REFERRING
        prompt.slot = self._cache.take(known) if refer else self._cache.take_copy(known)
        prompt.done = prompt.handle.cached_tokens = known.length

    # ------------------------------------------------------------------------------------------------- prompts are read

    def _read(self) -> None:
        prompts, lengths, left = [], [], self.limits.prefill_tokens
        ranks = _ranks(prompt.weights.adapter for prompt in self._reading)
        for prompt in sorted(self._reading, key=lambda each: ranks[id(each.weights.adapter)]):
            length = min(left, len(prompt.tokens) - prompt.done)
            if length:
                prompts.append(prompt)
                lengths.append(length)
                left -= length
        if not prompts:
            return
        parts = [prompt.tokens[prompt.done : prompt.done + n] for prompt, n in zip(prompts, lengths, strict=True)]
        tokens = torch.from_numpy(numpy.concatenate(parts)).to(self._device)
        adapters = _adapters([prompt.weights for prompt in prompts], lengths)
        rows = self._cache.rows([prompt.slot for prompt in prompts], lengths)
        hidden = self._model.hidden(tokens, rows, adapters, self._cache)
        for prompt, states in zip(prompts, hidden.split(lengths), strict=True):
            if prompt.handle.request.settings.prompt_logprobs is not None:
                self._measure(prompt, states)
            prompt.done += len(states)
            if prompt.done == len(prompt.tokens):
                prompt.last = states[-1:].clone()
                self._reading.remove(prompt)
                self._ready.append(prompt)
                self._keep(prompt)

    def _measure(self, prompt: _Prompt, states: Tensor) -> None:
        """Note the logprobs of tokens of a prompt, of which `states` are before."""
        handle, number = prompt.handle, prompt.handle.request.settings.prompt_logprobs
        if handle.prompt_logprobs is None:
            handle.prompt_logprobs = [None]
            handle.prompt_likeliest = [None] if number else None
        targets = torch.from_numpy(prompt.tokens[prompt.done + 1 : prompt.done + 1 + len(states)]).to(self._device)
        parts = zip(states[: len(targets)].split(_LOGITS_AT_ONCE), targets.split(_LOGITS_AT_ONCE), strict=True)
        for some, wanted in parts if len(targets) else ():
            logits = self._model.logits(some, _adapters([prompt.weights], [len(some)])).float()
            totals = logits.logsumexp(-1)
            handle.prompt_logprobs += (logits.gather(1, wanted[:, None]).squeeze(1) - totals).tolist()
            if handle.prompt_likeliest is not None and number:
                handle.prompt_likeliest += likeliest(logits, totals, number)

    def _keep(self, prompt: _Prompt) -> None:
        """Keep a prompt that was read for others, and ready it for its own samples."""
        length, samples = len(prompt.tokens), _left(prompt)
        saved = (samples - 1) * length
        if saved >= max(_WORTH_REFERRING, prompt.grouped):
            prompt.shared = self._cache.share(prompt.slot)
        if self.limits.prefix_bytes and length - prompt.handle.cached_tokens >= _WORTH_SHARING:
            shared = prompt.shared or self._cache.share(prompt.slot)
            self._prefixes.add(prompt.weights.identity, prompt.tokens, shared)

    # ---------------------------------------------------------------------------------------------------------- samples

    def _begin(self) -> None:
        """Give samples of prompts that were read their first token."""
        rows: list[_Row] = []
        for prompt in list(self._ready):
            while _left(prompt) and len(self._rows) + len(rows) < self.limits.rows:
                index, prompt.joined = prompt.joined, prompt.joined + 1
                settings = prompt.handle.request.settings
                random = None if settings.greedy else SampleRandom(settings.seed, index)
                rules = rules_of(settings, self._grammars, prompt.ends, self._device)
                rows.append(_Row(prompt, prompt.handle.samples[index], random, self._slot_for(prompt), rules))
            if not _left(prompt):
                self._ready.remove(prompt)
        if not rows:
            return
        ranks = _ranks(row.prompt.weights.adapter for row in rows)
        rows.sort(key=lambda row: ranks[id(row.prompt.weights.adapter)])
        hidden = torch.cat([row.prompt.last for row in rows if row.prompt.last is not None])
        batch = self._new_batch(rows)
        self._rows += rows
        self._batch = None
        self._take(rows, self._model.logits(hidden, batch.adapters), batch)

    def _slot_for(self, prompt: _Prompt) -> int:
        """Return a slot that holds the prompt, for a sample of its own; the last sample gets the prompt's."""
        slot = prompt.slot
        if _left(prompt):
            return self._cache.take(prompt.shared) if prompt.shared is not None else self._cache.fork(slot)
        prompt.slot = _NOWHERE
        if prompt.shared is not None:  # as the others, so that all are read in one place
            self._cache.free(slot)
            return self._cache.take(prompt.shared)
        return slot

    def _grow(self) -> None:
        """Give each row one more token."""
        if self._batch is None:
            self._arrange()
            self._batch = self._new_batch(self._rows)
        rows, batch = list(self._rows), self._batch
        guessing = self._guesses and len(rows) <= _FEW_ROWS
        guesses = [self._guess(row) if guessing else [] for row in rows]
        lengths = [1 + len(guess) for guess in guesses]
        if any(guesses):
            batch = self._new_batch(rows, lengths)
        next_tokens = [(row.sample.tokens[-1], *guess) for row, guess in zip(rows, guesses, strict=True)]
        tokens = torch.tensor([token for each in next_tokens for token in each], device=self._device)
        places = self._cache.rows([row.slot for row in rows], lengths)
        hidden = self._model.hidden(tokens, places, batch.adapters, self._cache)
        self._take(rows, self._model.logits(hidden, batch.adapters), batch, guesses)

    def _guess(self, row: _Row) -> list[int]:
        if row.rules is not None:  # which each token changes
            return []
        if row.lookahead is None:
            row.lookahead = Lookahead(row.prompt.tokens.tolist(), self.limits.lookahead)
        tokens = row.sample.tokens
        return row.lookahead.guess(tokens, row.prompt.limit - len(tokens) - 1)

    def _take(
        self, rows: Sequence[_Row], logits: Tensor, batch: _Batch, guesses: Sequence[list[int]] | None = None
    ) -> None:
        """Draw the next token of rows, and those after guesses that were right; end the rows that they end."""
        guesses = guesses or [[] for _ in rows]
        randoms = [[] if row.random is None else [row.random.next() for _ in range(1 + len(guess))]
                   for row, guess in zip(rows, guesses, strict=True)]  # fmt: skip
        ruled = self._ruled(rows, logits, guesses)
        chosen = batch.choice.choose(logits, [number for numbers in randoms for number in numbers], ruled)
        begin = 0
        for row, guess, numbers in zip(rows, guesses, randoms, strict=True):
            used, end = 0, begin + 1 + len(guess)
            while row.sample.finish is None and begin + used < end:
                if used and chosen.tokens[begin + used - 1] != guess[used - 1]:
                    break  # what follows was computed after another token
                self._take_token(row, chosen, begin + used)
                used += 1
            if guess and row.sample.finish not in (CANCELLED, FAILED):
                self._take_back(row, len(guess), used, numbers)
            begin = end
        ended = [row for row in rows if row.sample.finish is not None and row in self._rows]
        for row in ended:
            self._leave(row)

    def _take_token(self, row: _Row, chosen: Chosen, number: int) -> None:
        logprob, sample = chosen.logprobs[number], row.sample
        if logprob != logprob:  # NaN
            name = row.prompt.weights.name
            what = "the model" if name is None else f"adapter {name!r}"
            self._end(row.prompt.handle, FAILED, NonFiniteError(f"sampling from {what}: logits are not finite"))
            return
        if sample.likeliest is not None:
            sample.likeliest.append(chosen.likeliest[number] or [])
        token = chosen.tokens[number]
        sample.take(token, logprob, row.prompt.ends, row.prompt.limit)
        if row.rules is not None:
            try:
                if row.rules.take(token, token in row.prompt.ends):
                    sample.end(STOP)
            except EngineError as error:
                self._end(row.prompt.handle, FAILED, error)

    def _ruled(self, rows: Sequence[_Row], logits: Tensor, guesses: Sequence[list[int]]) -> Tensor | None:
        """Return the logits to draw from, where some rows have rules; None where none has."""
        if all(row.rules is None for row in rows):
            return None
        ruled, place = logits.to(torch.float32, copy=True), 0
        for row, guess in zip(rows, guesses, strict=True):
            if row.rules is not None:
                try:
                    row.rules.apply(ruled[place])
                except EngineError as error:
                    self._end(row.prompt.handle, FAILED, error)
            place += 1 + len(guess)
        return ruled

    def _take_back(self, row: _Row, guessed: int, used: int, numbers: Sequence[float]) -> None:
        """Forget what came of guesses that were wrong."""
        self._cache.crop(row.slot, len(row.prompt.tokens) + len(row.sample.tokens) - 1)
        if row.random is not None:
            row.random.give_back(numbers[used:])
        if row.lookahead is not None:
            row.lookahead.tell(guessed, used - 1)

    def _leave(self, row: _Row) -> None:
        self._rows.remove(row)
        self._batch = None
        sample, prompt = row.sample, row.prompt
        if sample.finish not in (CANCELLED, FAILED) and len(prompt.handle.samples) == 1 and self.limits.prefix_bytes:
            # The next turn of a chat begins with this one. The last token is not in the cache yet.
            held = len(prompt.tokens) + len(sample.tokens) - 1
            read_again = len(sample.tokens) - 1
            if _COPIED * read_again >= held and self._cache.length(row.slot) == held:
                tokens = numpy.concatenate([prompt.tokens, numpy.asarray(sample.tokens[:-1])])
                self._prefixes.add(prompt.weights.identity, tokens, self._cache.share(row.slot))
        self._cache.free(row.slot)

    def _arrange(self) -> None:
        """Let rows lie side by side that have one adapter, one prefix, and like lengths, where it is worth the copy."""
        rows = {row.slot: row for row in self._rows}
        now = [slot for slot in self._cache.slots if slot in rows]
        adapters = _ranks(rows[slot].prompt.weights.adapter for slot in now)
        prefixes = _ranks(self._cache.prefix(slot) for slot in now)

        def kind(slot: int) -> tuple[int, int]:
            return adapters[id(rows[slot].prompt.weights.adapter)], prefixes[id(self._cache.prefix(slot))]

        best = sorted(now, key=lambda slot: (*kind(slot), self._cache.own_length(slot)))
        costs = []
        for order in (now, best):
            runs = [list(run) for _, run in groupby(order, kind)]
            costs.append(sum(reading_cost([self._cache.own_length(slot) for slot in run]) for run in runs))
        if costs[0] - costs[1] >= _WORTH_ARRANGING:
            others = [slot for slot in self._cache.slots if slot not in rows]
            self._cache.arrange([*best, *others])
        places = {slot: place for place, slot in enumerate(self._cache.slots)}
        self._rows.sort(key=lambda row: places[row.slot])

    def _new_batch(self, rows: Sequence[_Row], lengths: Sequence[int] | None = None) -> _Batch:
        lengths = lengths or [1] * len(rows)
        settings = [row.settings for row, length in zip(rows, lengths, strict=True) for _ in range(length)]
        adapters = _adapters([row.prompt.weights for row in rows], lengths)
        return _Batch(TokenChoice(settings, self._device), adapters)

    # ------------------------------------------------------------------------------------------------- ends of requests

    def _under_way(self) -> tuple[_Prompt, ...]:
        """Return the prompts that are read, or of which samples grow or are to begin; one comes for each sample."""
        return (*self._reading, *self._ready, *(row.prompt for row in self._rows))

    def _check_weights(self) -> None:
        """Let requests fail whose weights are no longer those they began with."""
        prompts = self._under_way()
        for weights in {id(prompt.weights): prompt.weights for prompt in prompts}.values():
            try:
                weights.require_unchanged()
            except EngineError as error:
                for prompt in prompts:
                    if prompt.weights is weights:
                        self._end(prompt.handle, FAILED, error)

    def _end(self, handle: SampleHandle, finish: str, error: EngineError | None = None) -> None:
        """End what is left of a request."""
        if handle.done:
            return
        handle.error = error
        for sample in handle.samples:
            sample.end(finish)
        for queue in (self._waiting, self._reading, self._ready):
            for prompt in [each for each in queue if each.handle is handle]:
                queue.remove(prompt)
                if prompt.slot != _NOWHERE:
                    self._cache.free(prompt.slot)
        for row in [row for row in self._rows if row.prompt.handle is handle]:
            self._leave(row)


def _ranks(objects: Iterable[object]) -> dict[int, int]:
    """Number objects, by their `id`, in the order in which they first come: ids themselves differ from run to run."""
    ranks: dict[int, int] = {}
    for each in objects:
        ranks.setdefault(id(each), len(ranks))
    return ranks


def _left(prompt: _Prompt) -> int:
    """Return how many samples of a prompt have not begun."""
    return len(prompt.handle.samples) - prompt.joined


def _adapters(weights: Sequence[SampledWeights], lengths: Sequence[int]) -> AdapterRows | None:
    adapters = tuple(each.adapter for each in weights)
    return AdapterRows(adapters, tuple(lengths)) if any(each is not None for each in adapters) else None


def sampler_of(base: BaseModel, adapter: LoraAdapter | None, name: str, pack: bool) -> Sampler:
    """Return a sampler of a model with one adapter, or as it is.

    Args:
        base: the model.
        adapter: its adapter; None for none.
        name: what requests call the adapter.
        pack: as `Sampler` has it.
    """
    bank = None
    if adapter is not None:
        bank = LoraBank(base.model)
        bank.add(name, adapter)
    return Sampler(base, bank, pack=pack)
