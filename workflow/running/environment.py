"""Environment variables of a project: those of the process, and of its .env."""

import os
import re
from pathlib import Path

_QUOTED = re.compile(r"""(['"])(.*?)\1\s*(?:#.*)?$""")
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
            quoted = _QUOTED.match(match[2])
            found[match[1]] = quoted[2] if quoted else match[2].split(" #", 1)[0].rstrip()
    return {**{key: value for key, value in found.items() if value}, **os.environ}
