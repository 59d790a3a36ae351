"""GPUs that the code was not compiled for, or that can't do what is asked."""

import pytest

from doctor.diagnosis.cuda_architectures import find_architecture
from doctor.diagnosis.told import Told
from doctor.knowledge.base import Knowledge
from tests.doctor.pasted import only, pasted, requirements

NO_KERNEL = "RuntimeError: CUDA error: no kernel image is available for execution on the device"


@pytest.mark.parametrize(
    "name, capability",
    [
        ("GeForce RTX 5090", (12, 0)),
        ("Tesla T4", (7, 5)),
        ("Tesla V100-SXM2-32GB", (7, 0)),
        ("RTX 4090", (8, 9)),
        ("RTX 2080 Ti", (7, 5)),
        ("A100-SXM4-80GB", (8, 0)),
        ("L40S", (8, 9)),
        ("H100 PCIe", (9, 0)),
        ("Tesla P100-PCIE-16GB", (6, 0)),
        ("DGX Spark", (12, 1)),
        ("capability sm_61", (6, 1)),
        ("no GPU at all", None),
    ],
)
def test_a_name_tells_the_capability(name, capability):
    assert Told(pasted(f"RuntimeError: x\nGPU: {name}")).capability == capability


def test_a_new_gpu_needs_a_new_build():
    found = only(
        find_architecture, pasted(f"{NO_KERNEL}\nNVIDIA GeForce RTX 5090 with CUDA capability sm_120", torch="2.6.0")
    )
    assert found.branch == "cuda/arch_unsupported" and requirements(found) == [("torch>=2.7",)]
    assert "cu128" in found.changes[0].commands[0] and "sm_120" in found.verdict
    served = only(find_architecture, pasted(f"{NO_KERNEL}\nRTX 5090", vllm="0.8.3"))
    assert requirements(served) == [("vllm",), ("torch>=2.7",)] and served.culprits == ("vllm", "torch")


@pytest.mark.parametrize("gpu, pin", [("Tesla P100", "torch<2.8"), ("V100", "torch<2.11"), ("Tesla K80", "torch<2.1")])
def test_an_old_gpu_needs_a_build_that_still_has_it(gpu, pin):
    found = only(find_architecture, pasted(f"{NO_KERNEL}\nGPU: {gpu}", torch="2.12.0"))
    assert (pin,) in requirements(found) and "older" in found.verdict


def test_without_a_gpu_both_directions_are_told():
    found = only(find_architecture, pasted(NO_KERNEL))
    assert found.confidence == 0.8 and "newer or older" in found.verdict


@pytest.mark.parametrize(
    "text, least",
    [
        ("RuntimeError: FlashAttention only supports Ampere GPUs or newer.\nGPU: T4", "8.0"),
        (
            "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least "
            "8.0. Your Tesla T4 GPU has compute capability 7.5.",
            "8.0",
        ),
        ("CompilationError: type fp8e4nv not supported in this architecture.\nA100", "8.9"),
        ("RuntimeError: Found Tesla P100 which is too old to be supported by the triton GPU compiler", "7.0"),
    ],
)
def test_what_a_gpu_lacks_is_told_with_another_way(text, least):
    found = only(find_architecture, pasted(text))
    assert found.id == "gpu-lacks-feature" and f"compute capability {least}" in found.verdict
    assert found.changes[0].kind in ("option", "code") and found.changes[-1].kind == "hardware"


def test_a_feature_that_the_gpu_has_is_ruled_out():
    told = list(
        find_architecture(pasted("RuntimeError: FlashAttention only supports Ampere GPUs or newer.\nGPU: H100"), None)
    )
    assert told == ["flash-attn 2 is not too new for the GPU: H100 (sm_90, Hopper) has at least sm_80."]


@pytest.mark.parametrize(
    "text, sign",
    [
        ("nvcc fatal   : Unsupported gpu architecture 'compute_120'", "12.8 or newer"),
        ("nvcc fatal : Unsupported gpu architecture 'compute_35'", "up to 11.8"),
        ("ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name' (triton)", "triton>=3.6"),
    ],
)
def test_a_compiler_that_does_not_know_the_gpu(text, sign):
    found = only(find_architecture, pasted(text))
    assert sign in found.changes[0].text or (sign,) in requirements(found)


def test_a_triton_that_knows_the_gpu_comes_with_the_torch_that_declares_it():
    text = "ptxas fatal   : Value 'sm_{}' is not defined for option 'gpu-name'"
    told = {name: only(find_architecture, pasted(text.format(name)), Knowledge()) for name in ("89", "120", "121a")}
    assert {name: requirements(found)[0] for name, found in told.items()} == {
        "89": ("triton>=2.1", "torch>=2.1"),
        "120": ("triton>=3.3", "torch>=2.7"),
        "121a": ("triton>=3.6", "torch>=2.10"),
    }
