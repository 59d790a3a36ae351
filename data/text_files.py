"""Rows of text as they lie in files: JSON lines, JSON, CSV, Parquet, text. Bytes are kept, errors know their line."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.chat_messages import SURROGATE, RowError, half_a_character, strings_of
from data.data_error import DataError

JSON_LINES, JSON, CSV, PARQUET, TEXT = "JSON lines", "JSON", "CSV", "Parquet", "text"
SUFFIXES = {
    ".jsonl": JSON_LINES, ".ndjson": JSON_LINES, ".json": JSON, ".csv": CSV, ".tsv": CSV, ".parquet": PARQUET,
    ".txt": TEXT, ".md": TEXT, ".text": TEXT,
}  # fmt: skip
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89abAB]|\\u[dD][c-fC-F]")
_WIDE = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_BOM = b"\xef\xbb\xbf"
_NOT_UTF8 = "wrong encoding: not UTF-8"
_ESCAPED_BYTES = {chr(0xDC00 + byte) for byte in range(0x80, 0x100)}  # what Python decodes bytes to that are no UTF-8
_LARGEST_CELL = 2**31 - 1


@dataclass(frozen=True)
class FileRow:
    """One row of a file.

    Attributes:
        place: where it is, such as `line 5`; in a folder with the file's name.
        value: its columns by name, or why it can't be read.
    """

    place: str
    value: Mapping[str, Any] | RowError


@dataclass(frozen=True)
class TextFiles:
    """Files of rows.

    Attributes:
        path: file or folder that was given.
        files: files that are read, in the order of their names, each with its kind.
        passed_over: names of files in the folder that are not read.
    """

    path: Path
    files: tuple[tuple[Path, str], ...]
    passed_over: tuple[str, ...] = ()

    @property
    def kinds(self) -> str:
        """The kinds of the files, such as `JSON lines`."""
        return " and ".join(dict.fromkeys(kind for _, kind in self.files))

    def digest(self) -> str:
        """Return the SHA-256 of what is in the files, one after another."""
        whole = hashlib.sha256()
        for file, _ in self.files:
            with _opened(file) as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
        return whole.hexdigest()

    def rows(self) -> Iterator[FileRow]:
        """Read all rows, those that can't be read too; blank lines are no rows.

        Raises:
            DataError: a file that can't be read at all.
        """
        for file, kind in self.files:
            several = self.path.is_dir()
            name = str(file.relative_to(self.path)) if several else ""
            for row in _READERS[kind](file):
                if not name:
                    yield row
                else:
                    yield FileRow(name if kind == TEXT else f"{name} {row.place}", row.value)


def find_files(path: Path | str) -> TextFiles:
    """Find out what is to be read of a file or folder.

    Args:
        path: a .jsonl, .json, .csv, .tsv, .parquet, .txt or .md file, or a folder of such.

    Returns:
        The files with their kinds: by their names, JSON and JSON lines by what is in them.

    Raises:
        DataError: there is no such file, or nothing in it that is read.
    """
    path = Path(path).expanduser()
    allowed = ", ".join(SUFFIXES)
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"{path}: files with the suffix {path.suffix or '(none)'} are not read; allowed are {allowed}."
            )
        return TextFiles(path, ((path, _kind_of(path)),))
    if not path.is_dir():
        raise DataError(f"there is no file or folder {path}.")
    found = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    files = [(file, _kind_of(file)) for file in found if file.suffix.lower() in SUFFIXES]
    others = tuple(str(file.relative_to(path)) for file in found if file.suffix.lower() not in SUFFIXES)
    if not files:
        raise DataError(f"the folder {path} has no file that is read; allowed are {allowed}.")
    texts = [file for file, kind in files if kind == TEXT]
    if texts and len(texts) < len(files):
        rows = next(file for file, kind in files if kind != TEXT)
        raise DataError(
            f"the folder {path} has files of rows ({rows.name}) and of text ({texts[0].name}): it isn't clear what is "
            "meant. Give one file, or a folder of one kind."
        )
    return TextFiles(path, tuple(files), others)


def _kind_of(file: Path) -> str:
    """Return the kind of a file. JSON lines are often called .json, and the other way."""
    kind = SUFFIXES[file.suffix.lower()]
    if kind not in (JSON, JSON_LINES):
        return kind
    with _opened(file) as stream:
        lines = (line.removeprefix(_BOM).strip() for line in stream)
        filled = (line for line in lines if line)
        first, more = next(filled, b""), next(filled, None)
    if first[:1] == b"[" or (first == b"{" and kind == JSON):
        return JSON
    if kind == JSON_LINES or (first[:1] == b"{" and more is not None):
        return JSON_LINES
    return JSON


def _opened(file: Path) -> io.BufferedReader:
    try:
        stream = file.open("rb")
        first = stream.peek(4)[:4]
        wide = next((name for begin, name in _WIDE.items() if first.startswith(begin)), None)
        if wide:
            raise DataError(f"{file} is {wide}; save it as UTF-8.")
    except OSError as error:
        raise DataError(f"{file} can't be read: {error.strerror or error}.") from error
    return stream


def _json_lines(file: Path) -> Iterator[FileRow]:
    with _opened(file) as stream:
        for number, line in enumerate(stream, 1):  # of bytes: only \n ends a line, not U+2028
            line = line.removeprefix(_BOM)  # files that were put together have one in front of each part
            if line.strip(b" \t\r\n"):
                yield FileRow(f"line {number}", _parsed(line.rstrip(b"\r\n")))


def _parsed(line: bytes) -> Mapping[str, Any] | RowError:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return _not_utf8(line, error)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return RowError("bad JSON", f"{error.msg}, column {error.colno}")
    except RecursionError:
        return RowError("bad JSON", "it is nested too deeply")
    return _row(value, bool(_ESCAPED_SURROGATE.search(text)))


def _row(value: Any, look_for_surrogates: bool = True, escaped: bool = False) -> Mapping[str, Any] | RowError:
    if not isinstance(value, dict):
        return RowError("a row is not a mapping of names and values", f"it is a {type(value).__name__}")
    if look_for_surrogates:
        lone = next((found for text in strings_of(value) if (found := SURROGATE.search(text))), None)
        if lone and escaped and lone[0] in _ESCAPED_BYTES:
            return RowError(_NOT_UTF8, f"byte 0x{ord(lone[0]) & 0xFF:02X}")
        if lone:
            return half_a_character(lone[0])
    return value


def _not_utf8(content: bytes, error: UnicodeDecodeError) -> RowError:
    column = error.start - content.rfind(b"\n", 0, error.start)
    return RowError(_NOT_UTF8, f"byte 0x{content[error.start]:02X}, column {column}")


def _json(file: Path) -> Iterator[FileRow]:
    """Read a list of rows, or a mapping that has one."""
    with _opened(file) as stream:
        content = stream.read().removeprefix(_BOM)
    text = content.decode("utf-8", "surrogateescape")  # bytes that are no UTF-8 cost their row, not the file
    decoder, space = json.JSONDecoder(), re.compile(r"[ \t\r\n]*")
    at = space.match(text).end()  # type: ignore[union-attr]  # it matches nothing too
    if text[at : at + 1] != "[":
        yield from _wrapped_list(file, text)
        return
    number, line, counted, before = 0, 1, 0, 0
    at = space.match(text, at + 1).end()  # type: ignore[union-attr]
    while text[at : at + 1] not in ("]", ""):
        line, counted, number = line + text.count("\n", counted, at), at, number + 1
        try:
            value, at = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{file}: bad JSON in row {number}: {_said(error)}.") from error
        place = f"line {line}" if line != before else f"line {line} (row {number})"  # each row has a place of its own
        yield FileRow(place, _row(value, escaped=True))
        before = line
        at = space.match(text, at).end()  # type: ignore[union-attr]
        if text[at : at + 1] == ",":
            at = space.match(text, at + 1).end()  # type: ignore[union-attr]
        elif text[at : at + 1] != "]":
            raise DataError(f"{file}: bad JSON after row {number}: no comma, line {text.count(chr(10), 0, at) + 1}.")


def _said(error: json.JSONDecodeError | RecursionError) -> str:
    return f"{error.msg}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "nested too deeply"


def _wrapped_list(file: Path, text: str) -> Iterator[FileRow]:
    try:
        whole = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{file}: bad JSON: {_said(error)}.") from error
    lists = {key: value for key, value in whole.items() if isinstance(value, list)} if isinstance(whole, dict) else {}
    rows = {key: value for key, value in lists.items() if value and all(isinstance(row, dict) for row in value)}
    is_row = isinstance(whole, dict) and any(name in row for part in rows.values() for row in part
                                             for name in ("role", "from"))  # fmt: skip
    if is_row or (isinstance(whole, dict) and not rows):
        yield FileRow("line 1", _row(whole, escaped=True))  # one row
        return
    if len(rows) != 1:
        raise DataError(f"{file} holds no list of rows, or several ({', '.join(rows) or 'none'}); needed is one list.")
    for number, row in enumerate(next(iter(rows.values())), 1):
        yield FileRow(f"row {number}", _row(row, escaped=True))


def _csv(file: Path) -> Iterator[FileRow]:
    """Read a table with a header. Cells stay text; line feeds inside of quotes are kept."""
    with _opened(file) as stream:
        content = stream.read().removeprefix(_BOM)
    # Bytes that are no UTF-8 become surrogates, so that the other rows can be read.
    text = io.StringIO(content.decode("utf-8", "surrogateescape"), newline="")
    header_line = text.readline()
    text.seek(0)
    delimiter = "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=header_line.count)
    before = csv.field_size_limit(_LARGEST_CELL)
    try:
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        while True:
            place = f"line {reader.line_num + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield FileRow(place, RowError("bad CSV", str(error)))
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if len(set(header)) < len(header):
                    raise DataError(f"{file}: the header names a column twice: {', '.join(header)}.")
            elif cells:
                yield FileRow(place, _cells(header, cells))
    finally:
        csv.field_size_limit(before)


def _cells(header: list[str], cells: list[str]) -> Mapping[str, Any] | RowError:
    if len(cells) != len(header):
        return RowError("bad CSV", f"{len(cells)} cells, but the header names {len(header)} columns")
    broken = next((found for cell in cells if (found := SURROGATE.search(cell))), None)
    if broken:
        return RowError(_NOT_UTF8, f"byte 0x{ord(broken[0]) & 0xFF:02X}")
    return dict(zip(header, cells, strict=True))


def _parquet(file: Path) -> Iterator[FileRow]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{file}: Parquet needs pyarrow, which is not installed: pip install pyarrow.") from error
    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
            for row in _rows_of_batch(batch):
                number += 1
                yield FileRow(f"row {number}", row if isinstance(row, RowError) else _row(_without_nulls(row)))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} can't be read: {str(error).strip().splitlines()[0]}.") from error


def _rows_of_batch(batch: Any) -> Iterator[Mapping[str, Any] | RowError]:
    """Yield the rows of a batch of pyarrow; one that can't be read costs its row, not the file."""
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError):  # text that is no UTF-8; a date that Python has no number for
        rows = [_row_of_cells(batch, number) for number in range(batch.num_rows)]
    yield from rows


