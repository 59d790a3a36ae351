"""Environment variables of a project: those of the process, and of its .env."""

import os
import re
from pathlib import Path

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")


def environment_of(folder: Path) -> dict[str, str]:
    """Return the variables that the steps of a project see; the process's own win over those of .env.

    Args:
        folder: the project's folder.
    """
    found: dict[str, str] = {}
    try:
        lines = (folder / ".env").read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    for line in lines:
        match = _LINE.match(line)
        if match and not line.lstrip().startswith("#"):
            value = match[2]
            if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
                value = value[1:-1]
            elif " #" in value:
                value = value.split(" #", 1)[0].rstrip()
            found[match[1]] = value
    return {**{key: value for key, value in found.items() if value}, **os.environ}
