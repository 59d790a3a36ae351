"""How the program's command lines are called, for its messages: `python train.py`, or `menagerie train`."""

import sys
from pathlib import Path

from constants.paths import PACKAGE_ROOT, PROJECT_ROOT

_SCRIPTS = {"train": "train.py", "plot": "plot.py", "recommend": "recommend.py", "evaluate": "-m evaluation"}


def command(name: str) -> str:
    """Say how whoever reads a message calls a command line.

    Args:
        name: train, plot, recommend or evaluate.

    Returns:
        `python train.py`, or `menagerie train` where that was called, or where the project is no checkout.
    """
    by_name = Path(sys.argv[0] if sys.argv else "").stem == "menagerie"
    return f"menagerie {name}" if by_name or PROJECT_ROOT != PACKAGE_ROOT else f"python {_SCRIPTS[name]}"
