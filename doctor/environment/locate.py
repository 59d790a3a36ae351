"""From what a user names (an interpreter, a venv, a conda prefix) to the interpreter to ask."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

# Only a file named like an interpreter is ever run: a user may name a script by mistake.
_INTERPRETER = re.compile(r"(python|pypy|graalpy)w?\d*(\.\d+)*[tdm]*(\.exe)?", re.IGNORECASE)
_INSIDE = (
    "bin/python",
    "bin/python3",
    "Scripts/python.exe",
    "python.exe",
    "bin/pypy3",
    "bin/pypy",
    "python",
    "python3",
)


class EnvironmentUnreadable(Exception):
    """What was named is no environment that can be read; the message is a sentence for the user."""


@dataclass(frozen=True)
class Place:
    """Where an interpreter is.

    Args:
        executable: the interpreter, as an absolute path.
        folder: the environment around it, whose files can be read where it can't run; None where there is none.
        fault: why it can't be run, where that shows without trying; None where it may run.
    """

    executable: str
    folder: str | None = None
    fault: str | None = None


def find_place(named: str) -> Place:
    """Return the interpreter that a path or a name stands for.

    Args:
        named: path of an interpreter, of a virtual environment, of a conda prefix or of a folder that has a `.venv` or
            `venv`; or a name on PATH such as "python3.12".

    Returns:
        The interpreter, and the environment's folder.

    Raises:
        EnvironmentUnreadable: where there is no such thing; says what was looked for.
    """
    if not named.strip():
        raise EnvironmentUnreadable("No interpreter is named: give one, a virtual environment or a conda prefix.")
    path = os.path.abspath(os.path.expanduser(named))
    if os.path.isdir(path):
        return _in_folder(path)
    if not os.path.lexists(path):
        found = shutil.which(named) if os.sep not in named and "/" not in named else None
        if found is None:
            raise EnvironmentUnreadable(f"{named} is not there. {_ALLOWED}")
        path = os.path.abspath(found)
    return _interpreter(path)


_ALLOWED = (
    "Give an interpreter (venv/bin/python), the folder of a virtual environment (venv), or the prefix of a conda"
    " environment."
)


def _in_folder(folder: str) -> Place:
    for inside in _INSIDE:
        path = os.path.join(folder, *inside.split("/"))
        if os.path.lexists(path) and not os.path.isdir(path):
            return _interpreter(path, folder)
    for usual in (".venv", "venv"):
        if os.path.isfile(os.path.join(folder, usual, "pyvenv.cfg")):
            return _in_folder(os.path.join(folder, usual))
    if os.path.isfile(os.path.join(folder, "pyvenv.cfg")):
        wanted = os.path.join(folder, "Scripts" if os.name == "nt" else "bin")
        fault = f"{folder} is a virtual environment without an interpreter: there is no python in {wanted}."
        return Place(os.path.join(folder, "bin", "python"), folder, fault)
    raise EnvironmentUnreadable(
        f"{folder} is a folder, but no virtual environment: it has neither pyvenv.cfg nor bin/python"
        f" nor Scripts/python.exe. {_ALLOWED}"
    )


def _interpreter(path: str, folder: str | None = None) -> Place:
    folder = folder or _around(path)
    if not os.path.exists(path):
        gone = os.path.join(os.path.dirname(path), os.readlink(path)) if os.path.islink(path) else path
        seen = {path}
        while os.path.islink(gone) and gone not in seen:
            seen.add(gone)
            gone = os.path.join(os.path.dirname(gone), os.readlink(gone))
        fault = f"{path} is a link to {os.path.normpath(gone)}, which is not there."
        if folder is None:
            raise EnvironmentUnreadable(f"{fault} {_ALLOWED}")
        return Place(path, folder, f"{fault} The Python that this environment was made with is gone.")
    names = {os.path.basename(path), os.path.basename(os.path.realpath(path))}
    if not any(_INTERPRETER.fullmatch(name) for name in names):
        raise EnvironmentUnreadable(f"{path} is no Python interpreter by its name, so it is not run. {_ALLOWED}")
    if not os.access(path, os.X_OK):
        fault = f"{path} is there but may not be executed: chmod +x it, or name another interpreter."
        if folder is None:
            raise EnvironmentUnreadable(fault)
        return Place(path, folder, fault)
    return Place(path, folder)


def _around(path: str) -> str | None:
    """Return the virtual environment or conda prefix that an interpreter's path lies in."""
    for folder in list(Path(path).parents)[:2]:
        if (folder / "pyvenv.cfg").is_file() or (folder / "conda-meta").is_dir():
            return str(folder)
    return None
