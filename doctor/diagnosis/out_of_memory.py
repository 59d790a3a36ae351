"""GPU memory that ran out: who holds it, by the figures of the message."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from doctor.case import Case
from doctor.diagnosis.memory_figures import Figures, read_figures, show
from doctor.diagnosis.told import Told
from doctor.finding import Change, Finding

if TYPE_CHECKING:
    from doctor.knowledge.base import Knowledge

_BRANCH = "cuda/oom"
_OUT = (
    r"(CUDA|HIP|XPU|MPS backend|GPU)\b[\w ]*out of memory|OutOfMemoryError"
    r"|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED"
    r"|cudaMalloc failed: out of memory|CUDNN_STATUS_ALLOC_FAILED"
    r"|CUDA error: out of memory|CUDA driver error: out of memory"
    r"|RESOURCE_EXHAUSTED: (Out of memory|Failed to allocate)|Tried to allocate \d[\d.]* [KMGT]i?B"
    r"|failed to allocate [\w ]*(CUDA|GPU)[\w ]* buffer|OOM when allocating tensor"
)
_SEGMENTS = Change(
    "environment",
    "Set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True (PYTORCH_ALLOC_CONF from torch "
    "2.9 on) before the process starts, so that reserved memory can grow in place.",
    environment=(("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),),
)
_FREE_GPU = Change(
    "system",
    "End the process that holds the GPU (nvidia-smi lists it; one that it doesn't list "
    "is a zombie or in another container: `fuser -v /dev/nvidia*`, restart the kernel, "
    "ask the administrator), or choose a free GPU by CUDA_VISIBLE_DEVICES.",
    commands=("nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv", "fuser -v /dev/nvidia*"),
)
_SMALLER = Change(
    "option",
    "Use less: a smaller batch with gradient accumulation, shorter sequences, gradient "
    "checkpointing, bf16, a quantised base with LoRA, or an 8-bit optimizer.",
)
_SOURCE = "https://docs.pytorch.org/docs/stable/notes/cuda.html#memory-management"


def find_gpu_memory(case: Case, knowledge: "Knowledge") -> Iterator[Finding]:
    """Tell which kind of shortage a message about GPU memory reports.

    Args:
        case: what is diagnosed.
        knowledge: not needed.

    Yields:
        One finding at most.
    """
    told = Told(case)
    match = told.search(_OUT)
    if match is None:
        return
    if told.search(r"DefaultCPUAllocator|not enough memory: you tried") and not told.search(
        r"(CUDA|HIP)\b[\w ]*out of memory"
    ):
        return
    figures = read_figures(told.text)
    evidence = (told.line(match), *_table(figures))
    yield _kind(told, figures, evidence)


def _table(figures: Figures) -> tuple[str, ...]:
    """Return the figures as a line of evidence."""
    named = [
        ("asked for", figures.asked),
        ("GPU", figures.total),
        ("free", figures.free),
        ("this process", figures.own),
        ("its tensors", figures.allocated),
        ("reserved and unused", figures.idle),
        ("other processes", figures.others),
    ]
    told = [f"{name} {show(size)}" for name, size in named if size is not None]
    return ("; ".join(told),) if told else ()


def _kind(told: Told, figures: Figures, evidence: tuple[str, ...]) -> Finding:
    """Return the finding of the likeliest kind."""
    asked, total, others, idle, free = figures.asked, figures.total, figures.others, figures.idle, figures.free
    own = figures.own or 0
    advised = bool(told.search(r"expandable_segments|max_split_size_mb"))
    tail = " of this process" if total is None else f" of {show(total)}"
    if (
        total
        and others is not None
        and others > max(2**30, total // 4)
        and others >= own // 2
        and (not asked or asked < others)
    ):
        wrong = ["a smaller batch" + (" or the allocator option that the message names" if advised else "")]
        return Finding(
            "gpu-held-by-another",
            _BRANCH,
            "error",
            0.92,
            f"Another process holds about {show(others)} of the GPU's {show(total)}; this one holds {show(own)}.",
            evidence,
            "The memory that is missing was never this process's: a leftover or neighbouring process has it.",
            (_FREE_GPU,),
            f"{wrong[0]}: this process uses only {own / total:.0%} of the GPU",
            "nvidia-smi",
            source=_SOURCE,
            gpu=True,
        )
    if asked and total and asked > total:
        return Finding(
            "request-beyond-gpu",
            _BRANCH,
            "error",
            0.9,
            f"One tensor of {show(asked)} was asked for, more than the whole GPU has ({show(total)}).",
            evidence,
            "A single request of this size comes from one huge tensor: logits of sequence x "
            "vocabulary, an attention matrix that is not fused, a batch that is the whole data "
            "set, or a wrong shape.",
            (
                Change(
                    "code",
                    "Find the tensor by the last frame of the traceback and make it smaller: shorter "
                    "sequences, fused attention (sdpa, flash_attention_2), the loss in chunks, smaller "
                    "batches.",
                ),
            ),
            "an allocator option or a somewhat smaller model: no arrangement of the memory holds such a tensor",
            source=_SOURCE,
            gpu=True,
        )
    if (
        idle is not None
        and asked
        and (idle > max(2**29, (own or total or 0) // 5))
        and (total is None or idle * 8 > total or idle >= asked)
    ):
        near = idle + (free or 0)
        return Finding(
            "gpu-memory-fragmented",
            _BRANCH,
            "error",
            0.88,
            f"PyTorch has {show(idle)} reserved but unused, in pieces: {show(asked)} in one piece was not among it"
            + (f" nor in the {show(free)} that are free." if free is not None else "."),
            evidence,
            f"Free and idle memory add up to {show(near)} for a request of {show(asked)}; "
            f"segments of changing sizes can't be joined.",
            (_SEGMENTS, _SMALLER),
            "a bigger GPU: much of this one lies unused" if near >= asked else None,
            source=_SOURCE,
            gpu=True,
        )
    phase = _phase(told)
    if phase is not None:
        return _finding_of_phase(phase, figures, evidence, tail)
    if asked and total and asked * 2 > total:
        return Finding(
            "one-large-request",
            _BRANCH,
            "error",
            0.85,
            f"One tensor of {show(asked)} was asked for{tail}: a single request too large.",
            evidence,
            "It is one tensor that doesn't fit, not the sum of many.",
            (
                Change(
                    "code",
                    "Make that tensor smaller: shorter sequences, fused attention, the loss in chunks, a "
                    "smaller batch; the last frame of the traceback names it.",
                ),
                _SMALLER,
            ),
            source=_SOURCE,
            gpu=True,
        )
    if total and free is not None and asked and free > asked + 2**28:
        return Finding(
            "gpu-memory-limited",
            _BRANCH,
            "error",
            0.6,
            f"{show(asked)} was refused although {show(free)} is free: the process has a limit of its own.",
            evidence,
            "A memory fraction (set_per_process_memory_fraction, XLA or vLLM options), a MIG "
            "slice, a container or WSL2's limit of pinned memory refuses it.",
            (
                Change(
                    "option",
                    "Raise the limit: the memory fraction in the code or the server's option, or the slice of the GPU.",
                ),
            ),
            source=_SOURCE,
            gpu=True,
        )
    wrong_advice = None
    if advised and idle is not None and idle < max(2**28, own // 10):
        wrong_advice = (
            f"expandable_segments or max_split_size_mb, as the message says: only {show(idle)} is reserved and unused"
        )
    known = figures.allocated is not None
    return Finding(
        "gpu-memory-short",
        _BRANCH,
        "error",
        0.85 if known else 0.6,
        f"The work does not fit the GPU: tensors hold {show(figures.allocated)}{tail}"
        f"{f' and {show(asked)} more was asked for' if asked else ''}."
        if known
        else "The GPU's memory is full; the message has no figures that tell who holds it.",
        evidence,
        "Weights, gradients, optimizer states and activations together are larger than the "
        "memory; nothing is wasted that an option could give back."
        if known
        else "Either the work is too large or another process holds the GPU: nvidia-smi tells which.",
        (_SMALLER,) if known else (_FREE_GPU, _SMALLER),
        wrong_advice,
        source=_SOURCE,
        gpu=True,
    )


# What was going on, by the frames and words of the text.
_PHASES: tuple[tuple[str, str], ...] = (
    ("evaluation", r"evaluation_loop|prediction_loop|in prediction_step|nested_concat|in evaluate\b|compute_metrics"),
    (
        "growth",
        r"(after|at step|until) [\w ]{0,20}\b(few|several|some|many|hundred"
        r"|\d{2,})\b[\w ]{0,12}(steps|iterations|epochs|batches|requests)"
        r"|memory (usage )?(keeps )?(grow|increas|leak)\w*|gradually|leak\w* memory",
    ),
    ("optimizer", r"torch/optim/\w+\.py|in _init_group|exp_avg|in _multi_tensor_adam"),
    (
        "loading",
        r"load_state_dict|_load_pretrained_model|in from_pretrained|load_checkpoint_in_model"
        r"|set_module_tensor_to_device|torch\.load\(|in load_model\b",
    ),
)


def _phase(told: Told) -> str | None:
    """Return what was going on when memory ran out; None where the text doesn't tell."""
    for name, pattern in _PHASES:
        if re.search(pattern, told.text, re.IGNORECASE):
            return name
    return None


