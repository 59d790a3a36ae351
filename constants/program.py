"""How the program's command lines are called, for its messages: `python train.py`, or `menagerie train`."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from constants.paths import PACKAGE_ROOT, PROJECT_ROOT

_SCRIPTS = {"train": "train.py", "plot": "plot.py", "recommend": "recommend.py", "evaluate": "-m evaluation",
            "serve": "serve.py", "doctor": "doctor.py", "workflow": "workflow.py", "tune": "tune.py"}  # fmt: skip


def command(name: str) -> str:
    """Say how whoever reads a message calls a command line.

    Args:
        name: train, plot, recommend, evaluate, serve, doctor, workflow or tune.

    Returns:
        `python train.py`, or `menagerie train` where that was called, or where the project is no checkout.
    """
    by_name = Path(sys.argv[0] if sys.argv else "").stem == "menagerie"
    return f"menagerie {name}" if by_name or PROJECT_ROOT != PACKAGE_ROOT else f"python {_SCRIPTS[name]}"


def typed(name: str, folder: Path | None = None) -> str:
    """Say what to type for a command line: as `command`, with its path where the shell would not find it.

    Args:
        name: train, plot, recommend, evaluate, or `python` for the interpreter alone.
        folder: folder that it will be typed in; paths inside it are relative. None where that is not known.
    """
    python = _with_path(Path(sys.executable), "python", folder)
    if name == "python":
        return python
    first, _, rest = command(name).partition(" ")
    if first == "python":
        return f"{python} {rest}"
    script = Path(sys.executable).with_name("menagerie")
    called = _with_path(script, first, folder) if script.is_file() else f"{python} {os.path.abspath(sys.argv[0])}"
    return f"{called} {rest}"


def called(name: str, folder: Path) -> str:
    """Return the beginning of the command that this process was called by, quoted for a shell.

    Args:
        name: train, plot, recommend, evaluate or workflow.
        folder: folder that it was called in.
    """
    if Path(sys.argv[0]).name != _SCRIPTS[name]:
        return typed(name, folder)
    return f"{shlex.quote(typed('python', folder))} {shlex.quote(sys.argv[0])}"


def _with_path(path: Path, name: str, folder: Path | None) -> str:
    found = shutil.which(name)
    if found and os.path.dirname(os.path.abspath(found)) == str(path.parent):
        return name
    return str(path.relative_to(folder) if folder and path.is_relative_to(folder) else path)
