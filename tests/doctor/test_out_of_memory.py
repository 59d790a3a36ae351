"""GPU memory that ran out: the kind by the figures of the message."""

import pytest

from doctor.diagnosis.memory_figures import read_figures, show
from doctor.diagnosis.out_of_memory import find_gpu_memory
from doctor.diagnosis.serving_memory import find_serving_memory
from tests.doctor.pasted import only, pasted, said

GIB = 2**30
FIRST = (
    "RuntimeError: CUDA out of memory. Tried to allocate {asked} (GPU 0; {total} total "
    "capacity; {used} already allocated; "
    "{free} free; {reserved} reserved in total by PyTorch) If reserved memory is >> allocated memory try setting "
    "max_split_size_mb to avoid fragmentation."
)
SECOND = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {asked}. GPU 0 has a "
    "total capacity of {total} of which "
    "{free} is free. Including non-PyTorch memory, this process has {own} memory in use. "
    "Of the allocated memory {used} is "
    "allocated by PyTorch, and {idle} is reserved by PyTorch but unallocated. If "
    "reserved but unallocated memory is large "
    "try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)


def test_figures_of_all_forms_are_read():
    first = read_figures(
        FIRST.format(asked="2.00 GiB", total="10.00 GiB", used="1.00 GiB", free="512.00 MiB", reserved="1.50 GiB")
    )
    assert (first.asked, first.total, first.free, first.idle) == (2 * GIB, 10 * GIB, GIB // 2, GIB // 2)
    second = read_figures(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 3 has a total capacty of 79.00 "
        "GiB of which "
        "9.00 MiB is free. Process 11 has 70.00 GiB memory in use. Process 12 has 8.00 GiB "
        "memory in use."
    )
    assert second.others == 78 * GIB and second.device == 3 and second.total == 79 * GIB
    mps = read_figures(
        "MPS backend out of memory (MPS allocated: 16.00 GB, other allocations: 1.00 GB, max "
        "allowed: 18.00 GB). "
        "Tried to allocate 2.00 GB on private pool."
    )
    assert mps.own == 17 * 10**9 and mps.total == 18 * 10**9 and mps.asked == 2 * 10**9
    assert read_figures("nothing").asked is None and show(None) == "an unknown amount" and show(3 * GIB) == "3.0 GiB"


@pytest.mark.parametrize(
    "text, kind",
    [
        (
            FIRST.format(
                asked="216.00 MiB", total="8.00 GiB", used="69.00 MiB", free="24.00 MiB", reserved="86.00 MiB"
            ),
            "gpu-held-by-another",
        ),
        (
            SECOND.format(
                asked="1.00 GiB",
                total="24.00 GiB",
                free="100.00 MiB",
                own="3.00 GiB",
                used="2.50 GiB",
                idle="50.00 MiB",
            ),
            "gpu-held-by-another",
        ),
        (
            SECOND.format(
                asked="22.78 GiB",
                total="31.47 GiB",
                free="12.73 GiB",
                own="18.73 GiB",
                used="9.08 GiB",
                idle="9.35 GiB",
            ),
            "gpu-memory-fragmented",
        ),
        (
            SECOND.format(
                asked="64.00 GiB",
                total="24.00 GiB",
                free="20.00 GiB",
                own="3.00 GiB",
                used="2.50 GiB",
                idle="50.00 MiB",
            ),
            "request-beyond-gpu",
        ),
        (
            SECOND.format(
                asked="20.00 GiB",
                total="24.00 GiB",
                free="18.00 GiB",
                own="5.50 GiB",
                used="5.00 GiB",
                idle="20.00 MiB",
            ),
            "one-large-request",
        ),
        (
            SECOND.format(
                asked="128.00 MiB",
                total="24.00 GiB",
                free="30.00 MiB",
                own="23.90 GiB",
                used="23.20 GiB",
                idle="80.00 MiB",
            ),
            "gpu-memory-short",
        ),
    ],
)
def test_the_kind_follows_from_the_figures(text, kind):
    found = only(find_gpu_memory, pasted(text))
    assert found.id == kind and found.branch == "cuda/oom" and found.gpu and len(found.evidence) == 2


def test_advice_of_the_message_that_cannot_help_is_named():
    short = SECOND.format(
        asked="128.00 MiB", total="24.00 GiB", free="30.00 MiB", own="23.90 GiB", used="23.20 GiB", idle="80.00 MiB"
    )
    found = only(find_gpu_memory, pasted(short))
    assert "expandable_segments" in found.not_this and all(change.kind != "environment" for change in found.changes)
    other = FIRST.format(asked="216.00 MiB", total="8.00 GiB", used="69.00 MiB", free="24.00 MiB", reserved="86.00 MiB")
    assert "smaller batch" in only(find_gpu_memory, pasted(other)).not_this


@pytest.mark.parametrize(
    "frame, kind",
    [
        ('  File "/x/transformers/trainer.py", line 9, in evaluation_loop', "gpu-memory-evaluation"),
        ("it runs out of memory after a few hundred steps", "gpu-memory-growth"),
        ('  File "/x/torch/optim/adamw.py", line 9, in step', "gpu-memory-optimizer"),
        ('  File "/x/transformers/modeling_utils.py", line 9, in from_pretrained', "gpu-memory-loading"),
    ],
)
def test_where_it_happened_tells_the_kind(frame, kind):
    text = (
        f"{frame}\nRuntimeError: CUDA out of memory. Tried to allocate 1.00 GiB (GPU 0; 16.00 "
        f"GiB total capacity; 15.00 GiB already allocated; 0 bytes free; 15.10 GiB reserved "
        f"in total by PyTorch)"
    )
    assert only(find_gpu_memory, pasted(text)).id == kind


def test_memory_of_the_machine_is_not_the_gpus():
    text = (
        "RuntimeError: [enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: can't "
        "allocate memory: you tried to allocate 9 bytes."
    )
    assert said(find_gpu_memory, pasted(text)) == []


@pytest.mark.parametrize(
    "text, kind, sign",
    [
        (
            "ValueError: Free memory on device (12.00/24.00 GiB) on startup is less than desired "
            "GPU memory utilization (0.9, 21.6 GiB).",
            "server-start-memory",
            "12.0 of the GPU's 24.0 GiB",
        ),
        (
            "ValueError: The model's max seq len (131072) is larger than the maximum number of "
            "tokens that can be stored in KV cache (26320).",
            "kv-cache-too-small",
            "26320",
        ),
        (
            "ValueError: No available memory for the cache blocks. Try increasing "
            "`gpu_memory_utilization` when initializing the engine.",
            "no-memory-for-kv-cache",
            "nothing is left",
        ),
        (
            "ValueError: Some modules are dispatched on the CPU or the disk. Make sure you have "
            "enough GPU RAM to fit the quantized model.",
            "quantised-model-offloaded",
            "bitsandbytes refuses",
        ),
        (
            "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while "
            "trying to allocate 1073741824 bytes.",
            "jax-memory",
            "75 %",
        ),
    ],
)
def test_servers_own_sums_are_explained(text, kind, sign):
    found = only(find_serving_memory, pasted(text))
    assert found.id == kind and sign in found.verdict and found.branch == "cuda/oom"
