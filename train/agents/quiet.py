"""What agents print goes to a file, not between the lines of the run."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, cast

OUTPUT = "agent_output.txt"
LONGEST, _KEPT = 2**26, 2**20  # bytes of what agents have printed as rollouts begin; what is kept of more


class _ByThread:
    """Standard output that asks which thread writes.

    Args:
        usual: where all other threads write.
        other: where those that were named write.
    """

    def __init__(self, usual: TextIO, other: TextIO) -> None:
        self._usual, self._other = usual, other
        self._names = threading.local()

    def divert(self) -> None:
        """Let what this thread writes from now on go to the other place."""
        self._names.diverted = True

    def _target(self) -> TextIO:
        return self._other if getattr(self._names, "diverted", False) else self._usual

    def write(self, text: str) -> int:
        """Write where the thread's text goes."""
        try:
            return self._target().write(text)
        except ValueError:  # a thread that outlives its rollouts, whose file is closed
            return len(text)

    def flush(self) -> None:
        """Flush where the thread's text goes."""
        with suppress(ValueError):
            self._target().flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._usual, name)

    def __eq__(self, other: object) -> bool:
        """Stand for the usual output: bars of the terminal give way to its lines by asking whether it is the same."""
        return other is self or other is self._usual

    def __hash__(self) -> int:
        return hash(self._usual)


class AgentOutput:
    """Where the threads of agents print to, inside `taken`.

    Args:
        path: file that is added to; None drops all.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._proxies: list[_ByThread] = []

    @contextmanager
    def taken(self) -> Iterator[TextIO]:
        """Take standard output of threads that call `divert`, for a block. Yields the file."""
        before = sys.stdout
        if self.path is not None:
            _shorten(self.path)
        with open(self.path or os.devnull, "a", encoding="utf-8", buffering=1) as stream:
            proxy = _ByThread(before, stream)
            self._proxies.append(proxy)
            sys.stdout = cast(TextIO, proxy)
            try:
                yield stream
            finally:
                sys.stdout = before
                self._proxies.remove(proxy)

    def divert(self) -> None:
        """Let what this thread prints go to the file."""
        for proxy in self._proxies:
            proxy.divert()


def _shorten(path: Path) -> None:
    """Leave the end of a file that has grown too long; who has it open adds to that."""
    with suppress(OSError):
        length = path.stat().st_size
        if length <= LONGEST:
            return
        with open(path, "r+b") as stream:
            stream.seek(length - _KEPT)
            rest = stream.read().partition(b"\n")[2]
            stream.seek(0)
            stream.write(b"(what was printed before is left out: it was too much)\n" + rest)
            stream.truncate()
