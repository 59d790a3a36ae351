"""Versions of CUDA that do not match: the driver, the toolkit, torch and its companions, loaded libraries."""

from collections.abc import Iterator
from typing import Any

from doctor.case import Case
from doctor.diagnosis.gpu_tables import DRIVERS, MAJOR_DRIVERS, TORCH_INDEX, torch_for_cuda
from doctor.diagnosis.mechanism import Said
from doctor.diagnosis.told import Told
from doctor.finding import Change, Finding

_MISMATCH = "cuda/version_mismatch"
_TORCH_SOURCE = "https://pytorch.org/get-started/previous-versions/"


def find_cuda_versions(case: Case, knowledge: Any) -> Iterator[Said]:
    """Tell which versions of CUDA do not match.

    Args:
        case: what is diagnosed.
        knowledge: not needed.

    Yields:
        Findings of the text's statements.
    """
    told = Told(case)
    for mechanism in (_driver_too_old, _toolkit_differs, _two_majors, _libraries_differ):
        yield from mechanism(told)


def _driver_too_old(told: Told) -> Iterator[Said]:
    found = told.search(
        r"NVIDIA driver on your system is too old"
        r"|CUDA driver version is insufficient for CUDA runtime version"
        r"|cudaErrorInsufficientDriver"
        r"|unsupported (PTX|toolchain)|provided PTX was compiled with an unsupported toolchain"
        r"|CUDA_ERROR_UNSUPPORTED_PTX_VERSION"
        r"|unsatisfied condition: cuda ?[>=]+ ?(\d+\.\d+)"
        r"|requirement error: unsatisfied condition"
        r"|driver[^\n]{0,30}\btoo old\b|cuda>=(\d+\.\d+), please update your driver"
    )
    if found is None:
        return
    driver = told.driver_cuda
    built = told.torch_cuda
    major = int(driver.split(".")[0]) if driver else None
    ptx = "PTX" in found[0] or "toolchain" in found[0]
    suits = {10: "10.2", 11: "11.8", 12: "12.6", 13: "13.0"}.get(major or 0)
    changes: list[Change] = []
    version = told.version("torch")
    needs = built or ("13.0" if version is not None and (version.major, version.minor) >= (2, 11) else None)
    if needs:
        oldest = MAJOR_DRIVERS.get(int(needs.split(".")[0])) if not ptx else DRIVERS.get(needs)
        update = f"Update the NVIDIA driver to {oldest or DRIVERS.get(needs, 'the newest')} or newer (CUDA {needs})."
    else:
        update = "Update the NVIDIA driver: 525.60 or newer runs every CUDA 12, 580.65 every CUDA 13."
    if suits:
        torches = torch_for_cuda(suits)
        keep = version is not None and f"{version.major}.{version.minor}" in torches
        pin = (
            f"torch=={version.public}"
            if keep and version is not None
            else f"torch<={torches[-1]}.99"
            if suits in ("10.2", "11.8")
            else "torch"
        )
        changes.append(
            Change(
                "install",
                f"Install a build of torch for CUDA {suits}, which this driver (CUDA {driver}) "
                f"runs{'' if keep else f': torch {torches[0]} to {torches[-1]}'}.",
                (pin,),
                holds=(f"driver CUDA {driver}",),
                commands=(f"pip install '{pin}' torchvision --index-url {TORCH_INDEX}/cu{suits.replace('.', '')}",),
            )
        )
    changes.append(Change("system", update, commands=("nvidia-smi",)))
    if not suits:
        changes.reverse()
        changes.append(
            Change(
                "install",
                "Or install a build of torch for the CUDA version that nvidia-smi shows (its major version counts).",
                ("torch",),
            )
        )
    yield Finding(
        "driver-too-old",
        _MISMATCH,
        "error",
        0.93,
        f"The NVIDIA driver is too old{f' (CUDA {driver})' if driver else ''} for the "
        f"CUDA{f' {needs}' if needs else ''} that torch or its kernels are built with.",
        (told.line(found),),
        "Code compiled just in time (PTX) needs a driver of at least the CUDA version that made it."
        if ptx
        else "A driver runs every CUDA of its own major version and older ones, but none of a newer major version.",
        tuple(changes),
        "installing a CUDA toolkit: the toolkit doesn't change the driver",
        "nvidia-smi",
        ("torch",),
        "https://docs.nvidia.com/deploy/cuda-compatibility/",
        True,
    )


