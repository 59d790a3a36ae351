"""A file on a server as a file to read, of which only the parts that are read are fetched."""

import io
import zipfile
from collections.abc import Callable, Iterable

# Ranges of a file that lie closer than this are asked for as one.
_GAP = 64 << 10


class RangeFile(io.RawIOBase):
    """A file on a server, of which only the parts that are read are fetched.

    Args:
        get: fetches bytes [begin, end).
        size: its bytes.
    """

    _TAIL = 64 << 10

    def __init__(self, get: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._get = get
        self._size = size
        self._at = 0
        self._parts: list[tuple[int, bytes]] = []
        self.fetched = 0

    def seekable(self) -> bool:
        """Return True: any part can be read."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set where the next read begins, and return it."""
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return bytes from here on, fetched where they are not there yet."""
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        if end <= self._at:
            return b""
        for begin, part in self._parts:
            if begin <= self._at and end <= begin + len(part):
                found = part[self._at - begin : end - begin]
                break
        else:
            # The end of a zip file is read in small steps, backwards: once is enough.
            begin = min(self._at, max(0, self._size - self._TAIL)) if end > self._size - self._TAIL else self._at
            found = self.fetch(begin, end)[self._at - begin :]
        self._at = end
        return found

    def fetch(self, begin: int, end: int) -> bytes:
        """Fetch bytes [begin, end), keep them for later reads and return them."""
        part = self._get(begin, end)
        if len(part) != end - begin:
            raise OSError("the server sent another number of bytes")
        self.fetched += len(part)
        self._parts.append((begin, part))
        return part

    def fetch_members(self, archive: zipfile.ZipFile, members: Iterable[zipfile.ZipInfo]) -> None:
        """Fetch members of an archive that lies in this file, neighbours in one request."""
        ranges: list[list[int]] = []
        for member in sorted(members, key=lambda one: one.header_offset):
            begin = member.header_offset
            end = min(self._size, begin + 30 + len(member.orig_filename.encode()) + 1024 + member.compress_size)
            if ranges and begin - ranges[-1][1] < _GAP:
                ranges[-1][1] = max(end, ranges[-1][1])
            else:
                ranges.append([begin, end])
        for begin, end in ranges:
            self.fetch(begin, end)

    def forget(self) -> None:
        """Free what was fetched."""
        self._parts.clear()
