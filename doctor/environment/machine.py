"""The machine around an interpreter: graphics processors, driver, toolkit, compilers, memory and disk."""

import contextlib
import ctypes
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from doctor.environment.facts import Gpu, Machine
from doctor.environment.tools import Answer, ask_all

_COMPILERS = {
    "cc": ("cc", "gcc", "clang"),
    "c++": ("c++", "g++", "clang++"),
    "cmake": ("cmake",),
    "ninja": ("ninja",),
    "make": ("make",),
    "nvcc": ("nvcc",),
    "rustc": ("rustc",),
    "git": ("git",),
}
_GPU_FIELDS = "name,memory.total,driver_version"


class _Graphics(NamedTuple):
    gpus: tuple[Gpu, ...] | None
    driver: str | None
    driver_cuda: str | None
    fault: str | None


def read_machine(*, near: str, variables: Mapping[str, str], root: str = "/", timeout: float = 20.0) -> Machine:
    """Return what the machine is.

    Args:
        near: a folder on the disk whose free bytes count.
        variables: environment variables; PATH, CUDA_HOME and those that tell of Colab, Kaggle and Kubernetes are read.
        root: where /proc, /sys and /dev are looked for.
        timeout: seconds that a program which is asked may take.

    Returns:
        The machine; what can't be found out is None.
    """
    path = variables.get("PATH", "")
    smi = shutil.which("nvidia-smi", path=path) or _existing(root, "usr/lib/wsl/lib/nvidia-smi")
    cuda_home = _cuda_home(variables, root)
    asked: dict[str, Sequence[str]] = {}
    if smi:
        asked["gpus"] = [smi, f"--query-gpu={_GPU_FIELDS},compute_cap", "--format=csv,noheader,nounits"]
        asked["smi"] = [smi]
    for name, programs in _COMPILERS.items():
        program = next((found for one in programs if (found := shutil.which(one, path=path))), None)
        if name == "nvcc" and cuda_home and os.access(os.path.join(cuda_home, "bin", "nvcc"), os.X_OK):
            program = os.path.join(cuda_home, "bin", "nvcc")
        if program:
            asked[name] = [program, "--version"]
    answers = ask_all(asked, variables, timeout)
    if smi and "gpus" in answers and not answers["gpus"].works and "compute_cap" in answers["gpus"].text:
        older = [smi, f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader,nounits"]  # drivers before 510
        answers |= ask_all({"gpus": older}, variables, timeout)
    graphics = _graphics(answers, root)
    compilers = {name: _version(answers[name]) for name in _COMPILERS if name in answers and answers[name].works}
    toolkit = _toolkit(cuda_home, compilers.get("nvcc"))
    memory, memory_free = _memory(root)
    return Machine(
        gpus=graphics.gpus,
        driver=graphics.driver,
        driver_cuda=graphics.driver_cuda,
        toolkit=toolkit,
        cuda_home=cuda_home,
        compilers=compilers,
        memory=memory,
        memory_free=memory_free,
        disk_free=_disk_free(near),
        shared_memory=_shared_memory(root),
        container=_container(variables, root),
        gpu_fault=graphics.fault,
    )


def _existing(root: str, place: str) -> str | None:
    path = os.path.join(root, place)
    return path if os.path.exists(path) else None


def _text(root: str, place: str) -> str:
    try:
        return Path(root, place).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _version(answer: Answer) -> str:
    match = re.search(r"release (\d+\.\d+)", answer.text) or re.search(r"\b(\d+\.\d+(?:\.\d+)*)", answer.text)
    return match[1] if match else ""


def _graphics(answers: Mapping[str, Answer], root: str) -> _Graphics:
    kernel = re.search(r"Kernel Module(?: for \w+)?\s+(\d+(?:\.\d+)+)", _text(root, "proc/driver/nvidia/version"))
    driver = kernel[1] if kernel else None
    rows = answers.get("gpus")
    if rows is None:
        # Without nvidia-smi a device file still tells of a processor, as in a container that brings no tools.
        devices = Path(root, "dev")
        some = driver or any(devices.glob("nvidia[0-9]*")) or _existing(root, "dev/dxg") is not None
        return _Graphics(None if some else (), driver, None, None)
    if not rows.works:
        if "No devices were found" in rows.text:
            return _Graphics((), driver, None, None)
        return _Graphics(None, driver, None, rows.text.strip()[:300] or "nvidia-smi failed without a word")
    gpus = []
    for line in rows.text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) < 3:
            continue
        numbers = re.fullmatch(r"(\d+)\.(\d+)", parts[3]) if len(parts) > 3 else None
        gpus.append(
            Gpu(
                parts[0],
                int(parts[1]) * 2**20 if parts[1].isdigit() else None,
                (int(numbers[1]), int(numbers[2])) if numbers else None,
            )
        )
        driver = parts[2] if re.match(r"\d", parts[2]) else driver
    header = answers.get("smi")
    newest = re.search(r"CUDA (?:UMD )?Version\s*:\s*(\d+\.\d+)", header.text) if header else None
    return _Graphics(tuple(gpus), driver, newest[1] if newest else None, None)


