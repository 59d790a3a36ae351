"""A log or traceback as it is given: a file, or what is piped in."""

import contextlib
import os
import select
import stat
import sys

from doctor.errors import InputError
from doctor.failure.facts import Failure
from doctor.failure.read import read_failure_file

_PATIENCE = 2.0  # seconds that a pipe may be silent where no person waits
_ALLOWED = "a file is allowed, or - for what is piped in"


def read_given(name: str) -> Failure:
    """Return the failure that a log tells of.

    Args:
        name: a path, or "-" for what is piped in.

    Raises:
        InputError: it can't be read, or holds nothing.
    """
    if name == "-" and sys.stdin.isatty():
        sys.stderr.write("Paste the traceback, then Ctrl-D:\n")
    path = name if name == "-" else os.path.expanduser(name)
    try:
        failure = read_failure_file(path)
    except IsADirectoryError:
        raise InputError(f"--traceback {name}: it is a folder; {_ALLOWED}") from None
    except FileNotFoundError:
        raise InputError(f"--traceback {name}: there is no such file; {_ALLOWED}") from None
    except OSError as error:
        raise InputError(f"--traceback {name}: it can't be read: {error.strerror or error}") from None
    if not (failure.text.strip() or failure.raised or failure.lines):
        raise InputError(f"--traceback {name}: it is empty")
    return failure


def read_piped(alone: bool) -> Failure | None:
    """Return the failure that is piped in without being asked for; None where nothing is.

    Args:
        alone: whether nothing else was given, so that a pipe is waited for as long as a person is there to stop it.
    """
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return None
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
        return None
    if not stat.S_ISREG(mode):
        with contextlib.suppress(OSError, ValueError):
            patience = None if alone and sys.stderr.isatty() else _PATIENCE if alone else _PATIENCE / 10
            if not select.select([sys.stdin.buffer], [], [], patience)[0]:
                return None
    failure = read_failure_file("-")
    return failure if failure.text.strip() or failure.raised or failure.lines else None
