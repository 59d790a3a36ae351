"""Rows of the files that steps make: JSON lines, CSV, a JSON list."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path

from workflow.checks.result import UnusableError
from workflow.definition.numbers import number_of

Row = dict[str, object]


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, one at a time.

    Args:
        path: .jsonl (one object a line), .json (a list of objects) or .csv.

    Raises:
        UnusableError: it can't be read, or a row is none; says which.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if path.suffix.lower() in (".csv", ".tsv"):
                delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
                yield from (dict(row) for row in csv.DictReader(stream, delimiter=delimiter))
            elif path.suffix.lower() == ".json":
                content = json.load(stream)
                yield from (_row(path, number, one) for number, one in enumerate(content, 1))
            else:
                for number, line in enumerate(stream, 1):
                    if line.strip():
                        yield _row(path, number, json.loads(line))
    except UnicodeDecodeError:
        raise UnusableError(f"{path.name} is no text in UTF-8") from None
    except (ValueError, TypeError, csv.Error) as error:
        raise UnusableError(f"{path.name} can't be read as {path.suffix[1:] or 'JSON lines'}: {error}") from None
    except OSError as error:
        raise UnusableError(f"{path.name}: {error.strerror}") from None


def numbers_of(path: Path, field: str) -> list[float]:
    """Return a field's number of each row that has it; NaN where it is a text such as "nan".

    Raises:
        UnusableError: the file can't be read.
    """
    found = []
    for row in read_rows(path):
        value = field_of(row, field)
        if value is None or isinstance(value, bool):
            continue
        number = number_of(value)
        found.append(math.nan if number is None else number)
    return found


def field_of(content: object, name: str) -> object:
    """Return a field of nested mappings and lists, `metrics.loss`, `answers.0`; None where it isn't there."""
    value = content
    for part in name.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _row(path: Path, number: int, content: object) -> Row:
    if not isinstance(content, dict):
        raise UnusableError(f"{path.name}, row {number}: {str(content)[:40]!r} is no object with fields")
    return content