def _cuda_home(variables: Mapping[str, str], root: str) -> str | None:
    """Return the toolkit that torch's builder would take: the variable, the one of nvcc, the usual folder."""
    told = variables.get("CUDA_HOME") or variables.get("CUDA_PATH")
    if told:
        return told
    nvcc = shutil.which("nvcc", path=variables.get("PATH", ""))
    if nvcc:
        return os.path.dirname(os.path.dirname(nvcc))
    usual = os.path.join(root, "usr/local/cuda")
    return usual if os.path.isdir(usual) else None


def _toolkit(home: str | None, nvcc: str | None) -> str | None:
    """Return a toolkit's CUDA version from its files, else what nvcc says."""
    for place, pattern in (
        ("version.json", r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"(\d+\.\d+)'),
        ("version.txt", r"CUDA Version (\d+\.\d+)"),
        ("include/cuda.h", r"#define CUDA_VERSION (\d+)"),
    ):
        match = re.search(pattern, _text(home, place)) if home else None
        if match:
            number = match[1]
            return number if "." in number else f"{int(number) // 1000}.{int(number) % 1000 // 10}"
    return nvcc or None


def _memory(root: str) -> tuple[int | None, int | None]:
    """Return bytes of memory and what is free of it, within the limit of a container or of a job."""
    lines = dict(re.findall(r"^(\w+):\s+(\d+) kB", _text(root, "proc/meminfo"), re.MULTILINE))
    total = int(lines["MemTotal"]) * 1024 if "MemTotal" in lines else _memory_elsewhere()
    free = int(lines["MemAvailable"]) * 1024 if "MemAvailable" in lines else None
    for limit, used in _group_limits(root):
        if total is None or limit < total:
            total = limit
        free = max(0, limit - used) if free is None else min(free, max(0, limit - used))
    return total, free


def _group_limits(root: str) -> list[tuple[int, int]]:
    """Return limit and use in bytes of each control group around this process that has a limit."""
    found = []
    for line in _text(root, "proc/self/cgroup").splitlines() or ["0::/"]:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        base, names = (
            ("sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"))
            if controllers
            else ("sys/fs/cgroup", ("memory.max", "memory.current"))
        )
        parts = [part for part in path.split("/") if part and part != ".."]
        for depth in range(len(parts), -1, -1):
            folder = "/".join([base, *parts[:depth]])
            limit, used = (_text(root, f"{folder}/{name}").strip() for name in names)
            if limit.isdigit() and int(limit) < 2**60:
                cached = re.search(
                    r"^(?:total_)?inactive_file (\d+)", _text(root, f"{folder}/memory.stat"), re.MULTILINE
                )
                busy = (int(used) if used.isdigit() else 0) - (int(cached[1]) if cached else 0)
                found.append((int(limit), max(0, busy)))
    return found


def _memory_elsewhere() -> int | None:
    if sys.platform == "win32":

        class Status(ctypes.Structure):
            _fields_ = [
                ("size", ctypes.c_ulong),
                ("load", ctypes.c_ulong),
                *(
                    (name, ctypes.c_ulonglong)
                    for name in ("total", "free", "file", "file_free", "own", "own_free", "more")
                ),
            ]

        status = Status(size=ctypes.sizeof(Status))
        ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return int(status.total) or None
    with contextlib.suppress(ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _disk_free(near: str) -> int | None:
    try:
        return shutil.disk_usage(near).free
    except OSError:
        return None


def _shared_memory(root: str) -> int | None:
    try:
        told = os.statvfs(os.path.join(root, "dev/shm"))
    except (OSError, AttributeError):
        return None
    return told.f_frsize * told.f_blocks


def _container(variables: Mapping[str, str], root: str) -> str | None:
    if "COLAB_RELEASE_TAG" in variables or "COLAB_GPU" in variables:
        return "colab"
    if "KAGGLE_KERNEL_RUN_TYPE" in variables or "KAGGLE_URL_BASE" in variables:
        return "kaggle"
    if "KUBERNETES_SERVICE_HOST" in variables:
        return "kubernetes"
    if _existing(root, ".dockerenv") or _existing(root, "run/.containerenv"):
        return "docker"
    if re.search(r"docker|containerd|kubepods", _text(root, "proc/1/cgroup")):
        return "docker"
    return "wsl" if "microsoft" in _text(root, "proc/version").lower() else None