def _toolkit_differs(told: Told) -> Iterator[Said]:
    found = told.search(
        r"(?:Installed|detected) CUDA version \(?(\d+\.\d+)\)? (?:does not match"
        r"|mismatches) the version (?:torch"
        r"|that was used to compile PyTorch)[^\n]{0,30}?(\d+\.\d+)"
        r"|The detected CUDA version[^\n]*mismatch"
    )
    if found is None:
        return
    toolkit, torch = found[1], found[2]
    same_major = bool(toolkit and torch and toolkit.split(".")[0] == torch.split(".")[0])
    deepspeed = bool(told.search(r"deepspeed|unable to compile cuda/cpp|ds_opt_adam|DeepSpeedCPUAdam"))
    last = told.search(r"'?(\w+)' object has no attribute '(ds_opt_\w+)'")
    index = f" --index-url {TORCH_INDEX}/cu{toolkit.replace('.', '')}" if toolkit else ""
    changes = [
        Change(
            "system",
            f"Use the CUDA toolkit {torch or 'of torch'}: install it and set CUDA_HOME to it "
            f"(conda: cuda-toolkit={torch or 'X.Y'}).",
        ),
        Change(
            "install",
            f"Or install a build of torch for CUDA {toolkit or 'of the toolkit'}.",
            ("torch",),
            commands=(f"pip install torch{index}",),
        ),
    ]
    if same_major:
        skip = (
            Change(
                "environment",
                "Or, as only the minor versions differ, let the check pass.",
                environment=(("DS_SKIP_CUDA_CHECK", "1"),),
            )
            if deepspeed
            else None
        )
        if skip:
            changes.append(skip)
    note = (
        "A prebuilt wheel, or an optimizer that isn't compiled (torch's AdamW instead of CPU "
        "offload), needs no toolkit."
    )
    yield Finding(
        "toolkit-not-torchs",
        "build/incompatible",
        "error",
        0.95,
        f"The CUDA toolkit ({toolkit or 'nvcc'}) is not the CUDA that torch is built for "
        f"({torch or 'another'}), so the extension can't be compiled.",
        (told.line(found),),
        f"Extensions are compiled by the toolkit's nvcc and linked with torch's CUDA; both "
        f"must be of one version. {note}",
        tuple(changes),
        f"looking for {last[2]}: {last[1]}'s destructor runs after the build had failed"
        if last
        else "another driver: nvcc's version is the toolkit's",
        "nvcc --version; python -c 'import torch; print(torch.version.cuda)'",
        ("deepspeed", "torch") if deepspeed else ("torch",),
        "https://github.com/deepspeedai/DeepSpeed (op_builder/builder.py), torch/utils/cpp_extension.py",
    )


def _two_majors(told: Told) -> Iterator[Said]:
    found = told.search(
        r"PyTorch and (torchvision|torchaudio) (?:were compiled|has|have)[^\n]*different CUDA"
        r"|Detected that PyTorch and (\w+) were compiled with different CUDA"
        r"|PyTorch has CUDA Version=?(\d+\.\d+) and (\w+) has CUDA Version=?(\d+\.\d+)"
    )
    if found is None:
        return
    other = next((one for one in found.groups() if one and one.startswith("torch")), "torchvision")
    yield Finding(
        "torch-and-companion-differ",
        _MISMATCH,
        "error",
        0.94,
        f"torch and {other} are builds for different CUDA versions.",
        (told.line(found),),
        "They came from different indexes: one from PyPI, the other from download.pytorch.org.",
        (
            Change(
                "install",
                f"Install torch and {other} together from one index.",
                ("torch", other),
                commands=(f"pip install --force-reinstall torch {other} --index-url {TORCH_INDEX}/cu126",),
            ),
        ),
        culprits=(other, "torch"),
        source=_TORCH_SOURCE,
    )


