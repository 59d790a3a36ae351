"""A teacher's likeliest tokens equal those of plain forward passes, with and without a shared beginning."""

import dataclasses

import pytest
import torch

pytest.importorskip("transformers")

from llm.base_model import load
from llm.hub_model import HubCausalLM
from llm.teacher_logprobs import common_beginning, likeliest_of_answers
from model.packed_attention import PackedRows

SHARED = list(range(30, 90))
PROMPTS = [[*SHARED, 1, 2], [*SHARED, 3], [*SHARED, 4, 5, 6], [*SHARED, 3]]
ANSWERS = [[7, 8, 9, 260], [10], [11, 12], [13, 14, 15]]


def tiny(kind: str):
    base = load("tiny")
    if kind == "own":
        return base
    import transformers

    config = transformers.GPT2Config(vocab_size=261, n_embd=32, n_layer=2, n_head=4, n_positions=128)
    torch.manual_seed(0)
    return dataclasses.replace(base, model=HubCausalLM(transformers.GPT2LMHeadModel(config).eval()))


@pytest.mark.parametrize("kind", ["own", "of transformers"])
@pytest.mark.parametrize("prompts", [PROMPTS, [prompt[60:] for prompt in PROMPTS], [prompt[:61] for prompt in PROMPTS]],
                         ids=["shared", "nothing shared", "all but one shared"])  # fmt: skip
@pytest.mark.parametrize("pass_tokens", [4, 2048])
def test_they_are_those_of_a_plain_forward_pass(kind, prompts, pass_tokens):
    base = tiny(kind)
    told = []
    found = likeliest_of_answers(base, prompts, ANSWERS, 5, pass_tokens, told.append)
    assert told[-1] == 4
    for prompt, answer, (ids, logprobs) in zip(prompts, ANSWERS, found, strict=True):
        tokens = torch.tensor([*prompt, *answer[:-1]])
        with torch.no_grad():
            hidden = base.model.hidden(tokens, PackedRows.of([len(tokens)]))
            plain = base.model.logits(hidden[len(prompt) - 1 :]).log_softmax(-1)
        best = plain.topk(5)
        assert ids.shape == (len(answer), 5) and ids.dtype == torch.int32 and not ids.is_inference()
        assert torch.allclose(logprobs, best.values, atol=1e-5)
        assert torch.allclose(plain.gather(1, ids.long()), best.values, atol=1e-5)


def test_a_prompt_is_never_wholly_shared_and_no_more_tokens_are_asked_for_than_there_are():
    assert common_beginning([[1, 2, 3], [1, 2, 3]]) == 2 and common_beginning([[1, 2], [1, 2, 3]]) == 1
    assert common_beginning([[1, 2], [3, 2]]) == 0 and common_beginning([[5]]) == 0
    base = load("tiny")
    ((ids, logprobs),) = likeliest_of_answers(base, [[1, 2]], [[3]], 1000)
    assert ids.shape == (1, base.vocabulary) and logprobs.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert likeliest_of_answers(base, [], [], 3) == []
