"""What is wrong around the packages: an interpreter that is gone, a full disk, small shared memory, stale caches."""

import os
import re
from collections.abc import Iterator

from doctor.case import Case
from doctor.diagnosis.file_commands import delete_command
from doctor.diagnosis.mechanism import Known
from doctor.diagnosis.relevance import confidence_for
from doctor.finding import Change, Finding
from doctor.remedy.quoting import for_bash

_MIB = 2**20
_STAMP = re.compile(r'\A"""\n(?P<lines>(?:[^\n"]+\n){1,6})__UNSLOTH_VERSIONING__')
_STAMPED = ("unsloth-zoo", "unsloth", "transformers", "trl")  # the order of the stamp's lines


def find_machine_state(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find what is wrong with the interpreter, the machine and the caches of an environment."""
    yield from _interpreter(case)
    yield from _python_home(case)
    yield from _disk(case)
    yield from _shared_memory(case)
    yield from _compiled_cache(case)


def _interpreter(case: Case) -> Iterator[Finding]:
    interpreter = case.environment.interpreter
    if interpreter is None or interpreter.fault is None:
        return
    short = ".".join(interpreter.version.split(".")[:2])
    pins = tuple(f"{one.name}=={one.version}" for one in case.environment.installed if one.version)
    yield Finding(
        "interpreter-gone",
        "runtime/environment",
        "error",
        0.97,
        f"The Python of {interpreter.prefix} can't be run.",
        (interpreter.fault, f"{len(pins)} packages of it were read from their files"),
        "A virtual environment only links to the Python that it was made with; when that is removed or replaced, or the"
        " folder is moved to another machine, nothing in it runs.",
        (
            Change("system", f"Make it again with a Python {short} that is there, and install the same packages.",
                   commands=(for_bash("uv", "venv", "--clear", "--python", short, interpreter.prefix),
                             for_bash("uv", "pip", "install", "--python", interpreter.prefix, *pins)
                             if len(pins) <= 60 else "# then install from your requirements or lock file"),
                   disturbs=("The folder is made anew: what else was put into it is gone.",)),
        ),
        not_this="Reinstall single packages: their files are whole, the interpreter is missing",
        check=for_bash(interpreter.executable, "-c", "pass"),
        source="files read",
    )  # fmt: skip


def _python_home(case: Case) -> Iterator[Finding]:
    home, interpreter = case.environment.variables.get("PYTHONHOME"), case.environment.interpreter
    if not home or interpreter is None or os.path.realpath(home) == os.path.realpath(interpreter.base_prefix):
        return
    yield Finding(
        "pythonhome-set",
        "runtime/environment",
        "error" if not os.path.isdir(home) else "warning",
        confidence_for(case, 0.9, "PYTHONHOME", "encodings", "sys.prefix"),
        f"PYTHONHOME is {home}, which is not the home of {interpreter.executable}.",
        (f"the interpreter's own is {interpreter.base_prefix}",),
        "Every Python started with it looks for its standard library there: No module named 'encodings'.",
        (Change("environment", "Unset PYTHONHOME.", environment=(("PYTHONHOME", ""),)),),
        not_this="Reinstall Python: it is whole, and sent to the wrong place",
        check=for_bash(interpreter.executable, "-c", "import encodings"),
        source="environment variables",
    )


def _disk(case: Case) -> Iterator[Finding]:
    machine, interpreter = case.environment.machine, case.environment.interpreter
    if machine is None or machine.disk_free is None or machine.disk_free >= 1024 * _MIB or interpreter is None:
        return
    free = machine.disk_free // _MIB
    yield Finding(
        "disk-almost-full",
        "runtime/resources",
        "warning",
        confidence_for(case, 0.85, "space", "disk", "Errno 28", "quota"),
        f"The disk of {interpreter.prefix} has {free} MB left.",
        (f"{free} MB free; a wheel of torch needs 2000 to 6000 MB, a checkpoint as much as its model",),
        "Installs stop half way and leave packages without some of their files.",
        (Change("system", "Make room: caches first.", commands=("uv cache prune", "pip cache purge")),),
        check=f"test $(df --output=avail -k {for_bash(interpreter.prefix)} | tail -1) -gt 1048576",
        source="the machine",
    )


def _shared_memory(case: Case) -> Iterator[Finding]:
    machine = case.environment.machine
    if machine is None or machine.shared_memory is None or not machine.gpus or machine.shared_memory > 64 * _MIB:
        return
    size = machine.shared_memory // _MIB
    kubernetes = machine.container == "kubernetes"
    yield Finding(
        "shared-memory-small",
        "runtime/resources",
        "warning",
        confidence_for(case, 0.85, "shm", "shared memory", "bus error", "NCCL", "DataLoader"),
        f"/dev/shm has {size} MB, which data loaders' workers and NCCL soon fill.",
        (f"/dev/shm has {size} MB, the default of containers",),
        "Worker processes hand tensors over through it: 'Unexpected bus error', or NCCL's unhandled system error.",
        (
            Change("option", "Mount an emptyDir of medium Memory at /dev/shm.") if kubernetes
            else Change("option", "Start the container with --shm-size=8g, or with --ipc=host."),
            Change("code", "Until then: num_workers=0 in data loaders."),
        ),
        check="test $(df --output=size -k /dev/shm | tail -1) -gt 65536",
        source="the machine",
    )  # fmt: skip


def _compiled_cache(case: Case) -> Iterator[Finding]:
    """Find code that unsloth has written for other releases; each file begins with the versions it was written for."""
    variables = case.environment.variables
    folder = os.path.join(case.folder or "", variables.get("UNSLOTH_COMPILE_LOCATION") or "unsloth_compiled_cache")
    if not case.folder or not os.path.isdir(folder):
        return
    differ: dict[str, str] = {}
    stale = []
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".py"):
            continue
        try:
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as stream:
                stamp = _STAMP.match(stream.read(500))
        except OSError:
            continue
        written = stamp["lines"].split() if stamp else []
        for project, version in zip(_STAMPED, written, strict=False):
            here = case.environment.find(project)
            if here and version != "0" and here.version != version:
                differ[project] = f"{project} {version}, and {here.version} is installed"
                stale.append(os.path.join(folder, name))
    if not differ:
        return
    kept = variables.get("UNSLOTH_COMPILE_OVERWRITE") == "0"
    files = list(dict.fromkeys(stale))
    yield Finding(
        "compiled-cache-stale",
        "import/stale_or_partial",
        "warning" if kept else "note",
        confidence_for(case, 0.9 if kept else 0.7, "unsloth", "unsloth_compiled_cache", *differ),
        f"{folder} holds code that was written for {'; '.join(differ.values())}.",
        (*files[:4], *(("UNSLOTH_COMPILE_OVERWRITE=0 keeps what is there",) if kept else ())),
        "unsloth imports its generated trainers from there instead of making them for what is installed.",
        (
            Change("clean", "Delete the folder; it is written again.",
                   commands=(delete_command(case.environment, folder),)),
            *((Change("environment", "Or let it be overwritten.", environment=(("UNSLOTH_COMPILE_OVERWRITE", ""),)),)
              if kept else ()),
        ),
        not_this=f"Change the versions of {' or '.join(differ)}: they fit, the written code is older",
        check=f"test ! -d {for_bash(folder)}",
        culprits=("unsloth", *differ),
        source="files read",
    )  # fmt: skip
