"""CUDA that is not found: a build of torch without it, no driver, messages that blame other packages for it."""

import re
from collections.abc import Iterator
from typing import Any

from doctor.case import Case
from doctor.diagnosis.gpu_tables import TORCH_INDEX, torch_for_cuda
from doctor.diagnosis.mechanism import Said
from doctor.diagnosis.told import Told
from doctor.finding import Change, Finding

_NOT_FOUND, _MISMATCH = "cuda/not_found", "cuda/version_mismatch"
_CHECK = "python -c 'import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())'"
_TORCH_SOURCE = "https://pytorch.org/get-started/previous-versions/"
# Messages of other packages whose condition is that torch sees no GPU.
_BLAMES = (
    r"(install|requires?|needs?|using)[^\n]{0,60}\b(accelerate"
    r"|bitsandbytes)[`'\" ]+[^\n]{0,80}(8-?bit|4-?bit|quantiz"
    r"|the latest version of bitsandbytes)"
    r"|Using `?bitsandbytes`?[^\n]{0,60}(4|8)-bit quantization requires"
    r"|None of the available devices `?available_devices = None|bitsandbytes[^\n]{0,60}was compiled without GPU support"
    r"|No GPU found\. A GPU is needed for quantization"
    r"|FlashAttention2?[^\n]{0,60}(cannot be used|only support)[^\n]{0,60}(CPU|on GPU"
    r"|device)"
    r"|Unsloth (cannot find any torch accelerator|currently only works on NVIDIA)|Your setup doesn'?t support bf16/gpu"
)
_NO_GPU_SIGNS = (
    r"CUDA (is )?(not available|unavailable|available: ?False)"
    r"|is_available\(\)[^\n]{0,12}(False|returns? false)|cuda\.is_available\(\) ?(=|is"
    r"|->) ?False"
    r"|no (CUDA )?GPUs?\b|\bcpuonly\b|torch[-= ]{0,4}\d[\w.]*\+cpu"
    r"|CPU(-only)? (build|wheel|version) of torch|\(CPU build\)"
)


def find_cuda_builds(case: Case, knowledge: Any) -> Iterator[Said]:
    """Tell why CUDA is not found.

    Args:
        case: what is diagnosed.
        knowledge: for releases of torch.

    Yields:
        Findings of the text's statements.
    """
    told = Told(case)
    for mechanism in (_cpu_build, _no_driver, _blamed_on_others):
        yield from mechanism(told)


def _install_torch(told: Told, cuda: str | None = None) -> Change:
    """Return the change that brings a CUDA build of the torch that is here."""
    version = told.version("torch")
    wanted = f"torch=={version.public}" if version is not None else "torch"
    driver = told.driver_cuda
    builds = [
        one
        for one in ("12.6", "12.8", "12.4", "12.1", "11.8", "13.0")
        if version is None or f"{version.major}.{version.minor}" in torch_for_cuda(one)
    ]
    fitting = [one for one in builds if driver is None or int(one.split(".")[0]) <= int(driver.split(".")[0])]
    chosen = cuda or (fitting or builds or ["12.6"])[0]
    index = f"{TORCH_INDEX}/cu{chosen.replace('.', '')}"
    return Change(
        "install",
        f"Install a CUDA build of torch over the one that is here, from PyTorch's own index (CUDA {chosen}).",
        (wanted,),
        remove=("torch",),
        commands=(
            "pip uninstall -y torch torchvision torchaudio",
            f"pip install '{wanted}' torchvision torchaudio --index-url {index}",
        ),
        disturbs=("torchvision and torchaudio must come from the same index.",),
    )


def _of(told: Told) -> str:
    """Return torch's version with a space before it; empty where not known."""
    version = told.version("torch")
    return f" {version}" if version is not None else ""


