"""The commands that make a change, to be copied: for uv, for pip, and for a notebook on Colab."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from packaging.utils import canonicalize_name

from doctor.environment.facts import Environment
from doctor.finding import Change
from doctor.remedy.quoting import for_bash, for_powershell
from doctor.remedy.requirements import named

# Projects with a build for each CUDA, on an index of their own.
_OF_TORCH = ("torch", "torchvision", "torchaudio")
_INDEX = "https://download.pytorch.org/whl/"
# Builds for CUDA that there are; which torch has which, the index says.
_BUILDS = ("cu118", "cu121", "cu124", "cu126", "cu128", "cu130")
RESTART = "# then: Runtime > Restart session"


@dataclass(frozen=True)
class Commands:
    """Lines to paste.

    Args:
        uv: for a shell with uv.
        pip: for a shell with pip.
        colab: for a cell of a notebook on Colab or Kaggle.
    """

    uv: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    colab: tuple[str, ...] = ()


def commands(change: Change, environment: Environment) -> Commands:
    """Write the commands of a change.

    Args:
        change: what is to be done.
        environment: where; its interpreter is named by its path, and where it is `.venv` of a folder with a
            pyproject.toml and a uv.lock, uv changes that project.

    Returns:
        Lines quoted for bash, or for PowerShell where the interpreter is one of Windows; none where no command does
        it.
    """
    windows = environment.interpreter is not None and environment.interpreter.sys_platform == "win32"
    shell = for_powershell if windows else for_bash
    settings = [_setting(name, value, windows) for name, value in change.environment]
    if change.requirements or change.remove:
        uv, pip = _uv_lines(change, environment, shell), _pip_lines(change, environment, shell)
        if change.kind == "clean":  # files are deleted before their packages are installed again
            uv, pip = (*change.commands, *uv), (*change.commands, *pip)
        return Commands((*settings, *uv), (*settings, *pip), (*_cell_settings(change), *_cell(change, environment)))
    lines = (*settings, *change.commands)
    cell = (*_cell_settings(change), *(_in_cell(line) for line in change.commands))
    if change.kind == "restart":
        cell = (*cell, RESTART)
    return Commands(lines, lines, cell)


def project_of(environment: Environment) -> str | None:
    """Return the folder of the uv project that an environment belongs to, None where it belongs to none."""
    source = Path(environment.source)
    if source.name in ("uv.lock", "pyproject.toml") and (source.parent / "uv.lock").is_file():
        return str(source.parent)
    prefix = environment.interpreter.prefix if environment.interpreter else ""
    folder = Path(prefix).parent
    if prefix and Path(prefix).name == ".venv" and (folder / "uv.lock").is_file():
        return str(folder)
    return None


def torch_build(change: Change, environment: Environment) -> str | None:
    """Return which build of torch a change must ask for ("cpu", "cu128"); None where the usual index has the right one.

    Args:
        change: perhaps one that installs torch, torchvision or torchaudio.
        environment: the kind of the build that is there is kept; without one the machine tells.
    """
    moved = [one for one in named(change.requirements) if one in _OF_TORCH]
    if not moved:
        return None
    wanted = re.search(r"==\s*\d[\w.]*\+(cpu|cu\d+)", " ".join(change.requirements))
    if wanted:
        return wanted[1]
    system = environment.interpreter.sys_platform if environment.interpreter else "linux"
    if system == "darwin":
        return None
    here = environment.version("torch")
    if here and here.local and re.fullmatch(r"cpu|cu\d+", here.local):
        return here.local
    machine = environment.machine
    if machine is None or machine.gpus is None:
        return None
    if not machine.gpus:
        return "cpu" if system == "linux" else None  # of Windows the usual index has the build without CUDA
    if machine.driver_cuda:
        newest = int("".join(f"{machine.driver_cuda}.0".split(".")[:2]))
        fitting = [name for name in _BUILDS if int(name[2:]) <= newest]
        return fitting[-1] if fitting else None
    return None


def _uv_lines(change: Change, environment: Environment, shell: Callable[..., str]) -> tuple[str, ...]:
    build = torch_build(change, environment)
    project = project_of(environment)
    gone = _gone(change)
    if project and not build:
        where = () if _is_here(project) else ("--project", project)
        lines = [shell("uv", "remove", *where, *gone)] if gone else []
        return (*lines, shell("uv", "add", *where, *change.requirements)) if change.requirements else tuple(lines)
    python = _python(environment)
    where = ("--python", python) if python else ()
    lines = [shell("uv", "pip", "uninstall", *where, *change.remove)] if change.remove else []
    if change.requirements:
        backend = (f"--torch-backend={build}",) if build else ()
        again = _fresh(change, "--reinstall")
        lines.append(shell("uv", "pip", "install", *where, *backend, *again, *change.requirements))
    return tuple(lines)


def _pip_lines(change: Change, environment: Environment, shell: Callable[..., str]) -> tuple[str, ...]:
    build = torch_build(change, environment)
    python = _python(environment) or "python"
    lines = [shell(python, "-m", "pip", "uninstall", "-y", *change.remove)] if change.remove else []
    if change.requirements:
        lines.append(shell(python, "-m", "pip", "install", *_index(build), *change.requirements))
    return tuple(lines)


def _cell(change: Change, environment: Environment) -> tuple[str, ...]:
    build = torch_build(change, environment)
    lines = [f"%pip uninstall -y {for_bash(*change.remove)}"] if change.remove else []
    if change.requirements:
        lines.append(f"%pip install {for_bash(*_index(build), *change.requirements)}")
    moved = (*named(change.requirements), *change.remove)
    if not environment.complete or any(environment.find(name) for name in moved):
        lines.append(RESTART)  # what is imported already stays the old one until then
    return tuple(lines)


def _fresh(change: Change, option: str) -> tuple[str, ...]:
    """Return the option that installs anew what counts as installed, where a change takes it away first."""
    return (option,) if set(named(change.requirements)) & set(map(canonicalize_name, change.remove)) else ()


def _gone(change: Change) -> tuple[str, ...]:
    """Return what a change removes for good."""
    return tuple(name for name in change.remove if canonicalize_name(name) not in named(change.requirements))


def _index(build: str | None) -> tuple[str, ...]:
    return ("--extra-index-url", f"{_INDEX}{build}") if build else ()


def _python(environment: Environment) -> str:
    return environment.interpreter.executable if environment.interpreter else ""


def _is_here(folder: str) -> bool:
    """Return whether a folder is the current one, so that it needs no naming."""
    try:
        return Path(folder).resolve() == Path.cwd()
    except OSError:
        return False


def _setting(name: str, value: str, windows: bool) -> str:
    if windows:
        return f"$env:{name} = {for_powershell(value)}" if value else f"Remove-Item Env:{name}"
    return f"export {name}={for_bash(value)}" if value else f"unset {name}"


def _cell_settings(change: Change) -> tuple[str, ...]:
    return tuple(
        f"%env {name}={value}" if value else f"import os; os.environ.pop({name!r}, None)"
        for name, value in change.environment
    )


def _in_cell(line: str) -> str:
    """Return a shell line as a cell has it."""
    if line.startswith(("%", "!", "#")):
        return line
    first = PureWindowsPath(PurePosixPath(line.split()[0]).name).stem if line.split() else ""
    if first == "pip":
        return f"%{line}"
    return f"!{line}"
