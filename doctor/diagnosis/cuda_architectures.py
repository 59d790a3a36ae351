"""A GPU that the compiled code has nothing for, or that cannot do what is asked of it."""

import re
from collections.abc import Iterator
from typing import Any

from doctor.case import Case
from doctor.diagnosis.gpu_tables import ARCHITECTURES, DROPPED, NAMES, TORCH_INDEX, TRITON_FOR
from doctor.diagnosis.mechanism import Said
from doctor.diagnosis.told import Told
from doctor.diagnosis.torch_extensions import torch_with_triton
from doctor.finding import Change, Finding

_BRANCH = "cuda/arch_unsupported"
_SOURCE = "https://developer.nvidia.com/cuda-gpus; release notes of torch"
_CHECK = "python -c 'import torch; print(torch.cuda.get_device_capability(), torch.cuda.get_arch_list())'"


def find_architecture(case: Case, knowledge: Any) -> Iterator[Said]:
    """Tell which GPU is too new or too old for what is installed, or lacks a feature.

    Args:
        case: what is diagnosed.
        knowledge: not needed.

    Yields:
        Findings of the text's statements.
    """
    told = Told(case)
    yield from _no_kernels(told)
    yield from _compiler(told, knowledge)
    yield from _features(told)


def _whole(told: Told) -> tuple[tuple[int, int] | None, str]:
    """Return the capability and a name for the GPU with it."""
    capability = told.capability
    name = told.gpu_name
    if capability is None:
        return None, name
    generation = NAMES.get(capability)
    return capability, f"{name} (sm_{capability[0]}{capability[1]}{f', {generation}' if generation else ''})"


