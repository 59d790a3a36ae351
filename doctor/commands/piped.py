"""A log or traceback as it is given: a file, or what is piped in."""

import contextlib
import os
import select
import stat
import sys
from pathlib import Path
from typing import BinaryIO

from doctor.errors import InputError
from doctor.sources.text_file import decoded

_HEAD, _TAIL = 8 * 2**20, 24 * 2**20  # bytes that are kept of a longer log: the cause stands near its end, or its begin
_PATIENCE = 2.0  # seconds that a pipe may be silent where no person waits


def read_log(name: str) -> str:
    """Return a log's text, of a very long one its beginning and its end.

    Args:
        name: a path, or "-" for what is piped in.

    Raises:
        InputError: it can't be read, or is no text.
    """
    if name == "-":
        if sys.stdin.isatty():
            sys.stderr.write("Paste the traceback, then Ctrl-D:\n")
        return _text(sys.stdin.buffer, "what was piped in")
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            raise InputError(f"--traceback {name}: a folder; a file is allowed, or - for what is piped in")
        with path.open("rb") as stream:
            return _text(stream, name)
    except FileNotFoundError:
        raise InputError(f"--traceback {name}: there is no such file; a file is allowed, or - for what is piped in") from None
    except OSError as error:
        raise InputError(f"--traceback {name}: it can't be read: {error.strerror or error}") from None


def piped_text(alone: bool) -> str | None:
    """Return what is piped in without being asked for; None where nothing is.

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
    text = _text(sys.stdin.buffer, "what was piped in")
    return text if text.strip() else None


def _text(stream: BinaryIO, name: str) -> str:
    """Read a stream, and keep of a long one its beginning and its end."""
    head = stream.read(_HEAD)
    tail, left_out = bytearray(), 0
    while block := stream.read(2**20):
        tail += block
        if len(tail) > 2 * _TAIL:
            left_out += len(tail) - _TAIL
            del tail[:-_TAIL]
    if len(tail) > _TAIL and left_out:
        left_out += len(tail) - _TAIL
        del tail[:-_TAIL]
    middle = f"\n... {left_out} bytes are left out here ...\n".encode() if left_out else b""
    return decoded(head + middle + bytes(tail), name)