def _older_cudnn(told: Told, here: str, wanted: str, line: str) -> Finding:
    """Return the finding about a JAX or TensorFlow that found an older cuDNN than the one it was compiled with."""
    asker = "tensorflow" if told.search(r"tensorflow|\bkeras\b") else "jaxlib"
    major, minor = (*wanted.split("."), "0")[:2]
    named = told.search(r"cu(?:da)?[-_]?(1[1-9])\b")
    cuda = named[1] if named else "11" if (int(major), int(minor)) < (8, 7) else "12"
    return Finding(
        "cudnn-older-than-compiled",
        _MISMATCH,
        "error",
        0.92,
        f"{asker} was compiled with cuDNN {wanted} and found cuDNN {here}.",
        (line,),
        "cuDNN must be of the same major version and at least as new. Torch in the same environment pins an older one, "
        "or LD_LIBRARY_PATH names one of the system.",
        (
            Change(
                "pin",
                f"Raise cuDNN to {wanted} or newer.",
                (f"nvidia-cudnn-cu{cuda}>={major}.{minor},<{int(major) + 1}",),
                disturbs=("torch pins one version of cuDNN; of the same major version a newer one mostly works.",),
            ),
            Change(
                "environment",
                "Or take other copies of cuDNN out of LD_LIBRARY_PATH.",
                environment=(("LD_LIBRARY_PATH", ""),),
            ),
            Change(
                "install",
                f"Or give {asker} an environment of its own, with the CUDA that it declares itself.",
                ("tensorflow[and-cuda]" if asker == "tensorflow" else f"jax[cuda{cuda}]",),
            ),
        ),
        f"another driver: the library is older than what {asker} was compiled with",
        "python -c 'import jax; print(jax.devices())'" if asker == "jaxlib" else None,
        (f"nvidia-cudnn-cu{cuda}", asker),
        "https://docs.jax.dev/en/latest/installation.html",
        True,
    )


def _libraries_differ(told: Told) -> Iterator[Said]:
    found = told.search(
        r"cuDNN version incompatibility: PyTorch was compiled\s+against \((\d+), (\d+), (\d+)\) but found"
        r" runtime version \((\d+), (\d+), (\d+)\)"
        r"|CUDNN_STATUS_(NOT_INITIALIZED|SUBLIBRARY_VERSION_MISMATCH|VERSION_MISMATCH"
        r"|SUBLIBRARY_LOADING_FAILED)"
        r"|Loaded runtime CuDNN library: ([\d.]+) but source was compiled with: ([\d.]+)"
        r"|cuDNN error: CUDNN_STATUS_NOT_SUPPORTED[^\n]*version|NCCL version (mismatch"
        r"|incompatib)"
        r"|libcudnn\w*\.so[^\n]*undefined symbol[^\n]*version libcudnn"
    )
    if found is None:
        return
    if found[8]:
        yield _older_cudnn(told, found[8], found[9].rstrip("."), told.line(found))
        return
    not_ready = found[7] == "NOT_INITIALIZED"
    unset = Change(
        "environment",
        "Take other copies out of LD_LIBRARY_PATH (/usr/local/cuda, /usr/lib, conda), so "
        "that the wheels' own libraries are found.",
        environment=(("LD_LIBRARY_PATH", ""),),
    )
    again = Change(
        "install",
        "Install what torch pins again: reinstall torch, so that nvidia-cudnn-cu* gets its version back.",
        ("torch",),
        commands=("pip install --force-reinstall --no-cache-dir torch",),
    )
    memory = Change(
        "system",
        "Look whether the GPU's memory is full (nvidia-smi): cuDNN then fails to start too.",
        commands=("nvidia-smi",),
    )
    yield Finding(
        "cudnn-of-another-version",
        _MISMATCH,
        "error",
        0.7 if not_ready else 0.92,
        "cuDNN could not start: a copy of another version is found first, or the GPU's memory is full."
        if not_ready
        else "Another cuDNN (or NCCL) is loaded than the one that torch was compiled with.",
        (told.line(found),),
        "A copy in LD_LIBRARY_PATH, or another package's pin of the nvidia-* wheel, comes before torch's own.",
        (unset, again, *((memory,) if not_ready else ())),
        "installing cuDNN into the system: torch brings its own",
        "python -c 'import torch; print(torch.backends.cudnn.version())'",
        ("nvidia-cudnn-cu12", "torch"),
        "https://docs.nvidia.com/deeplearning/cudnn/",
        True,
    )
