"""Losses of nan, inf or 0.0, and probabilities that are none: which of the usual reasons a text speaks for."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from doctor.case import Case
from doctor.diagnosis.mechanism import Said
from doctor.diagnosis.told import Told
from doctor.finding import Change, Finding

_BRANCH = "runtime/nan"
_LOSS = (
    r"\b(?:train_|eval_|val(?:idation)?_|training |validation )?loss\b['\"]?\s*(?:is|=|:"
    r"|becomes|goes to|turns(?: in)?to|->|equals|stays(?: at)?|of"
    r"|always)?\s*(?:always\s+)?(?:0\.0+\b(?![1-9])|0\b(?!\.)|nan\b|inf\b)"
    r"|\bloss\b[^.\n]{0,30}\b(?:nan|zero|infinite|infinity)\b|\b(?:nan"
    r"|zero) loss\b|grad(?:ient)?_?\s?norm['\"]?\s*(?:is|=|:)\s*(?:nan|inf)"
)
_PROBABILITIES = (
    r"probability tensor contains either `?inf`?, `?nan`? or element < 0"
    r"|Expected parameter (?:logits|probs)[^\n]*but found invalid values"
)
_SCALE = r"Current loss scale already at minimum|Minimum loss scale reached|loss scale[^\n]{0,30}\b(?:0|minimum)\b"
_UNSCALE = r"Attempting to unscale FP16 gradients"
_ANOMALY = r"returned nan values in its \d+th output|Function '?\w+Backward\w*'? returned nan"
_GARBAGE = r"(?:output|generat|respon|answer)\w*[^\n]{0,60}!{4,}|!{8,}"
_HALF = r"\bfp16\b|float16|\bhalf\b|\bHalf\b|torch\.half|16-mixed|\bAMP\b|GradScaler"
_MASKED = (
    r"-100|response[_ ]template|Could not find (?:response|instruction) key"
    r"|completion[_ ]only|instruction[_ ]template|labels?[^\n]{0,30}(?:ignored|masked"
    r"|-100)|This instance will be ignored in loss"
)
# Families that were trained in bfloat16, whose activations go beyond what float16 holds (65504).
_BF16_MODELS = (
    r"\b(?:qwen|gemma|llama-?[23]|mistral|mixtral|phi-?[34]|t5|mt5|flan|deepseek|glm"
    r"|internlm|yi-|baichuan|olmo|falcon)\w*"
)
_FP32 = Change(
    "code",
    "Load the weights in float32 and let autocast compute in fp16 (fp16=True with "
    "torch_dtype=torch.float32), or train LoRA over a 4-bit base with compute in "
    "float32; fp16 weights themselves can't be trained.",
)
_SOURCE = (
    "https://docs.pytorch.org/docs/stable/notes/amp_examples.html; "
    "https://huggingface.co/docs/transformers/perf_train_gpu_one"
)


def find_not_a_number(case: Case, knowledge: Any) -> Iterator[Said]:
    """Tell why a loss is nan, inf or exactly 0.

    Args:
        case: what is diagnosed.
        knowledge: not needed.

    Yields:
        One finding at most.
    """
    told = Told(case)
    if told.case.failure is None:
        return
    found = told.search(_UNSCALE)
    if found:
        yield Finding(
            "fp16-weights-with-scaler",
            _BRANCH,
            "error",
            0.93,
            "The trained weights themselves are in float16, and the gradient scaler of fp16 "
            "training refuses their gradients.",
            (told.line(found),),
            "fp16 training keeps the weights in float32 and only computes in float16; a model "
            "that was loaded with torch_dtype=float16 has no such weights.",
            (
                _FP32,
                Change("option", "Or, on Ampere and newer GPUs: bf16=True, fp16=False, with the weights in bfloat16."),
            ),
            "another torch or accelerate",
            source=_SOURCE,
            gpu=True,
        )
        return
    for pattern, kind in (
        (_SCALE, "scale"),
        (_PROBABILITIES, "probabilities"),
        (_ANOMALY, "anomaly"),
        (_LOSS, "loss"),
        (_GARBAGE, "garbage"),
    ):
        found = told.search(pattern)
        if not found:
            continue
        one = _of_kind(told, kind, found)
        if kind in ("loss", "garbage") and told.case.failure.raised:
            # Something was raised: a loss in the log before it is seldom what is asked about.
            one = replace(one, confidence=round(one.confidence / 2, 2))
        yield one
        return


def _of_kind(told: Told, kind: str, found: re.Match[str]) -> Finding:
    """Return the finding of a sign by the circumstances that the text tells."""
    capability = told.capability
    no_bf16 = (capability is not None and capability < (8, 0)) or bool(
        told.search(r"no bf16|bf16 (?:is )?not (?:supported|available)|without bf16")
    )
    half = bool(told.search(_HALF))
    model = told.search(_BF16_MODELS)
    line = told.line(found)
    evidence = [line]
    if no_bf16 or capability:
        evidence.append(f"{told.gpu_name}: {'no bfloat16' if no_bf16 else 'bfloat16 is there'}")
    if model:
        evidence.append(f"{model[0]} is of a family that was trained in bfloat16")
    masked = told.search(_MASKED)
    if kind == "loss" and masked and not half:
        return Finding(
            "all-labels-masked",
            _BRANCH,
            "error",
            0.86,
            "No label is left in the loss: all of them are -100.",
            (line, told.line(masked)),
            "The response template isn't found in the tokens (other tokens in context, "
            "truncated, wrong template), so that everything is masked; the mean over nothing is "
            "nan, or 0.",
            (
                Change(
                    "code",
                    "Look at one batch's labels; give the template as token ids taken from a formatted "
                    "example, raise max_length so that the answer isn't cut, or use assistant_only_loss "
                    "with a template that marks turns.",
                ),
            ),
            "the learning rate or the precision: there is nothing to learn from",
            source="https://huggingface.co/docs/trl/sft_trainer",
            gpu=False,
        )
    overflow = half or no_bf16 or kind == "scale"
    if overflow or (model and kind in ("loss", "probabilities", "garbage")):
        bf16 = Change(
            "code", "Compute in bfloat16 (dtype bf16: bf16=True, torch_dtype=torch.bfloat16), whose range is float32's."
        )
        changes = (
            [
                _FP32,
                Change(
                    "option",
                    "Fused attention (sdpa), a lower learning rate and gradient clipping help too, but "
                    "don't remove the cause.",
                ),
                Change("hardware", "Or use a GPU with bfloat16 (A100, L4, RTX 30 or newer)."),
            ]
            if no_bf16
            else [bf16, _FP32]
        )
        if kind in ("probabilities", "garbage"):
            changes = [
                Change(
                    "code",
                    "Generate in bfloat16, or in float32 where the GPU has none: dtype bf16/fp32 (vLLM: "
                    "--dtype bfloat16 or float32).",
                ),
                Change(
                    "code", "For batches: padding_side='left', an attention mask, a pad token that isn't masked away."
                ),
                Change(
                    "option",
                    "For a quantised model: the compute dtype, or another quantisation (GPTQ kernels in "
                    "fp16 overflow too).",
                ),
            ]
        what = {
            "scale": "the loss scale fell to its minimum, every step overflows",
            "probabilities": "the logits became inf or nan before sampling",
            "garbage": "logits are nan, so that token 0 ('!') comes out",
            "anomaly": "a gradient became nan",
            "loss": "the loss is nan or exactly 0",
        }[kind]
        return Finding(
            "float16-overflow",
            _BRANCH,
            "error",
            0.9 if (overflow and (model or no_bf16)) or kind == "scale" else 0.8,
            f"float16 overflows: {what}{f' ({told.gpu_name} has no bfloat16)' if no_bf16 else ''}.",
            tuple(evidence),
            "Models trained in bfloat16 have activations and gradients beyond 65504, the largest "
            "float16; in inference they may just fit, in training they don't.",
            tuple(changes),
            "'inference works in fp16, so the model is fine in fp16': gradients and training activations are larger",
            source=_SOURCE,
            gpu=True,
        )
    return Finding(
        "loss-not-a-number",
        _BRANCH,
        "error",
        0.6,
        "The numbers left their range: a nan or inf in the data, a step too large, or log(0) or a division by 0.",
        tuple(evidence),
        "nan spreads from the first place that makes it; loss 0.0 in a log is often a nan that was counted as nothing.",
        (
            Change(
                "code",
                "Find the first place: torch.autograd.set_detect_anomaly(True), check inputs and "
                "labels by torch.isfinite, and whether all labels are -100.",
            ),
            Change(
                "option",
                "Then: a lower learning rate with warm-up, gradient clipping, an eps in logs and "
                "divisions, bf16 or fp32 in place of fp16.",
            ),
        ),
        None,
        source=_SOURCE,
    )
