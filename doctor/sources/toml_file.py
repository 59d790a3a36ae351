"""TOML of users: read with the place of a key, and with errors that name the line."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from doctor.errors import InputError
from doctor.sources.text_file import read_text

Table = Mapping[str, object]


def read_toml(path: Path) -> tuple[dict[str, object], str]:
    """Return a TOML file's tables and its text.

    Raises:
        InputError: it can't be read.
    """
    text = read_text(path)
    return parse_toml(text, str(path)), text


def parse_toml(text: str, name: str, first_line: int = 1) -> dict[str, object]:
    """Return the tables of a TOML text.

    Args:
        text: the text.
        name: file that it is from, for errors.
        first_line: number of its first line in that file.

    Raises:
        InputError: it is no TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"at line (\d+)", str(error))
        line = f":{int(where[1]) + first_line - 1}" if where else ""
        cut = "; the file seems to be cut" if "end of document" in str(error) else ""
        message = re.sub(r" \(at .*\)$", "", str(error))
        raise InputError(f"{name}{line}: no TOML: {message[0].lower()}{message[1:]}{cut}") from None


def table(value: object, key: str) -> dict[str, object]:
    """Return a table inside a table; an empty one where it is missing or something else."""
    found = value.get(key) if isinstance(value, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def texts(value: object) -> list[str]:
    """Return the texts of a list; of a text alone a list of it."""
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def line_of(text: str, wanted: str, after: int = 0) -> int:
    """Return the number of the first line that holds a text, 0 where none does."""
    found = text.find(wanted, after)
    return text.count("\n", 0, found) + 1 if found >= 0 else 0
