"""Python scripts with a PEP 723 block, and notebooks with %pip lines."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from doctor.environment.facts import Declared
from doctor.errors import InputError
from doctor.sources.source import PYTHON, Source, read_requirement
from doctor.sources.target import Target
from doctor.sources.text_file import read_text
from doctor.sources.toml_file import line_of, parse_toml, texts

# The regular expression of the specification.
_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_INSTALL = re.compile(r"^\s*[!%]\s*(?:python3? -m |uv )?pip3?\s+install\s+(.*)$|^\s*[!%]\s*uv add\s+(.*)$")
_WITH_VALUE = ("-i", "-f", "-r", "-c", "-t", "--index-url", "--extra-index-url", "--find-links", "--requirement",
               "--constraint", "--target", "--torch-backend", "--python", "-p", "--index")  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A PEP 723 block: its TOML, and the numbers of its first and last line, the ones with `///`."""

    toml: str
    first: int
    last: int


def find_block(text: str, name: str = "the script") -> Block | None:
    """Return the `script` block of a script; None where it has none.

    Raises:
        InputError: it has two, or one that is not closed.
    """
    found = [one for one in _BLOCK.finditer(text) if one["type"] == "script"]
    if len(found) > 1:
        second = text.count("\n", 0, found[1].start()) + 1
        raise InputError(f"{name}:{second}: a second `# /// script` block; only one is allowed")
    if not found:
        if begun := re.search(r"(?m)^# /// script\s*$", text):
            line = text.count("\n", 0, begun.start()) + 1
            raise InputError(f"{name}:{line}: the `# /// script` block is not closed: "
                             "each of its lines begins with #, and the last is `# ///`")  # fmt: skip
        return None
    content = "".join(
        line[2:] if line.startswith("# ") else line[1:] for line in found[0]["content"].splitlines(keepends=True)
    )
    first = text.count("\n", 0, found[0].start()) + 1
    return Block(content, first, first + found[0][0].count("\n"))


def read_script_file(path: Path, target: Target) -> Source:
    """Read a script's PEP 723 block.

    Raises:
        InputError: it can't be read, or has no block.
    """
    text = read_text(path)
    block = find_block(text, str(path))
    if block is None:
        raise InputError(
            f"{path} declares nothing: it has no `# /// script` block (PEP 723). `doctor.py pin {path}` writes one"
        )
    tables = parse_toml(block.toml, str(path), block.first + 1)
    python = tables.get("requires-python")
    requires_python = python if isinstance(python, str) else ""
    target = target.allowed_by(requires_python)
    declared, problems = [], []
    if requires_python:
        declared.append(Declared(PYTHON, requires_python, f"{path}:{_line(block, 'requires-python')}", requires_python))
    for requirement in texts(tables.get("dependencies")):
        found = read_requirement(requirement, f"{path}:{_line(block, requirement)}", target)
        if isinstance(found, Declared):
            declared.append(found)
        elif found:
            problems.append(found)
    return Source("script", tuple(declared), tuple(problems))


def _line(block: Block, wanted: str) -> int:
    return block.first + max(1, line_of(block.toml, wanted))


def read_notebook_file(path: Path, target: Target) -> Source:
    """Read what the `%pip install` and `!pip install` lines of a notebook ask for.

    Raises:
        InputError: it can't be read, or is no notebook.
    """
    text = read_text(path)
    try:
        book = json.loads(text)
    except json.JSONDecodeError as error:
        cut = "; the file seems to be cut" if error.pos >= len(text.rstrip()) - 1 else ""
        raise InputError(f"{path}:{error.lineno}: no JSON, so no notebook: {error.msg.lower()}{cut}") from None
    cells = book.get("cells") if isinstance(book, dict) else None
    if not isinstance(cells, list):
        raise InputError(f"{path} is no notebook: it has no cells")
    declared, problems = [], []
    notes: list[str] = []
    for number, cell in enumerate(cells, start=1):
        for place, words in _installs(cell, f"{path}:cell {number}"):
            for word in _requirements(words, notes, place):
                found = read_requirement(word, place, target)
                if isinstance(found, Declared):
                    declared.append(found)
                elif found:
                    problems.append(found)
    if not declared and not problems:
        raise InputError(f"{path} declares nothing: none of its {len(cells)} cells has a %pip or !pip install line")
    return Source("notebook", tuple(declared), tuple(problems), tuple(notes))


def _installs(cell: object, place: str) -> Iterator[tuple[str, str]]:
    if not isinstance(cell, dict) or cell.get("cell_type") != "code":
        return
    source = cell.get("source", "")
    text = "".join(one for one in source if isinstance(one, str)) if isinstance(source, list) else str(source)
    lines = text.replace("\\\n", " ").split("\n")
    for line in lines:
        if found := _INSTALL.match(line):
            yield place, found[1] or found[2]


def _requirements(words: str, notes: list[str], place: str) -> Iterator[str]:
    """Yield the requirements of a `pip install` line."""
    parts = [one.strip("'\"") for one in re.findall(r"\"[^\"]*\"|'[^']*'|\S+", words.split(" #")[0])]
    skip = False
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        if skip:
            skip = False
        elif part in ("&&", "||", ";", "|", ">", "2>&1") or part.startswith(("&&", ">")):
            return
        elif part in _WITH_VALUE:
            skip = True
            if part in ("-r", "--requirement"):
                notes.append(f"{place}: {following} is not read with the notebook: give it by itself")
        elif not part.startswith("-"):
            yield part