def _cpu_build(told: Told) -> Iterator[Said]:
    found = told.search(
        r"Torch not compiled with CUDA enabled|not compiled with CUDA support"
        r"|PyTorch (was )?(not |built without )compiled with CUDA"
        r"|Attempting to deserialize object on a CUDA device but torch\.cuda\.is_available\(\) is False"
        r"|Found no CUDA|CUDA_HOME[^\n]{0,40}torch[^\n]{0,20}CPU"
    )
    if found is None:
        return
    if told.system == "darwin":
        yield Finding(
            "cuda-on-mac",
            _NOT_FOUND,
            "error",
            0.93,
            "The program asks for CUDA on a Mac, where torch has MPS instead.",
            (told.line(found),),
            "There is no CUDA for macOS; .cuda() and device='cuda' can't work.",
            (
                Change(
                    "code",
                    "Choose the device: 'cuda' if torch.cuda.is_available() else 'mps' if "
                    "torch.backends.mps.is_available() else 'cpu'.",
                ),
            ),
            "reinstalling torch: no build for macOS has CUDA",
            "python -c 'import torch; print(torch.backends.mps.is_available())'",
            ("torch",),
            _TORCH_SOURCE,
        )
        return
    if "deserialize" in found[0]:
        yield Finding(
            "checkpoint-of-gpu-on-cpu",
            _NOT_FOUND,
            "error",
            0.88,
            "A checkpoint that was saved on a GPU is loaded where torch sees none.",
            (told.line(found),),
            "torch.load puts tensors back on the device that they were saved from.",
            (Change("code", "Load with torch.load(path, map_location='cpu')."), _install_torch(told)),
            None,
            _CHECK,
            ("torch",),
            "https://docs.pytorch.org/docs/stable/generated/torch.load.html",
        )
        return
    windows = " On Windows, PyPI has CPU builds only." if told.system == "win32" else ""
    yield Finding(
        "torch-without-cuda",
        _NOT_FOUND,
        "error",
        0.92,
        f"torch{_of(told)} here is a build without CUDA.",
        (told.line(found),),
        f"The wheel came from an index, a conda channel or a lock file of CPU builds, or "
        f"another package's install replaced it.{windows}",
        (_install_torch(told),),
        "the driver or the CUDA toolkit: a CPU build looks at neither",
        _CHECK,
        ("torch",),
        _TORCH_SOURCE,
        True,
    )


def _no_driver(told: Told) -> Iterator[Said]:
    found = told.search(
        r"Found no NVIDIA driver|No CUDA GPUs are available|no CUDA-capable device is detected"
        r"|cudaErrorNoDevice|CUDA_ERROR_NO_DEVICE"
        r"|NVIDIA-SMI has failed|could not select device driver|Failed to initialize NVML"
        r"|failed call to cuInit"
        r"|CUDA driver initialization failed|cudaGetDeviceCount\(\)[^\n]{0,200}(Error"
        r"|error) (\d+)|Failed to infer device type|CUDA unknown error"
        r"|libcuda\.so[^\n]{0,30}not found"
    )
    if found is None:
        return
    line = told.line(found)
    mask = told.case.environment.variables.get("CUDA_VISIBLE_DEVICES")
    masked = (
        mask in ("", "-1") if mask is not None else bool(told.search(r"CUDA_VISIBLE_DEVICES\W{0,3}(-1|''|\"\"|\s*$)"))
    )
    if re.search(r"Failed to initialize NVML: Driver/library version mismatch", told.text, re.IGNORECASE):
        yield Finding(
            "driver-halves-differ",
            _MISMATCH,
            "error",
            0.95,
            "The driver's kernel module and its libraries are of different versions: it was "
            "updated while it was loaded.",
            (line,),
            "nvidia-smi and CUDA use the new libraries; the old module stays in the kernel until it is loaded again.",
            (Change("restart", "Restart the machine (or unload and load the nvidia modules)."),),
            "torch or its CUDA version",
            "nvidia-smi",
            source="NVML",
            gpu=True,
        )
        return
    if re.search(r"(Error|error) 80[234]|unknown error|cudaGetDeviceCount", line) and re.search(
        r"80[234]|system not yet initialized|forward compatibility", told.text
    ):
        nvswitch = "802" in told.text or "not yet initialized" in told.text
        yield Finding(
            "cuda-system-not-ready",
            _NOT_FOUND,
            "error",
            0.9,
            "The GPUs are there but not initialised: the Fabric Manager is not running or is not "
            "of the driver's version."
            if nvswitch
            else "CUDA's forward-compatibility libraries (cuda-compat) are loaded on a GPU that doesn't support them.",
            (line,),
            "GPUs joined by NVSwitch (HGX A100, H100) start only with it."
            if nvswitch
            else "An image brings /usr/local/cuda/compat for data-centre GPUs; on GeForce cards, or "
            "where the host's driver is new enough, it fails.",
            (
                Change(
                    "system",
                    "Install and start nvidia-fabricmanager of exactly the driver's version.",
                    commands=("systemctl restart nvidia-fabricmanager",),
                ),
            )
            if nvswitch
            else (
                Change(
                    "environment", "Take /usr/local/cuda/compat out of LD_LIBRARY_PATH, or update the host's driver."
                ),
            ),
            "another build of torch",
            "nvidia-smi -q | grep -i fabric",
            source="https://docs.nvidia.com/deploy/cuda-compatibility/",
            gpu=True,
        )
        return
    changes = [
        Change(
            "system",
            "Give the program a GPU: install the driver (nvidia-smi must work), start a "
            "container with --gpus all, ask the scheduler for a GPU, choose a GPU runtime in "
            "Colab.",
            commands=("nvidia-smi",),
        )
    ]
    if masked:
        changes.insert(
            0,
            Change(
                "environment",
                "Unset CUDA_VISIBLE_DEVICES: it hides all GPUs.",
                environment=(("CUDA_VISIBLE_DEVICES", ""),),
            ),
        )
    else:
        changes.append(
            Change(
                "environment",
                "If nvidia-smi works, look at CUDA_VISIBLE_DEVICES: a number that doesn't exist, or "
                "a value set after CUDA was initialised, hides the GPUs.",
            )
        )
        if told.gpus:  # it is told which GPU there is: what hides it is looked for first
            changes.insert(0, changes.pop())
    yield Finding(
        "no-gpu-visible",
        _NOT_FOUND,
        "error",
        0.88 if not masked else 0.92,
        "CUDA_VISIBLE_DEVICES hides every GPU."
        if masked
        else "torch is built for CUDA, but no GPU with a driver is visible to this process.",
        (line,),
        "The driver is part of the machine; no Python package brings it.",
        tuple(changes),
        "reinstalling torch or the CUDA toolkit: the build is right" if not told.search(r"infer device type") else None,
        "nvidia-smi",
        source="https://docs.nvidia.com/cuda/",
        gpu=True,
    )


