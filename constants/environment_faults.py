"""Errors that come of the environment, not of the program: what `doctor.py run` explains."""

import os
import re
import shlex
import sys
from pathlib import Path

from constants.program import called, command

UNDER_DOCTOR = "MENAGERIE_DOCTOR"
"""Variable that is set for a command that `doctor.py run` has started."""
_OF_LIBRARIES = re.compile(
    r"undefined symbol|cannot open shared object file|GLIBC(?:XX)?_\d|DLL load failed|Library not loaded|"
    r"cannot import name|numpy\.(?:core\.multiarray|dtype size changed)|compiled using NumPy|is required for a normal "
    r"functioning of this module|version mismatch|_ARRAY_API"
)
_OF_CUDA = re.compile(
    r"no kernel image is available|CUDA driver version is insufficient|NVIDIA driver|Torch not compiled with CUDA|"
    r"libcud(?:a|art|nn)|libcublas|CUDA (?:unknown|initialization) error|CUDNN_STATUS_(?:NOT_INITIALIZED|VERSION)|"
    r"is not compatible with the current PyTorch installation"
)


def is_environment_fault(error: BaseException) -> bool:
    """Return whether an error, or one that it comes of, says that the environment is broken.

    Args:
        error: as it was caught: a failed import of a library or of what it needs, a linker's, or of CUDA's driver and
            build. A module of the user's own that is missing is none.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        text = str(cause)
        if isinstance(cause, ModuleNotFoundError):
            if _in_library(cause):
                return True
        elif isinstance(cause, ImportError):
            path = cause.path or ""
            if _OF_LIBRARIES.search(text) and (_is_of_library(path) or not path or _in_library(cause)):
                return True
        elif isinstance(cause, OSError | RuntimeError | AssertionError | AttributeError | ValueError) and (
            _OF_CUDA.search(text) or (_OF_LIBRARIES.search(text) and "import name" not in text)
        ):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def doctor_hint(error: BaseException, name: str) -> str | None:
    """Return the line that names the command which explains an error.

    Args:
        error: as it was caught.
        name: train, recommend, serve, ...: what was called.

    Returns:
        The line; None where the error isn't the environment's, or the doctor runs the command already.
    """
    if name == "doctor" or UNDER_DOCTOR in os.environ or not is_environment_fault(error):
        return None
    again = f"{called(name, Path.cwd())} {shlex.join(sys.argv[1:])}".rstrip()
    return f"Why, and what mends it: {command('doctor')} run -- {again}"


def _in_library(error: BaseException) -> bool:
    """Return whether an error was raised in the code of a library."""
    trace = error.__traceback__
    frame = None
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith("<frozen"):
            frame = trace.tb_frame
        trace = trace.tb_next
    return frame is not None and _is_of_library(frame.f_code.co_filename)


def _is_of_library(path: str) -> bool:
    return bool(re.search(r"[/\\](?:site|dist)-packages[/\\]", path))