def _finding_of_phase(phase: str, figures: Figures, evidence: tuple[str, ...], tail: str) -> Finding:
    """Return the finding of a phase."""
    verdict, why, change, wrong = {
        "evaluation": (
            "Memory ran out in evaluation: the predictions of all batches are kept on the GPU until the end.",
            "Trainer gathers logits (batch x sequence x vocabulary) of the whole evaluation set on the GPU.",
            Change(
                "option",
                "Set eval_accumulation_steps=1 (moves predictions to the CPU), reduce logits by "
                "preprocess_logits_for_metrics, or prediction_loss_only=True; and a smaller "
                "per_device_eval_batch_size.",
            ),
            "a smaller training batch: training fitted",
        ),
        "growth": (
            "Memory grows from step to step: something keeps tensors of earlier steps alive.",
            "A loss or output that is added up or appended without .item()/.detach() keeps its "
            "whole graph; longer sequences later in the data look the same.",
            Change(
                "code",
                "Keep numbers, not tensors (`loss.item()`, `.detach().cpu()`), and look for lists of "
                "outputs; sort out the longest batch to tell it from growth.",
            ),
            "torch.cuda.empty_cache(): it can't free what is still referred to",
        ),
        "optimizer": (
            f"Memory ran out when the optimizer made its states in the first step{tail}: Adam "
            f"needs two more copies of the trained weights.",
            "Weights and activations fitted; the optimizer's states (8 bytes a parameter in fp32) did not.",
            Change(
                "option",
                "Train fewer weights (LoRA), use an 8-bit or paged optimizer "
                "(optim='paged_adamw_8bit'), or shard the states (FSDP, DeepSpeed ZeRO).",
            ),
            "a smaller batch alone: the states don't depend on it",
        ),
        "loading": (
            f"The model's weights do not fit the GPU while they are loaded{tail}.",
            "No batch or step was reached: weights alone, or two copies of them, are too large, or they came in fp32.",
            Change(
                "option",
                "Load in 16 bits (torch_dtype=torch.bfloat16), quantised (4 bits), on several GPUs "
                "(device_map='auto', tensor parallel), or map a checkpoint to the CPU first "
                "(torch.load(..., map_location='cpu')).",
            ),
            "a smaller batch: no batch was reached",
        ),
    }[phase]
    return Finding(
        f"gpu-memory-{phase}",
        _BRANCH,
        "error",
        0.8,
        verdict,
        evidence,
        why,
        (change, _SMALLER),
        wrong,
        source=_SOURCE,
        gpu=True,
    )
