"""What builds scratch environments: uv, or pip where there is no uv."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from packaging.utils import canonicalize_name

from doctor.child_process import Ran
from doctor.remedy.requirements import named, parse_requirement

Run = Callable[[Sequence[str], Mapping[str, str] | None], Ran]
_UNREACHABLE = re.compile(
    r"dns error|error sending request|Request failed after|Connection (?:refused|reset)|Failed to fetch|"
    r"NewConnectionError|Temporary failure in name resolution|ProxyError|tunnel|timed out", re.IGNORECASE
)  # fmt: skip
_NOT_THERE = (
    re.compile(r"there is no version of ([A-Za-z0-9._-]+)=="),
    re.compile(r"([A-Za-z0-9._-]+) was not found in the (?:package registry|cache|provided)"),
    re.compile(
        r"Failed to (?:download|build|download and build|prepare|fetch)(?: distributions?)? `([A-Za-z0-9._-]+)=="
    ),
    re.compile(r"Because ([A-Za-z0-9._-]+)==\S+ has no (?:wheels|usable wheels|source distribution)"),
    re.compile(r"No matching distribution found for ([A-Za-z0-9._-]+)=="),
)
_TORCH = ("torch", "torchvision", "torchaudio")


class Installer(Protocol):
    """Builds one scratch environment."""

    name: str

    def make(self, python: str) -> Ran:
        """Make an empty environment for a Python: a path, or a version such as "3.11"."""

    def set_to(self, pins: Sequence[str]) -> Ran:
        """Make exactly these be installed, whatever they declare."""

    def resolve(self, pins: Sequence[str]) -> Ran:
        """Install these and what they need, where they contradict what others declare too."""

    def install(self, requirements: Sequence[str], again: bool) -> Ran:
        """Install requirements as a user does; `again` also what counts as installed."""

    def remove(self, names: Sequence[str]) -> Ran:
        """Uninstall distributions."""

    def check(self) -> tuple[str, ...]:
        """Return what is installed though others declare that they don't go with it."""

    def freeze(self) -> tuple[str, ...]:
        """Return what is installed, "peft==0.14.0"."""

    def version(self) -> str:
        """Return the program's own version."""

    def would_download(self, pins: Sequence[str]) -> int | None:
        """Return how many distributions must be downloaded; None where it can't tell."""


class UvInstaller:
    """Builds by uv, whose cache makes it quick; without a network it takes what is in the cache.

    Args:
        words: words that call uv.
        folder: folder of the environment to be.
        run: runs a command in time.
        environment: its variables.
    """

    name = "uv"

    def __init__(self, words: Sequence[str], folder: Path, run: Run, environment: Mapping[str, str]) -> None:
        self._words = tuple(words)
        self._folder = folder
        self._run = run
        self._environment = environment
        self.offline = False

    @property
    def _python(self) -> str:
        return str(self._folder / "venv")

    def make(self, python: str) -> Ran:
        """Make an empty environment; a Python that is not on this machine is not downloaded."""
        return self._uv("venv", "--no-project", "--python", python, self._python)

    def set_to(self, pins: Sequence[str]) -> Ran:
        """Make exactly these be installed, whatever they declare."""
        ran = self._sync(pins, ())
        if not ran.passed and any(_is_torch(pin) and "+cpu" in pin for pin in pins) and "torch" in ran.output:
            plain = [re.sub(r"\+cpu$", "", pin) for pin in pins]
            second = self._sync(plain, ("--torch-backend", "cpu"))
            return second if second.passed or missing_in(second.output) else ran
        return ran

    def _sync(self, pins: Sequence[str], options: Sequence[str]) -> Ran:
        file = self._folder / "requirements.txt"
        file.write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
        return self._pip("sync", *options, "--allow-empty-requirements", str(file))

    def resolve(self, pins: Sequence[str]) -> Ran:
        """Install these and what they need, where they contradict what others declare too."""
        file = self._folder / "overrides.txt"
        file.write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
        ran = self._pip("install", "--overrides", str(file), "--dry-run", *pins)
        if not ran.passed:
            return ran
        # Without a build for CPUs named, torch would come with gigabytes of CUDA.
        backend = ("--torch-backend", "cpu") if re.search(r"^ \+ nvidia-", ran.output, re.MULTILINE) else ()
        return self._pip("install", "--overrides", str(file), *backend, *pins)

    def install(self, requirements: Sequence[str], again: bool) -> Ran:
        """Install requirements as a user does."""
        backend = ("--torch-backend", "cpu") if any(map(_is_torch, requirements)) else ()
        return self._pip("install", *backend, *(("--reinstall",) if again else ()), *requirements)

    def remove(self, names: Sequence[str]) -> Ran:
        """Uninstall distributions."""
        return self._pip("uninstall", *names)

    def check(self) -> tuple[str, ...]:
        """Return what is installed though others declare that they don't go with it."""
        lines = self._pip("check").output.splitlines()
        return tuple(line.strip() for line in lines if line.startswith("The package "))

    def freeze(self) -> tuple[str, ...]:
        """Return what is installed."""
        return tuple(line for line in self._pip("freeze").output.splitlines() if re.match(r"[A-Za-z0-9._-]+==", line))

    def version(self) -> str:
        """Return uv's version."""
        return self._run((*self._words, "--version"), self._environment).output.strip()

    def would_download(self, pins: Sequence[str]) -> int | None:
        """Return how many distributions are not in the cache, of those to be had; None where uv can't tell."""
        left = list(pins)
        file = self._folder / "requirements.txt"
        while True:
            file.write_text("".join(f"{pin}\n" for pin in left), encoding="utf-8")
            ran = self._pip("sync", "--dry-run", "--allow-empty-requirements", str(file))
            if ran.passed:
                found = re.search(r"Would download (\d+) package", ran.output)
                return int(found[1]) if found else 0
            gone = missing_in(ran.output)
            without = [pin for pin in left if gone is None or gone not in named((pin,))]
            if gone is None or len(without) == len(left):
                return None
            left = without

    def _pip(self, command: str, *words: str) -> Ran:
        return self._uv("pip", command, "--python", self._python, *words)

    def _uv(self, *words: str) -> Ran:
        offline = ("--offline",) if self.offline else ()
        ran = self._run((*self._words, *words, *offline), self._environment)
        if not ran.passed and not self.offline and _UNREACHABLE.search(ran.output) and words[:2] != ("pip", "check"):
            again = self._run((*self._words, *words, "--offline"), self._environment)
            if again.passed:
                self.offline = "--torch-backend" not in words  # the index of torch's builds is another one
            return again if again.passed or missing_in(again.output) else ran
        return ran