def _no_kernels(told: Told) -> Iterator[Said]:
    found = told.search(
        r"no kernel image is available for execution"
        r"|is not compatible with the current PyTorch installation"
        r"|cudaErrorNoKernelImageForDevice"
        r"|cudaErrorInvalidDeviceFunction|invalid device function|CUDA_ERROR_NO_BINARY_FOR_GPU"
        r"|supports CUDA capabilities sm_"
        r"|PyTorch no longer supports this GPU because it is too old"
        r"|no kernel found to (launch|dispatch)|device kernel image is invalid"
        r"|not supported on this (GPU|architecture|device)[^\n]*sm_?\d+"
        r"|was not built for this GPU|HIP error: invalid device function"
    )
    if found is None:
        return
    capability, gpu = _whole(told)
    line = told.line(found)
    blamed = told.search(
        r"site-packages/(bitsandbytes|flash_attn|vllm|xformers|exllama\w*|awq|sgl_kernel"
        r"|flashinfer|causal_conv1d|mamba_ssm|llama_cpp|onnxruntime|cupy|spconv|torch_scatter"
        r"|natten|deepspeed|apex)\b"
        r"|Error in[^\n]{0,20}(?:bitsandbytes|ops\.cu)[^\n]*|(ggml-cuda|ggml_cuda)"
    )
    if "HIP" in found[0] or told.search(r"\bROCm\b|\bgfx\d+"):
        yield _rocm(told, line)
        return
    torch = told.version("torch")
    known = f" {torch}" if torch else ""
    listed = told.search(r"capabilities ((?:sm_\d+\w? ?)+)")
    evidence = (
        line,
        *((f"capability sm_{capability[0]}{capability[1]}",) if capability else ()),
        *((f"the build has {listed[1].strip()}",) if listed else ()),
    )
    if capability is None:
        yield Finding(
            "no-kernels-for-gpu",
            _BRANCH,
            "error",
            0.8,
            "The compiled code has nothing for this GPU: it is newer or older than all that the "
            "build was compiled for.",
            evidence,
            "A build holds machine code for a list of compute capabilities; others fail at the first kernel.",
            (
                Change(
                    "install",
                    "Install a build whose list has the GPU: a newer torch for CUDA 12.8 or 13 for new "
                    "GPUs (RTX 50, B200), one for CUDA 12.6 for old ones (before Turing).",
                    ("torch",),
                    commands=(_CHECK,),
                ),
                Change(
                    "install",
                    "If torch's own list has it, rebuild the extension that fails with "
                    "TORCH_CUDA_ARCH_LIST of this GPU.",
                ),
            ),
            "reinstalling the driver: the driver is not asked for anything",
            _CHECK,
            ("torch",),
            _SOURCE,
            True,
        )
        return
    first, last, first_torch = ARCHITECTURES.get(capability, ("", "", ""))
    name = f"sm_{capability[0]}{capability[1]}"
    culprit = (blamed[1] or "").replace("_", "-") if blamed else _stated_kernels(told)
    extension = culprit or ("the extension" if blamed else "")
    new = capability >= (10, 0)
    changes: list[Change] = []
    if new:
        cuda = "12.8" if first in ("12.8", "12.9") else "13.0"
        need = f"torch>={first_torch}"
        changes.append(
            Change(
                "pin",
                f"Install torch {first_torch} or newer, built for CUDA {first} or newer.",
                (need,),
                commands=(f"pip install '{need}' --index-url {TORCH_INDEX}/cu{cuda.replace('.', '')}",),
            )
        )
        if culprit in ("vllm", "sglang"):  # they pin torch: raised, they bring the right one
            whole = f"Install a {culprit} whose wheel is built with CUDA {first} or newer (it pins such a torch)."
            changes.insert(0, Change("install", whole, (culprit,)))
        elif extension:
            rebuilt = (("TORCH_CUDA_ARCH_LIST", f"{capability[0]}.{capability[1]}"),)
            text = f"And a {extension} that is built for it, or compile it here."
            changes.append(Change("install", text, (culprit,) if culprit else (), environment=rebuilt))
        why = (
            f"{name} exists from CUDA {first} on; PyTorch's wheels have it from {first_torch} on, "
            f"and only in the builds for CUDA {first} or newer."
        )
        verdict = f"{gpu} is newer than what torch{known}{f' or {extension}' if extension else ''} was compiled for."
    else:
        drop = next((one for one in DROPPED if capability < one[0]), None)
        if drop is None or (extension and not listed):
            verdict = f"{extension or f'torch{known}'} holds no machine code for {gpu}."
            why = "The build was made for other GPUs (or the toolkit that compiled it does not know this one)."
            changes.append(
                Change(
                    "install",
                    f"Compile {extension or 'it'} here for this GPU.",
                    (),
                    environment=(("TORCH_CUDA_ARCH_LIST", f"{capability[0]}.{capability[1]}"),),
                    commands=(
                        f"TORCH_CUDA_ARCH_LIST={capability[0]}.{capability[1]} pip install "
                        f"--no-build-isolation --no-cache-dir --no-binary :all: {culprit or '<package>'}",
                    ),
                )
            )
            if capability < (8, 0):
                changes.append(
                    Change(
                        "option", f"Or do without it: {extension or 'this kernel'} often begins with Ampere (sm_80)."
                    )
                )
        else:
            _, when, pin, instead = drop
            verdict = f"{gpu} is older than what torch{known} was compiled for."
            why = f"{when} left this generation out; {instead} still has it." + (
                f" CUDA {last} is the last toolkit that compiles for it." if last else ""
            )
            cu126 = (
                f"pip install torch --index-url {TORCH_INDEX}/cu126" if capability >= (5, 0) else f"pip install '{pin}'"
            )
            changes += [
                Change("install", f"Install {instead}.", ("torch",), commands=(cu126,)),
                Change("pin", f"Or hold torch where its wheel on PyPI still has the GPU: {pin}.", (pin,)),
            ]
            if capability < (5, 0):
                changes.reverse()
    if new or not extension:
        changes.append(Change("hardware", "Or use another GPU."))
    yield Finding(
        "gpu-not-in-build",
        _BRANCH,
        "error",
        0.93,
        verdict,
        evidence,
        why,
        tuple(changes),
        "another driver or CUDA toolkit: what counts is what the wheel was compiled for",
        _CHECK,
        tuple(filter(None, (culprit, "torch"))),
        _SOURCE,
        True,
    )


# Packages with kernels of their own, which pin torch or are built for it.
_WITH_KERNELS = (
    "vllm", "sglang", "flash-attn", "xformers", "bitsandbytes", "exllamav2", "autoawq", "auto-gptq", "causal-conv1d",
    "mamba-ssm", "llama-cpp-python",
)  # fmt: skip


def _stated_kernels(told: Told) -> str:
    """Return a package with kernels that the text speaks of; empty where torch alone is at fault or none is told."""
    if told.search(r"current PyTorch installation|PyTorch no longer supports this GPU"):
        return ""
    stated = [*told.case.environment.declared, *(told.case.failure.stated if told.case.failure else ())]
    names = {one.name for one in stated}
    return next((name for name in _WITH_KERNELS if name in names or told.search(rf"^{name}: |\b{name}\b[ =]+v?\d")), "")


