"""Pins in a requirements file."""

import re

from packaging.requirements import InvalidRequirement, Requirement

from doctor.remedy.merging import merged, names_the_same
from doctor.remedy.refusal import CannotEdit

_COMMENT = re.compile(r"(^|\s+)#.*$")


def edit_requirements(text: str, pins: tuple[str, ...], reason: str) -> str:
    """Return a requirements file that holds pins; other lines stay as they are.

    Args:
        text: the file.
        pins: requirements.
        reason: becomes the comment of their lines.

    Raises:
        CannotEdit: a line of that project has hashes, options or a URL, or goes on in the next; or there are several.
    """
    lines = text.splitlines(keepends=True)
    end = "\r\n" if any(line.endswith("\r\n") for line in lines) else "\n"
    for pin in pins:
        places = [place for place, line in enumerate(lines) if _is_of(line, pin)]
        if len(places) > 1:
            told = ", ".join(str(place + 1) for place in places)
            raise CannotEdit(f"{Requirement(pin).name} stands in several lines ({told}): edit them by hand")
        if places:
            lines[places[0]] = _with_pin(lines, places[0], pin, reason)
            continue
        if any("--hash" in line for line in lines):
            raise CannotEdit("its lines have hashes, and a new line would need one: let the tool that made it pin this")
        if lines and not lines[-1].endswith(("\n", "\r")):
            lines[-1] += end
        lines.append(f"{pin}  # {reason}{end}")
    return "".join(lines)


def _is_of(line: str, pin: str) -> bool:
    """Return whether a line is of the pin's project, also where it can't be edited."""
    found = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?=$|[=<>!~;@#\s\\])", line)
    return found is not None and names_the_same(found[1], pin)


def _with_pin(lines: list[str], place: int, pin: str, reason: str) -> str:
    line = lines[place]
    body = line.rstrip("\r\n")
    if (
        body.rstrip().endswith("\\")
        or "--" in _COMMENT.sub("", body)
        or (place and lines[place - 1].rstrip().endswith("\\"))
    ):
        raise CannotEdit(f"line {place + 1} has hashes or options, or goes on in the next: {body.strip()!r}")
    found = _COMMENT.search(body)
    stated, comment = (body[: found.start()], body[found.start() :]) if found else (body, "")
    indent = stated[: len(stated) - len(stated.lstrip())]
    try:
        new = merged(stated.strip(), pin)
    except InvalidRequirement:
        new = None
    if new is None:
        raise CannotEdit(f"line {place + 1} names a URL or has another marker: {stated.strip()!r}")
    if new == stated.strip():
        return line
    kept = comment.strip().lstrip("#").strip()
    kept = "" if not kept or kept.startswith("doctor:") else f"; {kept}"
    return f"{indent}{new}  # {reason}{kept}{line[len(body) :]}"
