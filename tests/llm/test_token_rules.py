"""Penalties and biases against their formula, and the logprobs that stay the model's own."""

import pytest
import torch

pytest.importorskip("transformers")

from llm import base_model
from llm.sampling import Sampler
from llm.sampling_settings import SampleRequest, SamplingSettings, SettingError
from llm.token_rules import rules_of

PROMPT = tuple(b"hello")


@pytest.fixture(scope="module")
def sampler():
    return Sampler(base_model.load("tiny"))


def logits_of(sampler, tokens) -> torch.Tensor:
    """What the model itself makes of a text, all of it computed anew."""
    from model.causal_lm import PackedRows

    model = sampler.base.model
    with torch.inference_mode():
        hidden = model.hidden(torch.tensor(tokens), PackedRows.of([len(tokens)]))
        return model.logits(hidden[-1:])[0]


def test_the_formula():
    settings = SamplingSettings(presence_penalty=0.5, frequency_penalty=0.25, logit_bias=((3, 7.0), (0, -100.0)))
    rules = rules_of(settings, None, (), torch.device("cpu"))
    for token in (1, 1, 2, 3):
        rules.take(token, False)
    logits = torch.zeros(5)
    rules.apply(logits)
    assert logits.tolist() == [-100.0, -1.0, -0.75, 6.25, 0.0]
    assert rules_of(SamplingSettings(temperature=0), None, (), torch.device("cpu")) is None


def test_greedy_tokens_follow_from_the_penalised_logits_and_logprobs_from_the_models(sampler):
    settings = SamplingSettings(temperature=0, max_tokens=12, frequency_penalty=1.3, presence_penalty=1.4, end_ids=(),
                                logit_bias=((65, 0.2),), logprobs=2)  # fmt: skip
    sample = sampler.sample([SampleRequest(PROMPT, settings)])[0][0]
    said: list[int] = []
    for token, logprob, likely in zip(sample.tokens, sample.logprobs, sample.likeliest, strict=True):
        logits = logits_of(sampler, [*PROMPT, *said])
        changed = logits.clone()
        changed[65] += 0.2
        for each in set(said):
            changed[each] -= 1.4 + 1.3 * said.count(each)
        assert changed.argmax().item() == token
        assert logprob == pytest.approx(logits.log_softmax(-1)[token].item(), abs=1e-4)
        assert likely[0][0] == logits.argmax().item()
        said.append(token)
    without = sampler.sample([SampleRequest(PROMPT, SamplingSettings(temperature=0, max_tokens=12, end_ids=()))])[0][0]
    assert without.tokens != said  # else the test shows nothing


def test_of_the_sampling_distribution_where_that_is_asked(sampler):
    bias = tuple((token, 100.0) for token in (65, 66))
    settings = SamplingSettings(seed=1, max_tokens=40, logit_bias=bias, logprobs_of="sampling")
    sample = sampler.sample([SampleRequest(PROMPT, settings)])[0][0]
    for place, (token, logprob) in enumerate(zip(sample.tokens, sample.logprobs, strict=True)):
        of_two = logits_of(sampler, [*PROMPT, *sample.tokens[:place]])[65:67].log_softmax(-1)
        assert token in (65, 66) and logprob == pytest.approx(of_two[token - 65].item(), abs=1e-4)


def test_neighbours_of_a_row_with_rules_get_the_same_bits(sampler):
    plain = [SampleRequest(PROMPT, SamplingSettings(seed=number, max_tokens=16)) for number in range(3)]
    ruled = SampleRequest(PROMPT, SamplingSettings(seed=9, max_tokens=16, frequency_penalty=2.0))
    other = SampleRequest(PROMPT, SamplingSettings(seed=9, max_tokens=16))
    sampler.clear_prefixes()
    beside = sampler.sample([*plain, ruled])[:3]
    sampler.clear_prefixes()
    alone = sampler.sample([*plain, other])[:3]
    assert [(each[0].tokens, each[0].logprobs) for each in beside] == [
        (each[0].tokens, each[0].logprobs) for each in alone
    ]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty"),
        ({"logit_bias": ((1, 101.0),)}, "logit_bias"),
        ({"logit_bias": ((-1, 1.0),)}, "logit_bias"),
    ],
)
def test_what_is_not_allowed_is_said_by_its_field(settings, field):
    with pytest.raises(SettingError) as caught:
        SamplingSettings(**settings)
    assert caught.value.field == field


def test_an_unknown_token_of_a_bias_is_refused(sampler):
    with pytest.raises(SettingError, match="token ids go from 0 to 260"):
        sampler.check(SampleRequest(PROMPT, SamplingSettings(logit_bias=((261, 1.0),))))
