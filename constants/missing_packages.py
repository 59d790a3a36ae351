"""A Python that lacks what Menagerie needs: mostly the system's, where that of .venv was meant."""

import importlib
import os
import shlex
import sys
from typing import NoReturn

from constants.environment_faults import doctor_hint
from constants.paths import IS_CHECKOUT, PACKAGE_ROOT
from constants.program import command

# What requirements.txt names, and what comes with it, by the names that are imported; all others are for features.
_NEEDED = {
    "annotated_types": "pydantic", "beautilog": "beautilog", "matplotlib": "matplotlib", "numpy": "numpy",
    "packaging": "packaging", "pydantic": "pydantic", "safetensors": "safetensors", "scipy": "scikit-learn",
    "sklearn": "scikit-learn", "torch": "torch", "tqdm": "tqdm", "yaml": "pyyaml",
}  # fmt: skip
_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130


def run_command(called: str, module: str) -> NoReturn:
    """Run a command line and leave with its exit code: 2 where this Python lacks a package, and 130 on Ctrl-C.

    Args:
        called: train, plot, recommend or evaluate.
        module: its module, whose `main()` returns the exit code.
    """
    try:
        sys.exit(importlib.import_module(module).main())
    except Exception as error:
        lacks = explain_missing_package(error.name, called) if isinstance(error, ModuleNotFoundError) else None
        if lacks is not None:
            sys.stderr.write(f"error: {lacks}\n")
            sys.exit(_USAGE)
        hint = doctor_hint(error, called)
        if hint is None:
            raise
        sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.write(f"{hint}\n")
        sys.exit(_FAILED)
    except KeyboardInterrupt:  # while packages are imported, which takes seconds; later the module's own word holds
        sys.stderr.write("error: interrupted\n")
        sys.exit(_INTERRUPTED)


def explain_missing_package(name: str | None, called: str) -> str | None:
    """Say that this Python lacks a package that Menagerie needs, and how to come to one that has it.

    Args:
        name: what could not be imported, the `name` of a ModuleNotFoundError.
        called: command line that was called: train, plot, recommend or evaluate.

    Returns:
        The sentence; None where Menagerie does without that package.
    """
    if name not in _NEEDED:
        return None
    text = f"{sys.executable} has no {_NEEDED[name]}, which Menagerie needs"
    if not IS_CHECKOUT:
        return f"{text}: {shlex.quote(sys.executable)} -m pip install {_NEEDED[name]}"
    own = PACKAGE_ROOT / ".venv" / "bin" / "python"
    if own.exists() and os.path.abspath(sys.executable) != str(own):
        words = command(called).partition(" ")[2]
        return (
            f"{text}. The one that `make` has set up is called so: {os.path.relpath(own)} {words} ...\n"
            f"or, for all commands in this shell: source {os.path.relpath(own.with_name('activate'))}"
        )
    return f"{text}. `make train` sets up .venv with all of it; without make: pip install -r requirements.txt"
