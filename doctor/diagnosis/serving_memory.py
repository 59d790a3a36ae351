"""Memory of servers and loaders that reckon before they start: vLLM, sglang, llama.cpp, bitsandbytes, JAX."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from doctor.case import Case
from doctor.diagnosis.told import Told
from doctor.finding import Change, Finding

if TYPE_CHECKING:
    from doctor.knowledge.base import Knowledge

_BRANCH = "cuda/oom"
_LESS = Change(
    "option", "Or use less: a quantised model, a shorter context (--max-model-len), more GPUs (--tensor-parallel-size)."
)


def find_serving_memory(case: Case, knowledge: "Knowledge") -> Iterator[Finding]:
    """Tell what a server's own sum of its memory says.

    Args:
        case: what is diagnosed.
        knowledge: not needed.

    Yields:
        A finding for each such sum that the text shows.
    """
    told = Told(case)
    found = told.search(
        r"Free memory on device[^(\n]*\((\d[\d.]*)/(\d[\d.]*) GiB\) on startup is less"
        r" than desired GPU memory utilization \((\d[\d.]*)[,)]"
    )
    if found:
        free, total, wanted = (float(one) for one in found.groups())
        held = total - free
        fits = max(0.1, int((free / total) * 100 - 2) / 100)
        yield Finding(
            "server-start-memory",
            _BRANCH,
            "error",
            0.93,
            f"Something else holds {held:.1f} of the GPU's {total:.1f} GiB before the server "
            f"starts; it wants {wanted:.0%} of the whole.",
            (told.line(found),),
            "gpu_memory_utilization is a share of the whole GPU, not of what is free.",
            (
                Change(
                    "system",
                    "End what holds the GPU (an earlier server, a notebook kernel): nvidia-smi lists it.",
                    commands=("nvidia-smi",),
                ),
                Change("option", f"Or ask for what is free: --gpu-memory-utilization {fits:.2f}."),
            ),
            "a smaller model: the GPU is held by another process",
            "nvidia-smi",
            gpu=True,
        )
        return
    found = told.search(
        r"max(?:imum)? (?:seq(?:uence)? len\w*|model len\w*) \(?(\d+)\)? ?(?:is larger than"
        r"|exceeds|tokens)[^\n]{0,160}?KV cache \(?(\d+)?"
        r"|To serve at least one request with the models?'s max seq len \((\d+)\)"
    )
    if found:
        estimate = told.search(r"estimated maximum model length is (\d+)")
        fits_text = estimate[1] if estimate else found[2] or "what fits"
        yield Finding(
            "kv-cache-too-small",
            _BRANCH,
            "error",
            0.92,
            f"The model's context of {found[1] or found[3]} tokens does not fit what is left for the KV cache"
            f"{f' ({fits_text} tokens)' if fits_text.isdigit() else ''}.",
            (told.line(found),),
            "The weights fit; one request of the full context would not. The context is the "
            "model's default, not what you need.",
            (
                Change("option", f"Serve a shorter context: --max-model-len {fits_text}."),
                Change(
                    "option",
                    "Or make room: a higher --gpu-memory-utilization, --kv-cache-dtype fp8, a quantised "
                    "model, --tensor-parallel-size.",
                ),
            ),
            "a smaller batch (--max-num-seqs): one sequence alone is too long",
            gpu=True,
        )
        return
    found = told.search(
        r"No available memory for the cache blocks"
        r"|not enough memory\. Please try to increase --mem-fraction-static"
        r"|Available KV cache memory: -\d"
    )
    if found:
        option = "--mem-fraction-static" if "mem-fraction" in found[0] else "--gpu-memory-utilization"
        yield Finding(
            "no-memory-for-kv-cache",
            _BRANCH,
            "error",
            0.9,
            "After the weights (and the profiling run) nothing is left of the server's share for the KV cache.",
            (told.line(found),),
            "The share of the GPU that the server may use is about as large as weights and "
            "activations, or another process lowers it.",
            (Change("option", f"Raise {option} (such as 0.95) where nothing else uses the GPU."), _LESS),
            gpu=True,
        )
        return
    found = told.search(r"Some modules are dispatched on the CPU or the disk")
    if found:
        yield Finding(
            "quantised-model-offloaded",
            _BRANCH,
            "error",
            0.88,
            "The quantised model does not fit the GPUs, so device_map put layers on the CPU, "
            "which bitsandbytes refuses.",
            (told.line(found),),
            "device_map='auto' reckons with what is free at this moment: another process or an "
            "earlier model in this kernel counts too.",
            (
                Change(
                    "system",
                    "Free the GPU first: restart the kernel, end other processes (nvidia-smi).",
                    commands=("nvidia-smi",),
                ),
                Change(
                    "option",
                    "Then a smaller model or 4 bits; with spare memory device_map={'': 0} puts all on one GPU.",
                ),
                Change(
                    "option", "Or allow it: llm_int8_enable_fp32_cpu_offload=True with a device_map of your own (slow)."
                ),
            ),
            gpu=True,
        )
        return
    found = told.search(r"RESOURCE_EXHAUSTED: [^\n]*(allocat|out of memory)[^\n]*")
    if found:
        yield Finding(
            "jax-memory",
            _BRANCH,
            "error",
            0.86,
            "XLA ran out of GPU memory: JAX takes 75 % of the GPU at the start, and so does each further process.",
            (told.line(found),),
            "A second process, or PyTorch beside it, finds the rest only; a true shortage looks the same.",
            (
                Change(
                    "environment",
                    "Set XLA_PYTHON_CLIENT_PREALLOCATE=false (or XLA_PYTHON_CLIENT_MEM_FRACTION) before "
                    "JAX is imported.",
                    environment=(("XLA_PYTHON_CLIENT_PREALLOCATE", "false"),),
                ),
                Change("option", "Then smaller batches, rematerialisation (jax.checkpoint) or sharding."),
            ),
            gpu=True,
            source="https://docs.jax.dev/en/latest/gpu_memory_allocation.html",
        )
