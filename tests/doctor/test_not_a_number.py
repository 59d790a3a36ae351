"""Losses that are no numbers: float16, masked labels, or the data."""

import pytest

from doctor.diagnosis.not_a_number import find_not_a_number
from tests.doctor.pasted import only, pasted, said


@pytest.mark.parametrize(
    "text, id",
    [
        ("loss: 0.0\nmodel: Qwen2-7B-Instruct\nV100, no bf16", "float16-overflow"),
        ("{'loss': nan, 'grad_norm': nan}\nfp16=True on a T4 with gemma-2", "float16-overflow"),
        ("Exception: Current loss scale already at minimum - cannot decrease scale anymore.", "float16-overflow"),
        (
            "RuntimeError: probability tensor contains either `inf`, `nan` or element < 0\ntorch_dtype=torch.float16",
            "float16-overflow",
        ),
        ("every answer is !!!!!!!!!!!! with GPTQ on a V100", "float16-overflow"),
        ("ValueError: Attempting to unscale FP16 gradients.", "fp16-weights-with-scaler"),
        ("loss: 0.0 always. Could not find response key `### Answer` in the following instance", "all-labels-masked"),
        ("the training loss becomes nan after 200 steps", "loss-not-a-number"),
        ("RuntimeError: Function 'LogBackward0' returned nan values in its 0th output.", "loss-not-a-number"),
    ],
)
def test_the_reason_follows_from_what_the_text_tells(text, id):
    found = only(find_not_a_number, pasted(text))
    assert found.id == id and found.branch == "runtime/nan" and found.changes


def test_where_bfloat16_is_missing_float32_is_the_answer():
    found = only(find_not_a_number, pasted("loss: nan\nfp16 training of Qwen on a T4"))
    assert "float32" in found.changes[0].text and found.changes[-1].kind == "hardware"
    there = only(find_not_a_number, pasted("loss: nan\nfp16 training of Qwen on an A100"))
    assert "bfloat16" in there.changes[0].text


@pytest.mark.parametrize("text", ["loss: 0.0123", "loss: 2.31, accuracy 0.0", "RuntimeError: x", "{'loss': 0.5}"])
def test_a_loss_that_is_a_number_says_nothing(text):
    assert said(find_not_a_number, pasted(text)) == []
