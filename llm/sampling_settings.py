"""What is asked of the sampler: prompts and how their answers are drawn. What is not allowed is said by its field."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real

from llm.engine_error import EngineError

# Alternatives of a token that may be asked for: more would cost more than the model.
MOST_ALTERNATIVES = 1000
MOST_STOPS = 64
MOST_SAMPLES = 1024
MOST_PENALTY = 2.0
MOST_BIAS = 100.0


class SettingError(EngineError):
    """A setting of sampling that is not allowed.

    Args:
        field: name of the setting.
        given: its value.
        allowed: what is allowed, in words.
    """

    def __init__(self, field: str, given: object, allowed: str) -> None:
        super().__init__(f"{field} is {given!r}; {allowed}")
        self.field, self.given, self.allowed = field, given, allowed


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are drawn, and when a sample ends.

    Logits are divided by the temperature; of these the `top_k` likeliest tokens stay; of these, the likeliest whose
    probabilities, out of those that stayed, add up to `top_p` or more; one of them is drawn.

    A token's logprob is the log of its probability under the model as it is: log-softmax of the logits, without
    temperature, top_k and top_p, at temperature 0 too. This is what a forward pass of training gives, and what ratios
    of probabilities need. With `logprobs_of = "sampling"` it is the log of the probability with which it was drawn.

    Penalties, `logit_bias` and `grammar` change the logits before all this; the model's own logprobs stay as they are.

    Attributes:
        temperature: 0 takes the likeliest token, always; 1 draws from the model as it is.
        top_k: how many of the likeliest tokens may be drawn; None (or -1) for all.
        top_p: share of the probability whose likeliest tokens may be drawn; 0 leaves the likeliest token only.
        seed: any integer: the same tokens each time, whatever else is sampled beside it. Of several samples each has
            random numbers of its own. None for others each time.
        max_tokens: tokens of a sample at most, its end included; None for what the context has room for.
        stop: strings and token ids that end a sample. A string ends it with the token that completes it, wherever in
            that token; it and what follows are not in the text, but the token is among the sample's tokens.
        end_ids: token ids that end an answer; None for those of the model; () so that only `stop` and `max_tokens` do.
        logprobs: how many of the likeliest tokens are told for each sampled token; its own logprob always is.
        prompt_logprobs: None for none; 0 for the logprob of each token of the prompt but the first; more for so many of
            the likeliest tokens too.
        logprobs_of: model or sampling, see above.
        presence_penalty: taken off the logit of each token that the sample has already.
        frequency_penalty: taken off the logit of a token for each time that the sample has it already.
        logit_bias: (token, what is added to its logit), each token once.
        grammar: form that the sample must have (`llm.token_grammar`); None for any. Ids that end a sample are drawn
            only where the form is whole; where it is and no id ends the sample, it ends by itself. What `max_tokens` or
            a stop string cuts off may not be whole.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str | int, ...] = ()
    end_ids: tuple[int, ...] | None = None
    logprobs: int = 0
    prompt_logprobs: int | None = None
    logprobs_of: str = "model"
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: str | None = None

    def __post_init__(self) -> None:
        _number("temperature", self.temperature, 0.0, None)
        _number("top_p", self.top_p, 0.0, 1.0)
        if self.top_k is not None:
            if not _is_whole(self.top_k) or (self.top_k < 1 and self.top_k != -1):
                raise SettingError("top_k", self.top_k, "allowed are 1 or more, and -1 or None for all tokens")
            object.__setattr__(self, "top_k", None if self.top_k == -1 else int(self.top_k))
        if self.seed is not None and not _is_whole(self.seed):
            raise SettingError("seed", self.seed, "allowed are integers, and None for none")
        if self.max_tokens is not None:
            _whole("max_tokens", self.max_tokens, 1, None)
        _whole("logprobs", self.logprobs, 0, MOST_ALTERNATIVES)
        if self.prompt_logprobs is not None:
            _whole("prompt_logprobs", self.prompt_logprobs, 0, MOST_ALTERNATIVES)
        if self.logprobs_of not in ("model", "sampling"):
            raise SettingError("logprobs_of", self.logprobs_of, "allowed are 'model' and 'sampling'")
        for name in ("presence_penalty", "frequency_penalty"):
            _number(name, getattr(self, name), -MOST_PENALTY, MOST_PENALTY)
        object.__setattr__(self, "logit_bias", tuple(self.logit_bias))
        for token, bias in self.logit_bias:
            _whole("logit_bias", token, 0, None)
            _number("logit_bias", bias, -MOST_BIAS, MOST_BIAS)
        self._check_stops()

    def _check_stops(self) -> None:
        if isinstance(self.stop, str) or not isinstance(self.stop, Sequence):
            raise SettingError("stop", self.stop, "it must be a tuple of strings and token ids")
        for each in self.stop:
            if each == "" or not (isinstance(each, str) or (_is_whole(each) and each >= 0)):
                raise SettingError("stop", each, "allowed are strings of 1 character or more and token ids")
        if len(self.stop) > MOST_STOPS:
            raise SettingError("stop", f"{len(self.stop)} strings", f"at most {MOST_STOPS} are allowed")
        for token in self.end_ids or ():
            if not _is_whole(token) or token < 0:
                raise SettingError("end_ids", token, "allowed are token ids")
        object.__setattr__(self, "stop", tuple(self.stop))
        object.__setattr__(self, "end_ids", None if self.end_ids is None else tuple(self.end_ids))

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0 or self.top_p == 0 or self.top_k == 1

    @property
    def has_rules(self) -> bool:
        """Whether the next token depends on more than the model, the temperature, top_k and top_p."""
        return bool(self.presence_penalty or self.frequency_penalty or self.logit_bias or self.grammar is not None)

    @staticmethod
    def of(**given: object) -> "SamplingSettings":
        """Make settings of what a client sent: None stands for the default.

        Raises:
            SettingError: a name is not known, or a value not allowed.
        """
        known = {each.name for each in fields(SamplingSettings)}
        for name, value in given.items():
            if name not in known:
                raise SettingError(name, value, f"no setting has this name; there are {', '.join(sorted(known))}")
        return SamplingSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


@dataclass(frozen=True)
class SampleRequest:
    """A prompt and what is wanted of it.

    Attributes:
        prompt: token ids, 1 or more.
        settings: how tokens are drawn.
        samples: answers to the prompt, each drawn by itself.
        adapter: name of an adapter or version in the sampler's bank; None for the model as it is.
    """

    prompt: Sequence[int]
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    samples: int = 1
    adapter: str | None = None

    def __post_init__(self) -> None:
        _whole("samples", self.samples, 1, MOST_SAMPLES)
        if not len(self.prompt):
            raise SettingError("prompt", "empty", "it needs 1 token or more")
        object.__setattr__(self, "prompt", tuple(int(token) for token in self.prompt))


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _whole(field: str, value: object, least: int, most: int | None) -> None:
    if not _is_whole(value) or value < least or (most is not None and value > most):  # type: ignore[operator]
        raise SettingError(field, value, f"allowed are integers {_range(least, most)}")


def _number(field: str, value: object, least: float, most: float | None) -> None:
    fine = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or value < least or (most is not None and value > most):  # type: ignore[operator]
        raise SettingError(field, value, f"allowed are numbers {_range(least, most)}")


def _range(least: float, most: float | None) -> str:
    return f"of {least:g} or more" if most is None else f"from {least:g} to {most:g}"