class PipInstaller:
    """Builds by venv and pip, where uv is missing: slower, and the Python must be the patient's own.

    Args:
        folder: folder of the environment to be.
        run: runs a command in time.
        environment: its variables.
    """

    name = "pip"

    def __init__(self, folder: Path, run: Run, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._run = run
        self._environment = environment
        self.offline = False

    def make(self, python: str) -> Ran:
        """Make an environment that holds pip only."""
        return self._run((python, "-m", "venv", str(self._folder / "venv")), self._environment)

    def set_to(self, pins: Sequence[str]) -> Ran:
        """Make exactly these be installed, whatever they declare."""
        wanted = {one.name.lower().replace("_", "-") for pin in pins if (one := parse_requirement(pin))} | {"pip"}
        extra = [line.partition("==")[0] for line in self.freeze() if line.partition("==")[0].lower() not in wanted]
        if extra:
            self.remove(extra)
        if not pins:
            return Ran(("pip",), 0, "", 0.0)
        return self._pip("install", "--no-deps", *pins)

    def resolve(self, pins: Sequence[str]) -> Ran:
        """Install these and what they need, then these as they are told."""
        ran = self._pip("install", *pins)
        return ran if ran.passed else self._pip("install", "--no-deps", *pins)

    def install(self, requirements: Sequence[str], again: bool) -> Ran:
        """Install requirements as a user does."""
        return self._pip("install", *(("--force-reinstall", "--no-deps") if again else ()), *requirements)

    def remove(self, names: Sequence[str]) -> Ran:
        """Uninstall distributions."""
        return self._pip("uninstall", "-y", *names)

    def check(self) -> tuple[str, ...]:
        """Return what is installed though others declare that they don't go with it."""
        lines = self._pip("check").output.splitlines()
        return tuple(line for line in lines if " requires " in line or " has requirement " in line)

    def freeze(self) -> tuple[str, ...]:
        """Return what is installed."""
        lines = self._pip("freeze", "--all").output.splitlines()
        return tuple(line for line in lines if re.match(r"[A-Za-z0-9._-]+==", line) and not line.startswith("pip=="))

    def version(self) -> str:
        """Return pip's version."""
        return self._pip("--version").output.split(" from ")[0].strip()

    def would_download(self, pins: Sequence[str]) -> int | None:
        """Return None: pip can't tell without downloading."""
        return None

    def _pip(self, *words: str) -> Ran:
        python = self._folder / "venv" / ("Scripts/python.exe" if _is_windows() else "bin/python")
        settings = {**self._environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        return self._run((str(python), "-m", "pip", *words), settings)


def for_cpu(pin: str, system: str) -> str:
    """Return a pin of torch, torchvision or torchaudio as the pin of its build for CPUs, which off a Mac is another."""
    requirement = parse_requirement(pin)
    if requirement is None or not _is_torch(pin) or system == "darwin":
        return pin
    found = re.fullmatch(r"==\s*([^+\s,]+)(?:\+\w+)?", str(requirement.specifier))
    return f"{requirement.name}=={found[1]}+cpu" if found else pin


def missing_in(output: str) -> str | None:
    """Return the distribution that an installer says is not to be had, None where it says something else."""
    for pattern in _NOT_THERE:
        found = pattern.search(output)
        if found:
            return canonicalize_name(found[1])
    return None


def is_unreachable(output: str) -> bool:
    """Return whether an installer says that no index can be reached."""
    return bool(_UNREACHABLE.search(output)) or "network was disabled" in output or "connectivity is disabled" in output


def _is_torch(text: str) -> bool:
    requirement = parse_requirement(text)
    return requirement is not None and requirement.name.lower() in _TORCH


def _is_windows() -> bool:
    return sys.platform == "win32"
