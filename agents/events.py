"""What a run tells while it goes on: for the screen and the page. Nothing follows from it, so it may be lost."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 1 << 16


ERROR = "error"
"""The node of what has ended a run before its end."""


@dataclass(frozen=True)
class Told:
    """Something that was told.

    Attributes:
        time: seconds since 1970.
        node: name of the node that began, `answer`, `error` for what ended the run, or "" for a line of a process.
        text: the line.
    """

    time: float
    node: str
    text: str


class Events:
    """The events of a run, a JSON object a line.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, node: str, text: str) -> None:
        """Add an event."""
        line = json.dumps({"time": round(time.time(), 3), "node": node, "text": text}, ensure_ascii=False)
        with self._path.open("a", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(f"{line}\n")

    @property
    def size(self) -> int:
        """Bytes that are there: another number when something was told."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def last(self, count: int, before: int | None = None) -> tuple[list[Told], int]:
        """Return the last events, the oldest first.

        Args:
            count: how many at most.
            before: byte that they end before; None for the end of the file.

        Returns:
            The events, and the byte at which the first of them begins: 0 where there are no earlier ones.
        """
        try:
            with self._path.open("rb") as stream:
                end = stream.seek(0, os.SEEK_END) if before is None else before
                begin, content = end, b""
                while begin > 0 and content.count(b"\n") <= count:
                    step = min(_BLOCK, begin)
                    begin -= step
                    stream.seek(begin)
                    content = stream.read(step) + content
        except OSError:
            return [], 0
        lines = content.split(b"\n")
        if begin > 0:
            begin += len(lines[0]) + 1
            lines = lines[1:]
        lines = [line for line in lines if line]
        dropped = lines[:-count] if len(lines) > count else []
        begin += sum(len(line) + 1 for line in dropped)
        return [told for line in lines[len(dropped) :] if (told := _told(line)) is not None], begin


def _told(line: bytes) -> Told | None:
    try:
        value = json.loads(line)
        return Told(float(value["time"]), str(value["node"]), str(value["text"]))
    except (ValueError, KeyError, TypeError):
        return None  # torn by a kill
