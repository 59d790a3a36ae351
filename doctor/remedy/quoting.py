"""Words as a shell takes them: bash and PowerShell."""

import re
import shlex


def for_bash(*words: str) -> str:
    """Return a command line for bash and zsh."""
    return " ".join(shlex.quote(word) for word in words)


def for_powershell(*words: str) -> str:
    """Return a command line for PowerShell; a program whose path must be quoted is called by `&`."""
    quoted = [word if re.fullmatch(r"[A-Za-z0-9_.:\\/=+-]+", word) else _single(word) for word in words]
    return ("& " if quoted[0].startswith("'") else "") + " ".join(quoted)


def _single(word: str) -> str:
    return "'" + word.replace("'", "''") + "'"
