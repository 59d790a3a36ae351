"""What the installed torch has to do with the machine: its build, the driver, the GPU, and the packages beside it."""

import os
import re
from collections.abc import Iterator

from doctor.case import Case
from doctor.diagnosis.gpu_tables import ARCHITECTURES, MAJOR_DRIVERS, NAMES, TORCH_CUDA
from doctor.diagnosis.mechanism import Known
from doctor.diagnosis.relevance import confidence_for
from doctor.diagnosis.torch_partners import find_partners
from doctor.environment.facts import Environment
from doctor.environment.torch_build import TorchBuild, torch_build
from doctor.finding import Change, Finding

_CHECK = 'python -c "import torch; assert torch.cuda.is_available()"'
_SOURCE = "installed files; tables of NVIDIA's and torch's releases"
# From CUDA 12.8 on torch's wheels left out Maxwell and Pascal, from 12.9 on Volta too.
_LEFT_OUT = (((7, 0), (12, 8)), ((7, 5), (12, 9)))
# Libraries of CUDA that torch's wheels bring themselves.
_OWN_LIBRARIES = re.compile(r"lib(nvJitLink|cudart|cublas|cublasLt|cusparse|cudnn|nccl|cufft|curand|cusolver)\.so")


def find_torch_state(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find a torch that can't use the GPU of its machine, and packages beside it of another release."""
    build = torch_build(case.environment) if case.environment.complete else None
    if build is None:
        return
    yield from find_partners(case, build)
    machine = case.environment.machine
    if machine is None or build.hip:
        return
    if build.cpu_only and machine.gpus:
        yield _cpu_build(case, build)
    if build.cuda:
        yield from _driver(case, build)
        yield from _architectures(case, build)
        yield from _other_toolkit(case, build)
        if machine.gpu_fault:
            yield _driver_fails(case, build, machine.gpu_fault)


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(re.match(r"\d*", minor).group() or 0)  # type: ignore[union-attr]


def _reinstall(environment: Environment, build: TorchBuild, accepted: tuple[str, ...]) -> Change | None:
    """Return the change to a build of the same torch for one of some CUDA versions, the newest that the driver runs."""
    public = build.version.partition("+")[0]
    published = TORCH_CUDA.get(".".join(public.split(".")[:2]), ())
    driver = environment.machine.driver_cuda if environment.machine else None
    fitting = [
        one for one in published if one in accepted and (driver is None or _numbers(one)[0] <= _numbers(driver)[0])
    ]
    if not fitting:
        return None
    chosen = max(fitting, key=_numbers)
    beside = tuple(name for name in ("torchvision", "torchaudio") if environment.find(name))
    return Change(
        "install",
        f"Install the CUDA {chosen} build of the same torch.",
        (f"torch=={public}+cu{chosen.replace('.', '')}", *beside),
        ("torch", *beside),
        disturbs=("It is a download of 2 to 3 GB.",),
    )


def _by_driver() -> Change:
    return Change(
        "install",
        "Install a torch of the build that the driver and the GPU ask for.",
        ("torch",),
        ("torch",),
        disturbs=("torch moves to another release, and what is built for it must move too.",),
    )


def _all_cuda() -> tuple[str, ...]:
    return tuple({cuda for several in TORCH_CUDA.values() for cuda in several})


def _cpu_build(case: Case, build: TorchBuild) -> Finding:
    machine = case.environment.machine
    assert machine is not None and machine.gpus
    change = _reinstall(case.environment, build, _all_cuda()) or _by_driver()
    return Finding(
        "cpu-build-beside-gpu",
        "cuda/not_found",
        "warning",
        max(confidence_for(case, 0.85, "torch", "cuda"), 0.3),
        f"torch {build.version} is a CPU build, and this machine has {machine.gpus[0].name}.",
        (build.told, f"nvidia-smi shows {', '.join(gpu.name for gpu in machine.gpus)}, driver {machine.driver}"),
        "torch.cuda.is_available() is False with it, and what needs a GPU says so in words of its own.",
        (change,),
        not_this="Install the CUDA toolkit or another driver: a CPU build looks at neither",
        check=_CHECK,
        culprits=("torch",),
        source=_SOURCE,
        gpu=True,
    )


def _driver(case: Case, build: TorchBuild) -> Iterator[Finding]:
    machine, interpreter = case.environment.machine, case.environment.interpreter
    assert machine is not None and build.cuda is not None
    major = _numbers(build.cuda)[0]
    oldest = MAJOR_DRIVERS.get(major)
    on_linux = interpreter is not None and interpreter.sys_platform == "linux"
    too_old = bool(machine.driver and oldest and on_linux and _numbers(machine.driver) < _numbers(oldest))
    if machine.driver_cuda and _numbers(machine.driver_cuda)[0] < major:
        too_old = True
    if not too_old:
        return
    compatible = "compat" in case.environment.variables.get("LD_LIBRARY_PATH", "")
    runs = machine.driver_cuda or "an older CUDA"
    fitting = tuple(
        one for one in _all_cuda() if machine.driver_cuda and _numbers(one)[0] <= _numbers(machine.driver_cuda)[0]
    )
    change = _reinstall(case.environment, build, fitting)
    changes = (change,) if change else ()
    update = Change("system", f"Update the NVIDIA driver to {oldest} or newer.")
    yield Finding(
        "driver-older-than-build",
        "cuda/version_mismatch",
        "warning" if compatible else "error",
        confidence_for(case, 0.9, "torch", "cuda", "driver"),
        f"torch {build.version} needs a driver for CUDA {build.cuda}, and driver {machine.driver} runs {runs}.",
        (build.told, f"nvidia-smi says driver {machine.driver}, CUDA {machine.driver_cuda}"),
        f"CUDA {major} needs driver {oldest} or newer on Linux; within a major version older minor ones do.",
        (*changes, update),
        not_this="Install a CUDA toolkit: torch brings its own, and only the driver is too old",
        check=_CHECK,
        culprits=("torch",),
        source=_SOURCE,
        gpu=True,
    )


def supports(capability: tuple[int, int], cuda: str) -> str | None:
    """Return why torch's builds for a CUDA version hold no code for a GPU, None where they do or nobody knows.

    Args:
        capability: compute capability of the GPU, such as (12, 0).
        cuda: CUDA version of the build, such as "12.4".
    """
    # Code for a capability runs on later ones of the same major number.
    family = [one for one in ARCHITECTURES if one[0] == capability[0] and one <= capability]
    if not family:
        return None
    first = min((ARCHITECTURES[one][0] for one in family), key=_numbers)
    if _numbers(cuda) < _numbers(first):
        return f"its architecture came with CUDA {first}"
    for below, since in _LEFT_OUT:
        if capability < below and _numbers(cuda) >= since:
            return f"torch's builds for CUDA {since[0]}.{since[1]} and newer leave it out"
    return None


def _architectures(case: Case, build: TorchBuild) -> Iterator[Finding]:
    machine = case.environment.machine
    assert machine is not None and build.cuda is not None
    for gpu in dict.fromkeys(machine.gpus or ()):
        why = supports(gpu.capability, build.cuda) if gpu.capability else None
        if why is None or gpu.capability is None:
            continue
        accepted = tuple(one for one in _all_cuda() if supports(gpu.capability, one) is None)
        change = _reinstall(case.environment, build, accepted)
        sm = f"sm_{gpu.capability[0]}{gpu.capability[1]}"
        yield Finding(
            "no-code-for-gpu",
            "cuda/arch_unsupported",
            "error",
            confidence_for(case, 0.9, "torch", "cuda", "kernel", gpu.name),
            f"torch {build.version} holds no code for {gpu.name} ({sm}): {why}.",
            (build.told, f"nvidia-smi says compute capability {gpu.capability[0]}.{gpu.capability[1]}"
             f" ({NAMES.get(gpu.capability, 'unknown')})"),
            "Every kernel fails with 'no kernel image is available'.",
            (change or _by_driver(),),
            not_this="A newer number of torch alone: the CUDA version of the build decides",
            check='python -c "import torch; torch.zeros(1).cuda() + 1"',
            culprits=("torch",),
            source=_SOURCE,
            gpu=True,
        )  # fmt: skip


def _driver_fails(case: Case, build: TorchBuild, fault: str) -> Finding:
    mixed = "version mismatch" in fault
    return Finding(
        "nvidia-smi-fails",
        "cuda/version_mismatch" if mixed else "cuda/not_found",
        "warning",
        confidence_for(case, 0.8, "cuda", "nvidia", "nvml"),
        "nvidia-smi is here and fails, so torch will find no GPU.",
        (fault.splitlines()[0], build.told),
        "The driver was updated while its old module is loaded." if mixed
        else "The driver's module is not loaded, or this container was not given the GPU.",
        (Change("restart", "Restart the machine, so that the new driver is loaded.") if mixed
         else Change("system", "Load the driver (restart the machine), or start the container with --gpus all."),),
        not_this="Reinstall torch: it can't see a GPU that nvidia-smi can't see",
        check="nvidia-smi",
        source="nvidia-smi",
        gpu=True,
    )  # fmt: skip


def _other_toolkit(case: Case, build: TorchBuild) -> Iterator[Finding]:
    """Find folders of LD_LIBRARY_PATH with CUDA libraries, which the loader takes instead of the wheel's."""
    environment = case.environment
    if environment.interpreter is None or not any(one.name.startswith("nvidia-") for one in environment.installed):
        return  # a torch whose libraries lie elsewhere, such as conda's
    seen = []
    for folder in filter(None, environment.variables.get("LD_LIBRARY_PATH", "").split(os.pathsep)):
        try:
            names = sorted(name for name in os.listdir(folder) if _OWN_LIBRARIES.match(name))
        except OSError:
            continue
        inside = os.path.abspath(folder).startswith(environment.interpreter.prefix + os.sep)
        version = re.search(r"cuda-?(\d+\.\d+)", os.path.realpath(folder))
        if names and not inside and not (version and version[1] == build.cuda):
            seen.append((folder, names[0], version[1] if version else None))
    if not seen:
        return
    folder = seen[0][0]
    told = ("LD_LIBRARY_PATH", "libnvJitLink", "libcusparse", "libcublas", "libcudnn", "undefined symbol")
    yield Finding(
        "other-toolkit-first",
        "cuda/version_mismatch",
        "warning",
        confidence_for(case, 0.85, *told),
        f"LD_LIBRARY_PATH puts {folder} before the CUDA libraries that torch {build.version} brings.",
        (*(f"{os.path.join(one, file)}{f' is of CUDA {of}' if of else ''}" for one, file, of in seen[:4]),
         build.told),
        "The loader takes a library of that name from there; of another minor version it lacks symbols"
        " (__nvJitLinkAddData_12_1).",
        (Change("environment", "Start without LD_LIBRARY_PATH: torch's wheels need none.",
                environment=(("LD_LIBRARY_PATH", ""),),
                disturbs=("Programs that are not in Python may need it: unset it for this one only.",)),),
        not_this="Install another CUDA build of torch: each brings its own libraries, and all fail alike",
        check='python -c "import torch"',
        source=_SOURCE,
    )  # fmt: skip
