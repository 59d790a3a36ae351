"""Writing files so that a reader sees the old one or the new one, never half of one."""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.errors import OutputError

TEMPORARY = ".tmp"  # what the name of a file or folder ends with that is not complete yet
_PART = 2**26  # bytes of a write: the system takes at most 2 GiB at once


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def output_errors(path: Path, setting: str = "artifacts_dir") -> Iterator[None]:
    """Turn a failed write under `path` into an `OutputError` that says what failed, and what to do about that.

    Args:
        path: file or folder that is written.
        setting: key of config.ini by which a person chooses where that is.
    """
    from safetensors import SafetensorError  # reports a full disk by this, not by OSError

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = f"{_reason(error)}{_space_left(path, error)}. {_remedy(path, error, setting)}"
        raise OutputError(f"cannot write {path}: {reason}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _space_left(path: Path, error: Exception) -> str:
    """Say how much space is left, where that may be what is wrong."""
    if isinstance(error, OSError) and error.errno is not None and error.errno not in _FULL:
        return ""
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):  # it isn't there, or may not be looked at
            return f" ({shutil.disk_usage(folder).free:,} bytes free on that file system)"
    return " (free space unknown)"


def _remedy(path: Path, error: Exception, setting: str) -> str:
    code = error.errno if isinstance(error, OSError) else None
    elsewhere = f"set {setting} to another folder"
    there = next((each for each in (path, *path.parents) if os.path.lexists(each)), path.parent)
    if code in (errno.ENOTDIR, errno.EEXIST):
        return f"{there} is a file where a folder should be: move it away, or {elsewhere}."
    if code == errno.EISDIR:
        return f"{there} is a folder where a file should be: move it away, or {elsewhere}."
    folder = there if there.is_dir() else there.parent
    if code in (errno.EACCES, errno.EPERM):
        return f"Give this user the right to write in {folder}, or {elsewhere}."
    if code == errno.EROFS:
        return f"{folder} can only be read: {elsewhere}."
    if code == errno.ENOENT:
        return f"{folder} is there, the rest can't be made (was a folder removed meanwhile?): {elsewhere}."
    if code == errno.ENAMETOOLONG:
        return f"Give the run a shorter path: {elsewhere}."
    if code in (errno.EMFILE, errno.ENFILE):
        return "Too many files are open: raise `ulimit -n`, or set num_workers lower; what was saved before is intact."
    if code in (errno.EIO, getattr(errno, "ESTALE", errno.EIO)):
        return f"The disk, or the network drive, fails: look at it, or {elsewhere}."
    return f"Free some space or set {setting} to another disk; what was saved before is intact."


def write_atomically(
    path: Path,
    content: bytes | Callable[[Path], Any],
    durable: bool = True,
    owner: str | None = None,
    setting: str = "artifacts_dir",
) -> None:
    """Write a file beside its destination and move it into place.

    Args:
        path: destination of the file; the folder is made.
        content: bytes to write, or function that is called with a temporary path in the same folder and writes them
            there.
        durable: whether to wait until the content is on disk (fsync of file and folder).
        owner: name of the writer, part of the temporary file's name, so that several may write at a time; None takes
            the id of this process.
        setting: key of config.ini by which a person chooses where the file is.

    Raises:
        OutputError: it can't be written; the old file is as it was and the temporary one is gone.
    """
    temporary = path.with_name(f".{path.name}.{owner or os.getpid()}{TEMPORARY}")
    with output_errors(path, setting):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                write_file(temporary, b"", durable=False)
                mode = temporary.stat().st_mode
                content(temporary)
                if temporary.stat().st_mode != mode:  # some libraries let nobody but the owner read what they write
                    temporary.chmod(stat.S_IMODE(mode))
                if durable:
                    sync(temporary)
            else:
                write_file(temporary, content, durable)
            os.replace(temporary, path)
            if durable:
                sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_arrays(path: Path, arrays: Mapping[str, Any], setting: str = "artifacts_dir") -> None:
    """Write numpy arrays atomically to a file that `numpy.load` reads without unpickling.

    Args:
        path: the file.
        arrays: arrays by name.
        setting: as in `write_atomically`.
    """
    import numpy

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:  # given a path, savez would add an ending to it
            numpy.savez(stream, **arrays)

    write_atomically(path, write, setting=setting)


def write_file(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a file where it is; `durable` also waits until it is on disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest[:_PART]) :]
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits; the file may be larger than memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed process left of files that it was writing, in a folder and those inside it."""
    for path in list(folder.rglob(f".*{TEMPORARY}")):  # all are found before the first one goes
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def write_json(path: Path, content: Any, durable: bool = False) -> None:
    """Write JSON atomically; numbers that JSON doesn't have (NaN, infinity) become null."""
    text = json.dumps(jsonable(content), indent=1)
    write_atomically(path, f"{text}\n".encode(), durable)


def jsonable(value: Any) -> Any:
    """Turn a tree into what JSON has. A tensor with one element becomes its number (a synchronisation)."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if hasattr(value, "item") and getattr(value, "size", None) is not None:
        return jsonable(value.item()) if _count(value) == 1 else jsonable(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def _count(array: Any) -> int:
    return array.numel() if hasattr(array, "numel") else array.size


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
