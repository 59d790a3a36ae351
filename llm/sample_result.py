"""What comes of a request to the sampler, while it is made and after."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from llm.engine_error import EngineError
from llm.sampling_settings import SampleRequest
from llm.text_stream import SampleText

STOP, LENGTH, CANCELLED, FAILED = "stop", "length", "cancelled", "error"


@dataclass(eq=False)
class Sample:
    """One answer; it grows with each step.

    Attributes:
        tokens: sampled ids, the one that ended the sample included.
        logprobs: of each token its logprob (see `SamplingSettings` for its meaning).
        likeliest: of each token the likeliest ones in its place (token, logprob), where they were asked for.
        finish: None while it grows; then stop (an end id, a stop string or a stop id), length (max_tokens or the end of
            the context), cancelled or error.
        stopped_by: the id or the string that ended it.
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    likeliest: list[list[tuple[int, float]]] | None = None
    finish: str | None = None
    stopped_by: int | str | None = None
    _text: SampleText | None = None

    @property
    def text(self) -> str:
        """The text so far; it only grows, and no stop string or half a character is ever in it."""
        return "" if self._text is None else self._text.text

    def take(self, token: int, logprob: float, ends: frozenset[int], limit: int) -> None:
        """Take in the next token.

        Args:
            token: its id.
            logprob: its logprob.
            ends: ids that end the sample.
            limit: tokens of the sample at most.
        """
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if token in ends:
            self.end(STOP, token)
            return
        if self._text is not None:
            self._text.add(token)
            if self._text.stopped_by is not None:
                self.end(STOP, self._text.stopped_by)
                return
        if len(self.tokens) >= limit:
            self.end(LENGTH)

    def end(self, finish: str, stopped_by: int | str | None = None) -> None:
        """End the sample, and show the text that was held back."""
        if self.finish is None:
            self.finish, self.stopped_by = finish, stopped_by
            if self._text is not None:
                self._text.end()


@dataclass(frozen=True)
class RecalledSample:
    """What is kept of an answer, so that it can be given again (`Sampler.recall`).

    Attributes:
        tokens: sampled ids, the one that ended the sample included.
        logprobs: of each token its logprob.
        finish: why it ended.
        stopped_by: the id or the string that ended it.
        likeliest: of each token the likeliest ones in its place (token, logprob); empty where nobody asked.
    """

    tokens: Sequence[int]
    logprobs: Sequence[float]
    finish: str
    stopped_by: int | str | None = None
    likeliest: Sequence[Sequence[tuple[int, float]]] = ()

    @staticmethod
    def of(sample: Sample) -> "RecalledSample":
        """Keep a sample that has ended."""
        return RecalledSample(
            tuple(sample.tokens), tuple(sample.logprobs), str(sample.finish), sample.stopped_by,
            tuple(map(tuple, sample.likeliest or ())),
        )  # fmt: skip


@dataclass(eq=False)
class SampleHandle:
    """A request under way: its samples grow with each step of the sampler.

    Attributes:
        request: what was asked.
        samples: its samples.
        prompt_logprobs: where asked for, of each token of the prompt its logprob given those before it; None for the
            first. None until the prompt has been read.
        prompt_likeliest: where asked for, of each token of the prompt the likeliest ones in its place; None for the
            first.
        cached_tokens: tokens of the prompt that were known already.
        error: why it failed; None where it didn't.
    """

    request: SampleRequest
    samples: list[Sample]
    prompt_logprobs: list[float | None] | None = None
    prompt_likeliest: list[list[tuple[int, float]] | None] | None = None
    cached_tokens: int = 0
    error: EngineError | None = None

    @property
    def done(self) -> bool:
        """Whether all samples have ended."""
        return all(sample.finish is not None for sample in self.samples)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, counted once."""
        return len(self.request.prompt)

    @property
    def completion_tokens(self) -> int:
        """Sampled tokens of all samples."""
        return sum(len(sample.tokens) for sample in self.samples)

    def result(self) -> list[Sample]:
        """Return the samples, all of which have ended.

        Raises:
            EngineError: the request failed.
            RuntimeError: it is still under way.
        """
        if self.error is not None:
            raise self.error
        if not self.done:
            raise RuntimeError("the request is still under way: step the sampler until it is done")
        return self.samples
