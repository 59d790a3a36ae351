"""The command line `python tune.py`, where what it needs is there."""

import importlib
import importlib.util
import sys

_NEEDED = {"langgraph": "langgraph", "langgraph.checkpoint.sqlite": "langgraph-checkpoint-sqlite"}
_USAGE = 2


def main(words: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        words: command-line arguments; None takes those of the process.

    Returns:
        The exit code; 2 where a package is missing.
    """
    missing = [package for module, package in _NEEDED.items() if not _is_there(module)]
    if missing:
        sys.stderr.write(
            f"error: tuning needs {' and '.join(missing)}, which {sys.executable} has not: "
            "`make tune`; without make: pip install -r requirements-agents.txt\n"
        )
        return _USAGE
    code: int = importlib.import_module("agents.commands").main(words)
    return code


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that it is in
        return False