def _rocm(told: Told, line: str) -> Finding:
    """Return the finding about an AMD GPU without kernels."""
    gfx = told.search(r"\bgfx(\d+\w?)\b")
    override = {"103": "10.3.0", "110": "11.0.0", "101": "10.3.0", "90c": "9.0.0"}.get((gfx[1] if gfx else "")[:3])
    return Finding(
        "amd-gpu-not-in-build",
        _BRANCH,
        "error",
        0.85,
        f"The ROCm build has no kernels for this AMD GPU{f' ({gfx[0]})' if gfx else ''}.",
        (line,),
        "ROCm's wheels are compiled for a short list of GPUs; close relatives run with the code of a listed one.",
        (
            Change(
                "environment",
                "Let the GPU pass as the listed one of its family.",
                environment=(("HSA_OVERRIDE_GFX_VERSION", override or "10.3.0"),),
            ),
            Change("install", "Or install a ROCm build that lists it (newer torch, AMD's own wheels).", ("torch",)),
        ),
        "a CUDA build: it can't run on AMD",
        "python -c 'import torch; print(torch.cuda.get_arch_list())'",
        ("torch",),
        "https://rocm.docs.amd.com/",
        True,
    )


def _compiler(told: Told, knowledge: Any) -> Iterator[Said]:
    found = told.search(
        r"Unsupported gpu architecture '?compute_(\d+)(\d\w?)"
        r"|Value '?sm_(\d+)(\d\w?)'? is not defined for option|nvcc fatal[^\n]*(?:compute"
        r"|sm)_(\d+)(\d)"
        r"|Unknown CUDA arch \((\d+)\.(\d)|PassManager::run failed"
        r"|sm_(\d+)(\d)a? is not (?:a recognized|supported)|ptxas[^\n]*(?:sm"
        r"|compute)_(\d+)(\d)"
    )
    if found is None:
        return
    parts = [one for one in found.groups() if one]
    capability = (int(parts[0]), int(re.sub(r"\D", "", parts[1]))) if len(parts) > 1 else told.capability
    first, last, _ = ARCHITECTURES.get(capability or (0, 0), ("", "", ""))
    name = f"sm_{capability[0]}{capability[1]}" if capability else "this GPU"
    triton = bool(told.search(r"triton|ptxas|PassManager"))
    old = bool(last) and capability is not None and capability < (7, 5)
    if triton and not old:
        least = TRITON_FOR.get(capability or (0, 0), "3.3")
        fix = Change(
            "pin",
            f"Raise triton to {least} or newer, the first that knows {name}, with the torch that declares it.",
            (f"triton>={least}", *torch_with_triton(least, knowledge)),
        )
        changes = [
            fix,
            Change(
                "environment",
                f"Or let triton use the toolkit's newer ptxas (CUDA {first or '12.8'} or newer).",
                environment=(("TRITON_PTXAS_PATH", "/usr/local/cuda/bin/ptxas"),),
            ),
        ]
    elif old:
        changes = [
            Change("system", f"Compile with a CUDA toolkit up to {last}, the last that knows {name}."),
            Change("option", f"Or leave {name} out: TORCH_CUDA_ARCH_LIST of your GPU alone."),
        ]
    else:
        changes = [
            Change(
                "system",
                f"Compile with the CUDA toolkit {first or 'of the GPU'} or newer, the first that "
                f"knows {name} (and the torch of the same CUDA).",
            ),
            Change("environment", "Or name in TORCH_CUDA_ARCH_LIST only what this toolkit knows."),
        ]
    yield Finding(
        "compiler-does-not-know-gpu",
        _BRANCH,
        "error",
        0.88,
        f"The compiler ({'triton' if triton else 'nvcc'}) is {'too new' if old else 'too old'} for {name}.",
        (told.line(found),),
        f"{name} is known from CUDA {first} on{f' and until {last}' if last else ''}."
        if first
        else "Each CUDA release knows a range of compute capabilities.",
        tuple(changes),
        "the driver: the program is still being compiled",
        "nvcc --list-gpu-arch",
        ("triton", "torch") if triton else (),
        _SOURCE,
        True,
    )


