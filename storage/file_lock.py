"""A lock on a folder that goes with its process, however that ends."""

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


def _leave_to_parent() -> None:
    """In a forked worker: a copy of the handle would hold the lock for as long as the worker outlives its parent."""
    for lock in list(_HELD):
        with contextlib.suppress(OSError):
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
