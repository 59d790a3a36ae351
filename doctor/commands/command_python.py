"""Which Python a command runs, told from its words: an interpreter, a console script, `uv run`."""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

_PYTHON = re.compile(r"(python|pypy)w?\d*(\.\d+)*t?(\.exe)?", re.IGNORECASE)
# Commands that run the rest of the words, and their options that take a word.
_AROUND = {
    "env": ("-u", "-C", "-S"), "nice": ("-n",), "ionice": ("-c", "-n"), "nohup": (), "time": ("-o", "-f"), "stdbuf": (),
    "timeout": ("-s", "-k"), "taskset": (), "numactl": (), "sudo": ("-u", "-g"), "xvfb-run": ("-s",),
}  # fmt: skip


@dataclass(frozen=True)
class UsedPython:
    """What a command runs.

    Args:
        python: interpreter or environment; None where it can't be told.
        folder: folder of its script, whose files may hide modules; None where it runs none.
    """

    python: str | None
    folder: str | None


def python_of(words: Sequence[str]) -> UsedPython:
    """Tell which Python a command runs, and in which folder its script lies."""
    rest = _inner(list(words))
    if not rest:
        return UsedPython(None, None)
    name = Path(rest[0]).name
    if name == "uv" and "run" in rest[1:3]:
        return UsedPython(_of_uv(rest), _folder_of(rest))
    found = shutil.which(rest[0])
    if found is None:
        return UsedPython(None, None)
    if _PYTHON.fullmatch(name):
        return UsedPython(found, _folder_of(rest[1:]))
    python = _shebang(Path(found))
    own = None if os.path.dirname(found) in os.environ.get("PATH", "").split(os.pathsep) else os.path.dirname(found)
    return UsedPython(python, _folder_of(rest[1:]) or own)


def _inner(words: list[str]) -> list[str]:
    """Return the command that others such as nice and env are put before."""
    while words and (name := Path(words[0]).name) in _AROUND:
        words = words[1:]
        while words and (
            words[0].startswith("-") or "=" in words[0] or (name in ("timeout", "taskset") and words[0][0].isdigit())
        ):
            words = words[2:] if words[0] in _AROUND[name] else words[1:]
    return words


def _folder_of(words: list[str]) -> str | None:
    """Return the folder of the script that an interpreter's words name; None for -c, -m and none."""
    for word in words:
        if word in ("-c", "-m", "-"):
            return None
        if word.endswith(".py") and os.path.isfile(word):
            return os.path.dirname(os.path.abspath(word))
    return None


def _of_uv(words: list[str]) -> str | None:
    for option, value in pairwise(words):
        if option in ("--python", "-p") and (os.path.exists(value)):
            return value
        if option in ("--project", "--directory") and os.path.exists(os.path.join(value, ".venv")):
            return os.path.join(value, ".venv")
    if any(word in ("--with", "--script", "--isolated", "--no-project") for word in words):
        return None  # an environment of uv's own
    return next(
        (str(folder / ".venv") for folder in (Path.cwd(), *Path.cwd().parents) if (folder / ".venv").is_dir()), None
    )


def _shebang(script: Path) -> str | None:
    """Return the interpreter that a script's first lines name."""
    try:
        with script.open("rb") as stream:
            head = stream.read(1024)
    except OSError:
        return None
    if not head.startswith(b"#!"):
        return None
    lines = head.decode("utf-8", errors="replace").splitlines()
    for line in lines[:2]:  # a long path stands in the second one, behind `'''exec'`
        for word in re.findall(r"[^\s\"']+", line.removeprefix("#!")):
            if _PYTHON.fullmatch(Path(word).name):
                return word if os.path.isabs(word) else shutil.which(word)
    return None
