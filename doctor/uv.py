"""uv, where it is: a program that installs packages. It is never needed, only asked where it is there."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping


def find_uv() -> tuple[str, ...]:
    """Return the words that call uv, empty where it is neither on PATH nor installed beside this Python."""
    program = shutil.which("uv")
    if program:
        return (program,)
    return (sys.executable, "-m", "uv") if importlib.util.find_spec("uv") else ()


def uv_environment() -> Mapping[str, str]:
    """Return the variables for uv: those of the user, so that indexes and its cache are theirs, without what names an
    environment of theirs."""
    left_out = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON")
    kept = {key: value for key, value in os.environ.items() if key not in left_out}
    # Without a network each of many tries would wait for several retries; the user's own setting holds.
    patience = {"UV_HTTP_RETRIES": "1", "UV_HTTP_TIMEOUT": "20"}
    return patience | kept | {"UV_NO_PROGRESS": "1", "NO_COLOR": "1", "UV_PYTHON_DOWNLOADS": "never"}
