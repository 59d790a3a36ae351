"""Writing pins where they belong: requirements.txt, pyproject.toml, the PEP 723 block of a script."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement

from doctor.files import write_atomically
from doctor.finding import Change
from doctor.remedy.pyproject_pins import edit_pyproject
from doctor.remedy.refusal import CannotEdit
from doctor.remedy.requirements_pins import edit_requirements
from doctor.remedy.script_pins import edit_script

_UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class PinEdit:
    """What writing pins into a file comes to.

    Args:
        path: the file.
        diff: the change as a unified diff; empty where there is nothing to change.
        refusal: why the file is not edited; None where it can be.
        paste: lines to paste by hand, where it is not edited.
        written: whether the file was written.
    """

    path: str
    diff: str = ""
    refusal: str | None = None
    paste: tuple[str, ...] = ()
    written: bool = False


def write_pins(change: Change, place: str, write: bool = False) -> PinEdit:
    """Show how a file would hold the pins of a change, and write it where that is asked for.

    All else of the file stays byte for byte. A file that can't be edited safely is not touched.

    Args:
        change: its requirements are the pins; why they are needed becomes a comment beside them.
        place: a requirements file (*.txt, *.in), pyproject.toml, or a Python script.
        write: whether to write; False only shows.

    Returns:
        The diff, or why not and what to paste.
    """
    path = Path(place)
    pins = change.requirements
    reason = reason_of(change)
    paste = tuple(f"{pin}  # {reason}" for pin in pins)
    try:
        raw = path.read_bytes()
        mark = _UTF8_MARK if raw.startswith(_UTF8_MARK) else b""
        text = raw[len(mark) :].decode("utf-8")
        after = _edit(path)(text, pins, reason)
    except CannotEdit as refused:
        return PinEdit(place, refusal=str(refused), paste=refused.paste or paste)
    except (OSError, UnicodeDecodeError, InvalidRequirement) as error:
        told = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        return PinEdit(place, refusal=f"{place} {told}", paste=paste)
    before_lines, after_lines = text.splitlines(keepends=True), after.splitlines(keepends=True)
    name = path.name
    diff = "".join(
        line if line.endswith("\n") else f"{line}\n"
        for line in difflib.unified_diff(before_lines, after_lines, f"{name} (now)", f"{name} (then)")
    )
    if not write or after == text:
        return PinEdit(place, diff)
    if path.read_bytes() != raw:
        return PinEdit(place, diff, f"{place} was changed meanwhile: nothing was written", paste)
    try:
        write_atomically(path, mark + after.encode("utf-8"))
    except OSError as error:
        return PinEdit(place, diff, f"{place} cannot be written: {error.strerror or error}", paste)
    return PinEdit(place, diff, written=True)


def reason_of(change: Change) -> str:
    """Return why a pin is there, as a comment of one line."""
    why = f"while {', '.join(change.holds)}" if change.holds else " ".join(change.text.split())
    return f"doctor: {why}"[:160].rstrip()


def _edit(path: Path) -> Callable[[str, tuple[str, ...], str], str]:
    if path.name == "pyproject.toml":
        return edit_pyproject
    if path.suffix == ".py":
        return edit_script
    if path.suffix in (".txt", ".in"):
        return edit_requirements
    raise CannotEdit(
        f"pins are not written into {path.name}: it takes requirements.txt, pyproject.toml or a script (*.py)"
    )
