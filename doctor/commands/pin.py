"""`python doctor.py pin SCRIPT.py`: what a script imports, with versions, as its PEP 723 block."""

import argparse
import difflib
import sys
from pathlib import Path

from doctor.commands.options import add_python, parser
from doctor.errors import InputError

_DESCRIPTION = """Write what a script imports, with versions, into it (PEP 723): `uv run SCRIPT.py` makes its own.

Versions are those of the environment (this one, or --python); of what is not there the newest that go together. Entries
of the block that have a range already stay. The script is not run.

Exit codes: 0 written, or nothing to write; 1 with --check where something would be written, or where an import is of no
known project; 2 the script can't be read or edited."""
DONE, CHANGES = 0, 1


def main(words: list[str]) -> int:
    """Pin a script's imports.

    Args:
        words: the script and options.

    Returns:
        The exit code.

    Raises:
        InputError: the script can't be read, or its block can't be edited.
    """
    given = _parser().parse_args(words)
    from doctor.commands.examination import read_named
    from doctor.files import write_atomically
    from doctor.knowledge.base import Knowledge
    from doctor.planning.imports import imports_of
    from doctor.planning.script_pins import choose_pins, pinned_text
    from doctor.remedy.refusal import CannotEdit
    from doctor.sources.text_file import read_text

    path: Path = given.script
    if path.suffix != ".py":
        raise InputError(
            f"{path}: a Python script (*.py) is allowed; of a requirements file or pyproject.toml write the pins there"
        )
    text = read_text(path)
    environment = read_named(given.python)
    python = given.python_version or (environment.interpreter.version if environment.interpreter else "3.12")
    python = ".".join(python.split(".")[:2])
    chosen = choose_pins(imports_of(text, path), environment, Knowledge().metadata, python, given.offline)
    try:
        after = pinned_text(text, path, chosen.pins, python)
    except CannotEdit as error:
        raise InputError(f"{path}: {error}", *error.paste) from None
    diff = "".join(
        difflib.unified_diff(text.splitlines(True), after.splitlines(True), f"{path} (now)", f"{path} (then)", n=1)
    )
    sys.stdout.write(diff or f"{path}: nothing to write, all that it imports is pinned\n")
    for sentence in (*chosen.unknown, *chosen.notes):
        sys.stderr.write(f"{path}: {sentence}\n")
    if after != text and not given.check:
        newline = b"\r\n" in path.read_bytes()
        try:
            write_atomically(path, (after.replace("\n", "\r\n") if newline else after).encode())
        except OSError as error:
            raise InputError(f"{path} can't be written: {error.strerror or error}") from None
    return CHANGES if chosen.unknown or (given.check and after != text) else DONE


def _parser() -> argparse.ArgumentParser:
    made = parser("pin", _DESCRIPTION, "SCRIPT.py [--check] [--python PATH]")
    made.add_argument("script", type=Path, metavar="SCRIPT.py", help="the script")
    made.add_argument("--check", action="store_true", help="only show what would be written")
    add_python(made)
    made.add_argument("--python-version", metavar="VERSION", help="that the script will run with (the environment's)")
    made.add_argument("--offline", action="store_true", help="ask no index: newest versions by the snapshot")
    return made
