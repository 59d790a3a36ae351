"""Locks on folders and files that go with their process, however that ends."""

import contextlib
import os
import weakref
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none; there a run is not locked
    fcntl = None  # type: ignore[assignment]  # there is no other way to say that a module may be missing

_HELD: "weakref.WeakSet[FolderLock]" = weakref.WeakSet()  # by this process


class FolderLock:
    """Only one process at a time has it. Nothing is left in the folder.

    Args:
        folder: existing folder to lock.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None

    def take(self, wait: bool = False) -> bool:
        """Take the lock and say whether it is ours; a file system without locks gives it to everybody.

        Args:
            wait: whether to wait until another process gives the lock back; False returns at once.
        """
        if fcntl is None or self._handle is not None:
            return True
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError:
            os.close(handle)
            return True
        self._handle = handle
        _HELD.add(self)
        return True

    def release(self) -> None:
        """Give it back."""
        if self._handle is not None:
            _HELD.discard(self)
            handle, self._handle = self._handle, None
            os.close(handle)

    def __del__(self) -> None:
        self.release()


def handed_lock(path: Path) -> int | None:
    """Lock a file by a handle that a child process may be handed, which then holds it for as long as it lives.

    Args:
        path: the file, made where it isn't there.

    Returns:
        The handle, to be closed here once the child has it; None where the system or its file system has no locks.

    Raises:
        OSError: another process holds it, or the file can't be opened.
    """
    if fcntl is None:
        return None
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise OSError(0, "it is still running", str(path)) from None
    except OSError:
        os.close(handle)
        return None
    os.set_inheritable(handle, True)
    return handle


def is_free(path: Path) -> bool:
    """Return whether no process holds the lock of a file; also where it isn't there, or nothing can be locked."""
    if fcntl is None or not path.exists():
        return True
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True


def _leave_to_parent() -> None:
    """In a forked worker: a copy of the handle would hold the lock for as long as the worker outlives its parent."""
    for lock in list(_HELD):
        with contextlib.suppress(OSError):
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
