"""Text files of users, whatever they turn out to be: too big, binary, in another encoding, not there."""

import codecs
import os
from pathlib import Path

from doctor.errors import InputError

LARGEST = 20 * 2**20
"""Bytes of a file that declares an environment. Locks of hundreds of packages take five million."""
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_text(path: Path) -> str:
    """Return a file's text with plain newlines.

    Raises:
        InputError: it can't be read, or is no text.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder")
        if not path.is_file():
            kind = "is no plain file" if os.path.lexists(path) else "is not there"
            raise InputError(f"{path} {kind}")
        if path.stat().st_size > LARGEST:
            size = path.stat().st_size / 2**20
            raise InputError(f"{path} has {size:.0f} MB, more than a file of requirements can have; "
                             "a log is given by --traceback")  # fmt: skip
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from None
    return decoded(data, str(path))


def decoded(data: bytes, name: str) -> str:
    """Return bytes as text with plain newlines.

    Raises:
        InputError: they are no text.
    """
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data[:65536]:
        raise InputError(f"{name} is no text: it has zero bytes")
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        if encoding:
            raise InputError(f"{name} is no text: it begins as {encoding} and goes on as something else") from None
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")