def _row_of_cells(batch: Any, number: int) -> Mapping[str, Any] | RowError:
    row: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[number].as_py()
        except UnicodeDecodeError as error:
            return RowError(_NOT_UTF8, f"byte 0x{error.object[error.start]:02X} in `{name}`")
        except (ValueError, OverflowError):
            continue  # no text is of such a type
    return row


def _without_nulls(value: Any) -> Any:
    """Leave out what is null: a column of mappings has the keys of all rows, and null says that a row hasn't one."""
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        if value and all(isinstance(part, tuple) and len(part) == 2 for part in value):  # a column of the type map
            return {key: _without_nulls(part) for key, part in value}
        return [_without_nulls(part) for part in value]
    return value


def _text(file: Path) -> Iterator[FileRow]:
    with _opened(file) as stream:
        content = stream.read().removeprefix(_BOM)
    try:
        yield FileRow("line 1", {"text": content.decode("utf-8")})
    except UnicodeDecodeError as error:
        told = _not_utf8(content, error)
        line = content.count(b"\n", 0, error.start) + 1
        yield FileRow("line 1", RowError(told.reason, f"{told.detail}, line {line}"))


_READERS = {JSON_LINES: _json_lines, JSON: _json, CSV: _csv, PARQUET: _parquet, TEXT: _text}
