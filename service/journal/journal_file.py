"""One file of a journal: records, each with a number and a checksum, one behind the other.

    mark "rec\\n", number, length of the fields, length of the content, CRC-32 of all of it | fields (JSON) | content

Numbers go up by one from record to record, through all files of a journal. A process that is killed while it writes
leaves half a record at the end, which nobody was told of: it is cut. What can't be read and has a whole record behind
it is damage, and so is a number that is missing; both are refused.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEAD = struct.Struct("<4sQIII")
_MARK = b"rec\n"
_CHECKED_FROM = 4  # bytes of the head that the checksum leaves out: the mark; and the checksum itself, at its end


class JournalError(Exception):
    """A journal that can't be gone on with: says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Place:
    """Where a record lies.

    Attributes:
        path: the file.
        begin: its first byte.
        end: the byte behind its last.
    """

    path: Path
    begin: int
    end: int

    def read(self) -> bytes:
        """Return the whole record, as it is in the file.

        Raises:
            OSError: it can't be read.
        """
        with self.path.open("rb") as stream:
            stream.seek(self.begin)
            return stream.read(self.end - self.begin)


@dataclass(frozen=True)
class Record:
    """One record; its content stays in the file until somebody asks for it.

    Attributes:
        number: its number.
        fields: what it says.
        place: where it lies.
    """

    number: int
    fields: Mapping[str, Any]
    place: Place

    def content(self) -> bytes:
        """Return its content.

        Raises:
            JournalError: it can't be read, or isn't what was written any more.
        """
        try:
            found = _parsed(memoryview(self.place.read()), 0)
        except OSError as error:
            raise JournalError(f"{self.place.path} can't be read: {error.strerror or error}") from error
        if found is None:
            raise JournalError(f"{self.place.path} has changed since it was read: record {self.number} is damaged")
        return bytes(found[2])


def packed(number: int, fields: Mapping[str, Any], content: bytes = b"") -> bytes:
    """Return a record as it lies in a file.

    Args:
        number: its number.
        fields: what it says, as JSON has it.
        content: further bytes.
    """
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    head = _HEAD.pack(_MARK, number, len(text), len(content), 0)[_CHECKED_FROM:-4]
    check = zlib.crc32(content, zlib.crc32(text, zlib.crc32(head)))
    return b"".join((_HEAD.pack(_MARK, number, len(text), len(content), check), text, content))


def read_file(path: Path, number: int | None, last: bool) -> tuple[list[Record], int]:
    """Read a file.

    Args:
        path: the file.
        number: number that its first record must have; None where records were picked out of other files.
        last: whether half a record may be at its end: it is the file that was written to last.

    Returns:
        Its records, and the byte behind the last whole one.

    Raises:
        JournalError: it is damaged, or can't be read.
    """
    try:
        content = memoryview(path.read_bytes())
    except OSError as error:
        raise JournalError(f"{path} can't be read: {error.strerror or error}") from error
    records: list[Record] = []
    at = 0
    while at < len(content):
        found = _parsed(content, at)
        if found is None:
            behind = _next_whole(content, at + 1)
            if behind is not None or not last:
                what = f"whole records follow it from byte {behind}" if behind is not None else "others follow the file"
                raise JournalError(
                    f"{path} is damaged at byte {at}, in its record {len(records) + 1}, and {what}: so it was not cut "
                    "off by a kill. Put the folder back from a copy, or serve from another folder"
                )
            break
        if number is not None and found[0] != number + len(records):
            raise JournalError(
                f"{path}: record {found[0]} is where record {number + len(records)} should be: a part of the journal "
                "is missing. Put the folder back from a copy, or serve from another folder"
            )
        records.append(Record(found[0], found[1], Place(path, at, found[3])))
        at = found[3]
    return records, at


def _parsed(content: memoryview, at: int) -> tuple[int, Mapping[str, Any], memoryview, int] | None:
    """Return number, fields, content and end of the record at a byte; None where there is no whole one."""
    if len(content) - at < _HEAD.size:
        return None
    mark, number, text_size, size, check = _HEAD.unpack_from(content, at)
    begin = at + _HEAD.size
    end = begin + text_size + size
    if mark != _MARK or end > len(content):
        return None
    inside = content[begin + text_size : end]
    text = content[begin : begin + text_size]
    head = content[at + _CHECKED_FROM : begin - 4]
    if zlib.crc32(inside, zlib.crc32(text, zlib.crc32(head))) != check:
        return None
    return number, json.loads(bytes(text).decode("utf-8", "surrogatepass")), inside, end


def _next_whole(content: memoryview, at: int) -> int | None:
    """Return where the next whole record begins."""
    whole = content.obj if isinstance(content.obj, bytes) else bytes(content)
    while (at := whole.find(_MARK, at)) >= 0:
        if _parsed(content, at) is not None:
            return at
        at += 1
    return None