# What asks for more than a GPU has: pattern, the least capability, what it is, what to do instead.
_FEATURES: tuple[tuple[str, tuple[int, int], str, tuple[Change, ...]], ...] = (
    (
        r"FlashAttention[- ]?2? only supports Ampere GPUs or newer"
        r"|flash[- _]?attn[^\n]{0,60}(Ampere|sm_?80)|FlashAttention[^\n]{0,40}only (supported"
        r"|support)[^\n]{0,40}(Ampere|compute capability)"
        r"|requires device with capability > ?\(7, 5\)|requires device with capability > ?\(8, 0\)",
        (8, 0),
        "flash-attn 2",
        (
            Change(
                "option",
                "Use PyTorch's own attention: attn_implementation='sdpa' (or xformers); in vLLM "
                "another --attention-backend (XFORMERS, TORCH_SDPA, TRITON_ATTN).",
            ),
            Change(
                "uninstall",
                "And uninstall flash-attn, where a program takes it because it is there.",
                remove=("flash-attn",),
            ),
        ),
    ),
    (
        r"bfloat16 is only supported on (GPUs|devices) with|bf16[^\n]{0,60}(not supported"
        r"|requires|needs)[^\n]{0,60}|Your setup doesn'?t support bf16"
        r"|Bfloat16 is only supported|doesn'?t support bf16|BFloat16[^\n]{0,30}not (supported"
        r"|implemented)[^\n]{0,40}(cuda|gpu|sm_)|Feature '?\.?bf16'? requires \.target sm_80"
        r"|has compute capability (5|6|7)\.\d[^\n]*bfloat16",
        (8, 0),
        "bfloat16",
        (
            Change(
                "code",
                "Use float16 instead: dtype='half' (vLLM: --dtype half), fp16=True and bf16=False in "
                "Trainer; or float32 where a model overflows in fp16.",
            ),
        ),
    ),
    (
        r"(fp8|float8|e4m3|e4m3fn|e4nv|fp8e4nv)[^\n]{0,80}(not supported|requires"
        r"|only supported|unsupported)|type fp8e4nv not supported in this architecture"
        r"|torch\._scaled_mm is only supported|quantization method (fp8|modelopt\w*|mxfp4"
        r"|nvfp4|fbgemm_fp8|compressed-tensors)[^\n]{0,60}(not supported|capability)",
        (8, 9),
        "fp8",
        (
            Change(
                "code",
                "Use a checkpoint that is not fp8: bf16, AWQ/GPTQ (Marlin runs fp8 weights from sm_80 on), or int8.",
            ),
        ),
    ),
    (
        r"FlashAttention-?3[^\n]{0,60}(only|requires)|flash_attn_3[^\n]{0,60}(Hopper|sm_?90)"
        r"|DeepGEMM[^\n]{0,60}(only|requires|support)|deep_gemm[^\n]{0,80}(assert|arch)"
        r"|FlashMLA[^\n]{0,60}(only|support|Hopper)|cutlass[^\n]{0,40}sm_?90",
        (9, 0),
        "a kernel for Hopper",
        (
            Change(
                "option",
                "Use the backend for older GPUs: flash-attn 2 or FlashInfer, Triton or CUTLASS "
                "matrix products instead of DeepGEMM.",
            ),
        ),
    ),
    (
        r"(AWQ|marlin|gptq_marlin|bitsandbytes)[^\n]{0,60}(minimum capability"
        r"|requires? (compute )?capability|not supported)[^\n]{0,60}"
        r"|Minimum capability: (\d+)\. Current capability: (\d+)",
        (7, 5),
        "this quantisation",
        (
            Change(
                "option",
                "Use a quantisation that the GPU runs: GPTQ or AWQ without Marlin from sm_75 on "
                "(vLLM: --quantization awq/gptq --dtype half), GGUF by llama.cpp on older ones.",
            ),
        ),
    ),
    (
        r"Found [\w ]+ which is too old to be supported by the triton"
        r"|triton[^\n]{0,60}(compute capability|>= ?7\.0)|GPU is too old[^\n]*triton"
        r"|Triton only supports devices of CUDA Capability >= 7",
        (7, 0),
        "the Triton compiler (torch.compile)",
        (
            Change(
                "option",
                "Run without torch.compile: TORCHDYNAMO_DISABLE=1, backend='aot_eager', or enforce_eager in a server.",
                environment=(("TORCHDYNAMO_DISABLE", "1"),),
            ),
        ),
    ),
)


def _features(told: Told) -> Iterator[Said]:
    for pattern, least, what, changes in _FEATURES:
        found = told.search(pattern)
        if found is None:
            continue
        capability, gpu = _whole(told)
        if capability is not None and capability >= least and "minimum" not in found[0].lower():
            yield f"{what} is not too new for the GPU: {gpu} has at least sm_{least[0]}{least[1]}."
            continue
        yield Finding(
            "gpu-lacks-feature",
            _BRANCH,
            "error",
            0.9,
            f"{gpu[0].upper()}{gpu[1:]} lacks what {what} needs: compute capability "
            f"{least[0]}.{least[1]} ({NAMES.get(least, '')}) or newer.",
            (told.line(found),),
            "It is a matter of the hardware; no version of a package changes it.",
            (*changes, Change("hardware", f"Or use a GPU of sm_{least[0]}{least[1]} or newer.")),
            "reinstalling or rebuilding the package for this GPU",
            _CHECK,
            ("flash-attn",) if "flash" in what else (),
            _SOURCE,
            True,
        )
        return