def _blamed_on_others(told: Told) -> Iterator[Said]:
    found = told.search(_BLAMES)
    if found is None:
        return
    sign = told.search(_NO_GPU_SIGNS)
    if "without GPU support" in found[0] and not sign and told.torch_cuda != "":
        newest = told.torch_cuda or ("12.8" if (told.capability or (0, 0)) >= (10, 0) else None)
        if newest:
            yield _bitsandbytes_too_old(told, newest, told.line(found))
            return
    cpu = told.torch_cuda == ""
    mac = told.system == "darwin"
    confidence = 0.9 if sign or cpu else 0.7
    change = (
        Change("code", "Run without bitsandbytes on a Mac: MLX, or GGUF models by llama.cpp.")
        if mac
        else _install_torch(told)
    )
    installed = [f"{name} {told.version(name)}" for name in ("accelerate", "bitsandbytes") if told.version(name)]
    yield Finding(
        "no-gpu-told-as-missing-package",
        _NOT_FOUND,
        "error",
        confidence,
        "The message asks for other packages, but its condition is "
        "torch.cuda.is_available(): torch sees no GPU" + (", being a build without CUDA." if cpu else "."),
        (
            told.line(found),
            *((told.line(sign),) if sign else ()),
            *((f"here already: {', '.join(installed)}",) if installed else ()),
        ),
        "Checks for quantisation test for accelerate, bitsandbytes and a GPU together, and name only the packages.",
        (
            change,
            Change(
                "system",
                "If it is a CUDA build: see that nvidia-smi works in this very process (container, "
                "runtime, CUDA_VISIBLE_DEVICES).",
                commands=("nvidia-smi",),
            ),
            Change("restart", "If the packages were installed a moment ago in a notebook: restart the kernel."),
        ),
        "installing accelerate or bitsandbytes again, as the message says",
        _CHECK,
        ("torch",),
        "transformers/quantizers (validate_environment)",
        True,
    )


# CUDA version -> the first bitsandbytes whose wheel has a library for it. From the files of its wheels.
_BITSANDBYTES = {
    "12.2": "0.42",
    "12.3": "0.42",
    "12.4": "0.43.2",
    "12.5": "0.44",
    "12.6": "0.45",
    "12.8": "0.45.3",
    "12.9": "0.46.1",
    "13.0": "0.48",
}


def _bitsandbytes_too_old(told: Told, cuda: str, line: str) -> Finding:
    """Return the finding about a bitsandbytes that has no library for torch's CUDA."""
    first = _BITSANDBYTES.get(cuda, "0.45")
    version = told.version("bitsandbytes")
    stopgap = {"12": "126", "13": "130", "11": "118"}[cuda.split(".")[0]]
    return Finding(
        "bitsandbytes-older-than-cuda",
        _MISMATCH,
        "error",
        0.9,
        f"bitsandbytes{f' {version}' if version else ''} has no library for CUDA {cuda}, "
        f"which torch uses, and fell back to its library for CPUs.",
        (line, f"torch's CUDA: {cuda}"),
        f"Each wheel holds a library for every CUDA version of its time; the first with one for {cuda} is {first}.",
        (
            Change("pin", "Raise bitsandbytes.", (f"bitsandbytes>={first}",)),
            Change(
                "environment",
                "Or let it take a library that it has, as a stopgap.",
                environment=(("BNB_CUDA_VERSION", stopgap),),
            ),
        ),
        "looking for a GPU edition of bitsandbytes: there is one wheel for all",
        "python -m bitsandbytes",
        ("bitsandbytes",),
        "https://github.com/bitsandbytes-foundation/bitsandbytes/releases",
        True,
    )
