"""Answers come back from the journal with the same bytes in both forms."""

import json

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("google.protobuf")

from llm.loss_pass import LossResult
from llm.sample_result import Sample, SampleHandle
from service.openai.openai_answers import to_json
from service.tinker.kept_answers import pack, unpack
from service.tinker.tinker_messages import LossAnswer, PlainAnswer, SampleAnswer, Sampling
from service.web.tinker_error import TinkerError


def again(answer):
    fields, content = pack(answer)
    kept = unpack(json.loads(to_json(fields)), content)
    assert pack(kept) == (fields, content)
    return kept


def sampled():
    asked = Sampling.of({
        "prompt": {"chunks": [{"tokens": [1, 2, 3]}]}, "sampling_params": {"max_tokens": 2}, "num_samples": 2,
        "prompt_logprobs": True, "topk_prompt_logprobs": 2, "topk_sample_logprobs": 1,
    })  # fmt: skip
    pairs = [[(7, -0.1)], [(8, -1 / 3)]]
    samples = [Sample([5, 6], [-0.1, -2 / 3], pairs, "length"), Sample([9], [-1e-7], pairs[:1], "stop", 9)]
    likeliest = [None, [(1, -0.5), (2, -0.25)], [(3, -0.125)]]
    return SampleAnswer(asked, SampleHandle(asked.request, samples, [None, -0.5, -1 / 3], likeliest, 2))


@pytest.mark.parametrize(
    "answer",
    [
        PlainAnswer({"metrics": {"gradient_norm:mean": 1 / 3}, "type": "optim_step"}),
        LossAnswer(LossResult(1 / 3, [torch.rand(3), torch.rand(2, 4), torch.rand(1, 3), torch.rand(0)], 5)),
        LossAnswer(LossResult(-0.0, [], 0)),
        sampled(),
    ],
)
def test_both_forms_are_the_same(answer):
    kept = again(answer)
    assert to_json(kept.json()) == to_json(answer.json())
    assert kept.protobuf() == answer.protobuf()


def test_errors_come_back():
    kept = again(TinkerError("no", 404, "server"))
    assert (kept.message, kept.status, kept.category) == ("no", 404, "server")
