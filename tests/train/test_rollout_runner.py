"""What is remarked on how an agent asks the model that it trains."""

import pytest

from llm.sampling_settings import SamplingSettings
from service.sampling.exchange import Exchange, seed_of
from train.agents.flight import remarks_on


def remarks(**settings) -> list[str]:
    drawn = SamplingSettings(seed=seed_of(3, 0), **settings)
    answer = {"role": "assistant", "content": "x"}
    return remarks_on([Exchange("k", 0, 0, "m", "v", (1,), (2,), (-0.5,), "stop", None, drawn, answer)], 3)


@pytest.mark.parametrize(
    "settings",
    [{"top_p": 0.5}, {"top_k": 4}, {"presence_penalty": 1.0}, {"logit_bias": ((1, 2.0),)}, {"grammar": 'start: "x"'}],
)
def test_whatever_makes_another_policy_is_remarked_on(settings):
    (told,) = remarks(**settings)
    (name,) = settings
    named = "a form (response_format, strict tools, or a tool that must be called)" if name == "grammar" else name
    assert told.startswith(f"the agent asks with {named}: what is sampled is another policy than the one that is")
    assert remarks() == []
