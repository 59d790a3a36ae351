"""Edges of what may be asked of the sampler: each refusal names the field and what is allowed."""

import math

import pytest

from llm.engine_error import EngineError
from llm.sampling_settings import SampleRequest, SamplingSettings, SettingError

WRONG = [
    ("temperature", -0.1, "of 0 or more"), ("temperature", math.nan, "of 0 or more"),
    ("temperature", math.inf, "of 0 or more"), ("temperature", "hot", "of 0 or more"),
    ("temperature", True, "of 0 or more"), ("top_p", 2, "from 0 to 1"), ("top_p", -1e-9, "from 0 to 1"),
    ("top_p", math.nan, "from 0 to 1"), ("top_k", 0, "1 or more, and -1 or None"),
    ("top_k", 2.5, "1 or more, and -1 or None"), ("max_tokens", 0, "of 1 or more"), ("max_tokens", -1, "of 1 or more"),
    ("max_tokens", 1.5, "of 1 or more"), ("seed", 1.0, "integers"), ("seed", "7", "integers"),
    ("logprobs", -1, "from 0 to 1000"), ("prompt_logprobs", 1001, "from 0 to 1000"),
    ("logprobs_of", "both", "'model' and 'sampling'"), ("stop", "x", "a tuple of strings"),
    ("stop", ("",), "1 character"),
    ("stop", (-1,), "token ids"), ("stop", tuple("abcdefgh") * 9, "at most 64"), ("end_ids", (1.5,), "token ids"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "allowed"), WRONG)
def test_what_is_not_allowed_is_said(name, given, allowed):
    with pytest.raises(SettingError) as caught:
        SamplingSettings(**{name: given})
    assert caught.value.field == name and str(caught.value).startswith(f"{name} is ") and allowed in str(caught.value)
    assert isinstance(caught.value, EngineError)


def test_what_is_allowed_is_kept():
    settings = SamplingSettings(temperature=0, top_p=0, top_k=-1, seed=-(2**63), stop=["a", 3], end_ids=[])
    assert (settings.top_k, settings.stop, settings.end_ids, settings.seed) == (None, ("a", 3), (), -(2**63))
    assert [SamplingSettings(**each).greedy for each in ({}, {"temperature": 0}, {"top_p": 0}, {"top_k": 1})] == [
        False, True, True, True]  # fmt: skip
    assert not SamplingSettings(temperature=1.0).greedy and not SamplingSettings(temperature=1e-4).greedy


def test_null_is_the_default_and_0_is_not():
    made = SamplingSettings.of(temperature=None, top_p=0, seed=0, max_tokens=None)
    assert (made.temperature, made.top_p, made.seed, made.max_tokens) == (1.0, 0, 0, None)
    with pytest.raises(SettingError, match="best_of is 2; no setting has this name; there are .*top_p"):
        SamplingSettings.of(best_of=2)


def test_requests():
    assert SampleRequest([1, 2]).prompt == (1, 2)
    with pytest.raises(SettingError, match="samples is 0; allowed are integers from 1 to 1024"):
        SampleRequest([1], samples=0)
    with pytest.raises(SettingError, match="prompt is 'empty'; it needs 1 token or more"):
        SampleRequest([])
