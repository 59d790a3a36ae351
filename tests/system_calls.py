"""Stands between a process and the system calls by which files change: to count them, to fail, to die at one."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("open", "write", "fsync", "close", "replace", "mkdir", "unlink", "rmdir")

Between = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@contextmanager
def between_calls(between: Between) -> Iterator[None]:
    """Let each call of os.open, os.write and so on go through a function.

    Args:
        between: takes the call's name, the real call and its arguments; it is for it to call.
    """

    def stand_in(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: between(name, real, args, kwargs)

    before = {name: getattr(os, name) for name in NAMES}
    for name, real in before.items():
        setattr(os, name, stand_in(name, real))
    try:
        yield
    finally:
        for name, real in before.items():
            setattr(os, name, real)


class Death:
    """Counts calls, and kills the process by SIGKILL at one of them.

    Args:
        at: which, from 1; 0 only counts.
        how: `before` or `after` that call; `half`: of the calls of os.write the `at`-th, when half of its bytes are
            written.

    Attributes:
        calls, writes: how many there were.
    """

    def __init__(self, at: int = 0, how: str = "before") -> None:
        self.at, self.how = at, how
        self.calls = self.writes = 0
        self._process = os.getpid()

    def __call__(self, name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Stand between, for `between_calls`."""
        if os.getpid() != self._process:  # a worker of a loader
            return real(*args, **kwargs)
        self.calls += 1
        self.writes += name == "write"
        if self.how == "half":
            if name == "write" and self.writes == self.at:
                handle, content = args
                real(handle, memoryview(content)[: len(content) // 2])
                self._die()
            return real(*args, **kwargs)
        here = self.calls == self.at
        if here and self.how == "before":
            self._die()
        try:
            return real(*args, **kwargs)
        finally:  # it may have failed, such as the unlink of what is not there
            if here:
                self._die()

    def _die(self) -> None:
        os.kill(self._process, signal.SIGKILL)


class FullDisk:
    """A file system on which there is room for some more bytes.

    Args:
        room: for so many.
        parts: only files whose path has one of these in it, when they are opened, are on it.
    """

    def __init__(self, room: int, *parts: str) -> None:
        self.room, self._parts = room, parts or ("",)
        self._handles: set[int] = set()

    def __call__(self, name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Stand between, for `between_calls`."""
        if name == "open":
            handle = real(*args, **kwargs)
            if any(part in str(args[0]) for part in self._parts):
                self._handles.add(handle)
            return handle
        if name == "close":
            self._handles.discard(args[0])
        if name != "write" or args[0] not in self._handles:
            return real(*args, **kwargs)
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(args[0], memoryview(args[1])[: self.room])  # a system writes what there is room for
        self.room -= written
        return written


class Refusal:
    """A file system that refuses one kind of call on paths of some name.

    Args:
        call: such as `mkdir`.
        number: the error, such as errno.EROFS.
        part: the path has this in it (for `replace`, the first one).
    """

    def __init__(self, call: str, number: int, part: str) -> None:
        self._call, self._number, self._part = call, number, part

    def __call__(self, name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Stand between, for `between_calls`."""
        if name == self._call and self._part in str(args[0]):
            raise OSError(self._number, os.strerror(self._number), str(args[0]))
        return real(*args, **kwargs)
