"""A case as the mechanisms ask it: what its text says, which version of a project is there, which GPU."""

import re
from functools import cached_property

from packaging.version import InvalidVersion, Version

from doctor.case import Case
from doctor.diagnosis.gpu_tables import GPUS, cuda_of_driver
from doctor.environment.facts import Gpu
from doctor.environment.torch_build import torch_build

_LONGEST = 240


class Told:
    """The text and the facts of a case.

    Args:
        case: what is diagnosed.
    """

    def __init__(self, case: Case) -> None:
        self.case = case

    @cached_property
    def text(self) -> str:
        """All that the failure says: its text, and exception lines and others that the text doesn't hold."""
        failure = self.case.failure
        if failure is None:
            return ""
        parts = [failure.text]
        for one in (*(raised.line for raised in failure.raised), *failure.lines, failure.command or ""):
            if one and one not in failure.text:
                parts.append(one)
        return "\n".join(part for part in parts if part)

    def search(self, pattern: str) -> re.Match[str] | None:
        """Return where a pattern is first found in the text, in any case of its letters."""
        return re.search(pattern, self.text, re.IGNORECASE) if self.text else None

    def line(self, match: re.Match[str]) -> str:
        """Return the line of the text that a match begins in, cut around it where it is long: evidence."""
        begin = self.text.rfind("\n", 0, match.start()) + 1
        end = self.text.find("\n", match.start())
        line = self.text[begin : len(self.text) if end < 0 else end].strip()
        if len(line) <= _LONGEST:
            return line
        at = max(0, match.start() - begin - _LONGEST // 3)
        return ("..." if at else "") + line[at : at + _LONGEST].strip() + "..."

    def version(self, name: str) -> Version | None:
        """Return the version of a project: installed, declared or stated by the text; None where not known."""
        found = self.case.environment.version(name)
        if found is None and self.case.failure is not None:
            for one in self.case.failure.stated:
                if one.name == name and one.specifier.startswith("=="):
                    found = _version(one.specifier.lstrip("="))
                    break
        return found

    def minor(self, name: str) -> str | None:
        """Return the first two parts of a project's version, "2.6", also of "==2.6.*"; None where not known."""
        version = self.version(name)
        if version is not None:
            return f"{version.major}.{version.minor}"
        failure = self.case.failure
        for one in (*self.case.environment.declared, *(failure.stated if failure else ())):
            found = re.fullmatch(r"(?:==|~=)(\d+\.\d+)(?:\.\*|\.\d+)?", one.specifier)
            if one.name == name and found:
                return found[1]
        return None

    @cached_property
    def python(self) -> tuple[int, int] | None:
        """Version of Python, (3, 11); None where not known."""
        interpreter, failure = self.case.environment.interpreter, self.case.failure
        for text in (interpreter.version if interpreter else None, failure.platform.python if failure else None):
            found = re.match(r"(\d+)\.(\d+)", text or "")
            if found:
                return int(found[1]), int(found[2])
        found = re.search(r"\bpython[ /]?(3)\.(\d{1,2})\b", self.text, re.IGNORECASE)
        return (int(found[1]), int(found[2])) if found else None

    @cached_property
    def system(self) -> str | None:
        """Platform: "linux", "darwin" or "win32"; None where not known."""
        interpreter, failure = self.case.environment.interpreter, self.case.failure
        if failure is not None and failure.platform.sys_platform:
            return failure.platform.sys_platform
        if interpreter is not None and (self.case.environment.complete or interpreter.executable):
            return interpreter.sys_platform
        for pattern, name in ((r"\bwin_amd64|[A-Z]:\\|\bwindows\b|\.dll\b|\.pyd\b", "win32"),
                              (r"\bmacosx?_|\bdarwin\b|\.dylib\b|\bmacos\b|apple silicon", "darwin"),
                              (r"linux|\.so\b|/usr/|ubuntu|debian", "linux")):  # fmt: skip
            if re.search(pattern, self.text, re.IGNORECASE):
                return name
        return interpreter.sys_platform if interpreter is not None else None

    @cached_property
    def place(self) -> str | None:
        """Where it ran: "colab", "kaggle", "notebook", "docker", ...; None where not known."""
        failure, machine = self.case.failure, self.case.environment.machine
        if failure is not None and failure.platform.place:
            return failure.platform.place
        if machine is not None and machine.container:
            return machine.container
        for pattern, name in ((r"google\.colab|\bcolab\b", "colab"), (r"/kaggle/|\bkaggle\b", "kaggle"),
                              (r"ipykernel|<ipython-input|jupyter|<cell line|\bnotebook\b", "notebook")):  # fmt: skip
            if re.search(pattern, self.text, re.IGNORECASE):
                return name
        return None

    @cached_property
    def gpus(self) -> tuple[Gpu, ...]:
        """GPUs that are there or that the text names, with capability and memory where the table knows them."""
        machine, failure = self.case.environment.machine, self.case.failure
        found = [*(machine.gpus if machine and machine.gpus else ()), *(failure.platform.gpus if failure else ())]
        if not found:
            for pattern, _, _, _ in GPUS:
                named = re.search(pattern, self.text, re.IGNORECASE)
                if named:
                    found.append(Gpu(named[0]))
        return tuple(_filled(one) for one in found)

    @cached_property
    def capability(self) -> tuple[int, int] | None:
        """Lowest compute capability of the GPUs, also from a text's "sm_75" of a GPU; None where not known."""
        known = [gpu.capability for gpu in self.gpus if gpu.capability]
        if known:
            return min(known)
        found = self.search(r"CUDA capability sm_(\d+)(\d)\b|compute capability[^\d\n]{0,12}(\d+)\.(\d)\b"
                            r"|\bsm[_ ]?(\d{1,2})(\d)[af]?\b(?! sm_)")  # fmt: skip
        if not found:
            return None
        high, low = [one for one in found.groups() if one is not None][:2]
        return int(high), int(low)

    @cached_property
    def gpu_name(self) -> str:
        """Name of the GPU for a sentence; "this GPU" where it is not known."""
        return self.gpus[0].name if self.gpus else "this GPU"

    @cached_property
    def torch_cuda(self) -> str | None:
        """CUDA version that torch is built for, "12.4"; "" for a build without; None where not known."""
        build = torch_build(self.case.environment)  # of an environment that was read, torch's own file tells
        if build is not None and build.file and not build.hip:
            return build.cuda or ""
        version = self.version("torch")
        local = version.local if version is not None else None
        if local is None:
            found = self.search(r"\btorch[-=: ]{1,4}(?:\d[\w.]*\+)?(cu\d{3}|cpu)\b|CUDA[^\n]{0,24}PyTorch: (\d+\.\d+)")
            if found and found[2]:
                return found[2]
            local = found[1].lower() if found else None
        if local is not None:
            if local.startswith("cpu"):
                return ""
            found = re.match(r"cu(\d+)(\d)$", local)
            if found:
                return f"{found[1]}.{found[2]}"
        failure = self.case.failure
        return failure.platform.cuda if failure is not None else None

    @cached_property
    def driver_cuda(self) -> str | None:
        """Newest CUDA that the NVIDIA driver runs, "12.4": told, or by its version; None where not known."""
        machine, failure = self.case.environment.machine, self.case.failure
        if machine is not None and machine.driver_cuda:
            return machine.driver_cuda
        found = self.search(r"found version (\d{4,5})\b")
        if found:
            return f"{int(found[1]) // 1000}.{int(found[1]) % 1000 // 10}"
        smi = self.search(r"Driver Version: ?(\d+\.\d+)[^\n]*?CUDA Version: ?(\d+\.\d+)")
        if smi:
            return smi[2]
        driver = (machine.driver if machine else None) or (failure.platform.driver if failure else None)
        if driver is None and (named := self.search(r"driver (?:version )?(?:is |: ?)?v?(\d{3}\.\d+)")):
            driver = named[1]
        return cuda_of_driver(driver) if driver else None


def _version(text: str) -> Version | None:
    """Return a version, None where a text is none."""
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _filled(gpu: Gpu) -> Gpu:
    """Return a GPU with the capability and memory that the table knows for its name."""
    for pattern, _, capability, gigabytes in GPUS:
        if re.search(pattern, gpu.name, re.IGNORECASE):
            memory = gpu.memory or (gigabytes * 2**30 if gigabytes else None)
            return Gpu(gpu.name, memory, gpu.capability or capability)
    return gpu
