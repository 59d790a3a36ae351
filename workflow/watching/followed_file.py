"""A file that another process writes to, read as it grows."""

from pathlib import Path


class FollowedFile:
    """Reads what was added since the last time, line by line.

    Args:
        path: the file; it need not be there yet.
        start: byte to begin at.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self._path, self._place, self._rest = path, start, b""

    def lines(self) -> list[str]:
        """Return the whole lines that were added; a carriage return ends a line, as a bar of progress has it."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._place)
                added = stream.read()
        except OSError:
            return []
        self._place += len(added)
        *whole, self._rest = (self._rest + added).replace(b"\r", b"\n").split(b"\n")
        return [line.decode("utf-8", errors="replace") for line in whole if line.strip()]
