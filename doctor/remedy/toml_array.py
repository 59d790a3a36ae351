"""Requirements in an array of a TOML file, edited as text, so that comments and layout stay."""

import json
import re
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement

from doctor.remedy.merging import merged, names_the_same
from doctor.remedy.refusal import CannotEdit

_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'')


@dataclass(frozen=True)
class Array:
    """Where an array stands in a text.

    Args:
        start: position behind its opening bracket.
        end: position of its closing bracket.
        items: positions of its strings, with their quotes.
    """

    start: int
    end: int
    items: tuple[tuple[int, int], ...]


def find_array(text: str, table: str, key: str) -> Array | None:
    """Return where an array of strings stands.

    Args:
        text: a TOML text.
        table: its table, such as "project"; "" for the top of the file.
        key: its key; "*" for the next key of the table whose value is an array.

    Returns:
        None where there is no such table or key, or its value is something other than an array of plain strings.
    """
    begin, end = 0, len(text)
    header = re.search(r"^[ \t]*\[", text, re.MULTILINE)
    if table:
        found = re.search(rf"^[ \t]*\[[ \t]*{re.escape(table)}[ \t]*\][^\n]*$", text, re.MULTILINE)
        if not found:
            return None
        begin = found.end()
        following = re.compile(r"^[ \t]*\[\[?[ \t]*[A-Za-z\"']", re.MULTILINE).search(text, begin)
        end = following.start() if following else end
    elif header:
        end = header.start()
    wanted = re.compile(rf"^[ \t]*[\"']?{re.escape(key)}[\"']?[ \t]*=[ \t]*\[", re.MULTILINE).search(text, begin, end)
    return _array_at(text, wanted.end()) if wanted else None


def _array_at(text: str, start: int) -> Array | None:
    place = start
    items: list[tuple[int, int]] = []
    while place < len(text):
        here = text[place]
        if here == "]":
            return Array(start, place, tuple(items))
        if here == "#":
            place = text.find("\n", place)
            if place < 0:
                return None
        elif here in "\"'":
            found = _STRING.match(text, place)
            if not found or text.startswith(here * 3, place):
                return None
            items.append(found.span())
            place = found.end()
        elif here.isspace() or here == ",":
            place += 1
        else:
            return None  # something other than a string, such as a table of a dependency group
    return None


def with_pin(text: str, array: Array, pin: str, reason: str, add: bool) -> str:
    """Return a text in whose array a pin is held.

    Args:
        text: a TOML text.
        array: where the array stands.
        pin: requirement.
        reason: becomes the comment beside it, where each item has a line of its own, else above the array.
        add: whether to add it where the array has nothing of its project.

    Raises:
        CannotEdit: the project's item can't be changed safely.
    """
    of_project = []
    for start, end in array.items:
        try:
            if names_the_same(_value(text[start:end]), pin):
                of_project.append((start, end))
        except (InvalidRequirement, ValueError):
            continue
    if len(of_project) > 1:
        raise CannotEdit(
            f"{_value(text[slice(*of_project[0])])!r} is not the only item of its project: edit them by hand"
        )
    if of_project:
        start, end = of_project[0]
        old = _value(text[start:end])
        new = merged(old, pin)
        if new is None:
            raise CannotEdit(f"{old!r} names a URL or has another marker")
        return text if new == old else _replaced(text, array, (start, end), new, reason)
    return _added(text, array, pin, reason) if add else text


def _value(literal: str) -> str:
    return literal[1:-1] if literal.startswith("'") else str(json.loads(literal))


def _quoted(value: str, like: str = '"') -> str:
    quote = like if like not in value else "'" if like == '"' else '"'
    return f"{quote}{value}{quote}"


def _replaced(text: str, array: Array, item: tuple[int, int], new: str, reason: str) -> str:
    start, end = item
    literal = _quoted(new, text[start])
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    if text[line_start:start].strip() or line_start < array.start:  # not the first of its line
        return _above(text[:start] + literal + text[end:], array, reason)
    behind = text[end:line_end].rstrip("\r")
    found = re.fullmatch(r"(\s*,?)[ \t]*(?:#(.*))?", behind)
    if not found:
        return _above(text[:start] + literal + text[end:], array, reason)
    kept = (found[2] or "").strip()
    kept = "" if not kept or kept.startswith("doctor:") else f"; {kept}"
    rest = text[end + len(behind) :]
    return f"{text[:start]}{literal}{found[1].strip()}  # {reason}{kept}{rest}"


def _added(text: str, array: Array, pin: str, reason: str) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    literal = _quoted(pin)
    if not array.items:
        inside = text[array.start : array.end]
        return f"{text[: array.start]}{inside.rstrip()}{end}    {literal},  # {reason}{end}{text[array.end :]}"
    last_start, last_end = array.items[-1]
    line_start = text.rfind("\n", 0, last_start) + 1
    own_line = line_start >= array.start and not text[line_start:last_start].strip()
    comma_there = "," in re.sub(r"#[^\n]*", "", text[last_end : array.end])
    head = text[:last_end] + ("" if comma_there else ",")
    tail = text[last_end : array.end]
    if own_line:
        indent = text[line_start:last_start]
        return f"{head}{tail.rstrip()}{end}{indent}{literal},  # {reason}{end}{text[array.end :]}"
    return _above(f"{head}{tail.rstrip()} {literal}{text[array.end :]}", array, reason)


def _above(text: str, array: Array, reason: str) -> str:
    """Return a text with a comment on the line above an array's key."""
    end = "\r\n" if "\r\n" in text else "\n"
    line_start = text.rfind("\n", 0, array.start) + 1
    comment = f"# {reason}{end}"
    if text[:line_start].endswith(comment):
        return text
    return f"{text[:line_start]}{comment}{text[line_start:]}"
