"""Where an error stands in what a script printed: its lines, the frame of the project's own, the row of its data."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

_FRAME = re.compile(r'^\s*File "(.+?)", line (\d+)', re.MULTILINE)
_TRACEBACK = "Traceback (most recent call last):"
_CAUSED = "The above exception was the direct cause of the following exception:"
_NAMED = re.compile(
    r"(?:[\w.]*(?:Error|Exception|Interrupt|Exit|Disconnected|IncompleteRead)\b|error\b|fatal\b)", re.IGNORECASE
)
_LAST = 5  # lines of a script without a traceback that may say what was wrong
_ROWS = 1_000_000  # of a file that are looked at


def error_lines(text: str) -> list[str]:
    """Return the lines that say what a script ended with, the last error first, then what caused it.

    Lines before it are passed over: a warning there may be of another kind.

    Args:
        text: the end of what it printed.
    """
    start = text.rfind(_TRACEBACK)
    if start < 0:
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("--- ")]
        named = [line for line in lines[-_LAST:] if _NAMED.match(line)]
        return list(dict.fromkeys([*reversed(named), *reversed(lines[-_LAST:])]))
    found = [_message(text[start:])]
    before = text[:start].rstrip()
    while before.endswith(_CAUSED):
        before = before.removesuffix(_CAUSED)
        start = before.rfind(_TRACEBACK)
        if start < 0:
            break
        found.append(_message(before[start:]))
        before = before[:start].rstrip()
    return [line for line in found if line]


def _message(traceback: str) -> str:
    """Return what a traceback ends with: the line after its frames, with the lines that go on with it."""
    lines = traceback.splitlines()[1:]
    ends = [place for place, line in enumerate(lines) if line and not line[0].isspace() and _NAMED.match(line)]
    if not ends:
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    end = next((place for place in ends if not lines[place].startswith(_TRACEBACK)), ends[-1])
    return " ".join(line.strip() for line in lines[end : end + 3] if line.strip())[:300]


def own_frame(text: str, folder: Path) -> str:
    """Return script and line of the deepest frame in the project's own files, of the last error; "" where none is."""
    found = ""
    for name, line in _FRAME.findall(text[max(text.rfind(_TRACEBACK), 0) :]):
        own = (folder / name).resolve()
        if (
            own.is_file()
            and own.is_relative_to(folder.resolve())
            and "site-packages" not in name
            and ".venv" not in own.parts
        ):
            found = f"{own.relative_to(folder.resolve())}:{line}"
    return found


def bad_row(folder: Path, files: Sequence[str], error: str) -> str:
    """Return file and line of the first row that an error is of, "rows.jsonl:12: no JSON: ..."; "" where none is.

    Args:
        folder: the project's folder.
        files: files that the step reads; of those that end with .jsonl every line is looked at.
        error: the error: a broken row, or a field that a row lacks (`KeyError: 'dialogue'`).
    """
    lacks = re.search(r"KeyError: '([^']+)'", error)
    for name in files:
        path = folder / name
        if path.suffix != ".jsonl" or not path.is_file():
            continue
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if number > _ROWS:
                    break
                if fault := _fault(line, lacks[1] if lacks else None):
                    return f"{name}:{number}: {fault}"
    return ""


def _fault(line: bytes, field: str | None) -> str:
    if not line.strip():
        return ""
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        return "no text in UTF-8"
    except ValueError as error:
        return f"no JSON: {error}"
    if not isinstance(row, dict):
        return "no object with fields"
    if field is not None and field not in row:
        return f"it has no {field}; it has {', '.join(map(str, row)) or 'nothing'}"
    return ""
