"""requirements.txt as pip reads it: continued lines, comments, options, files within files."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from doctor.environment.facts import Declared
from doctor.errors import InputError
from doctor.redaction import redact
from doctor.sources.source import Source, read_requirement
from doctor.sources.target import Target
from doctor.sources.text_file import read_text

_FILES = {"-r": "requirement", "--requirement": "requirement", "-c": "constraint", "--constraint": "constraint"}
_EDITABLE = ("-e", "--editable")
# Options with a value, and without one, that pip takes in a file. None of them changes what is declared.
_VALUED = ("-i", "--index-url", "--pypi-url", "--extra-index-url", "-f", "--find-links", "--no-binary", "--only-binary",
           "--trusted-host", "--use-feature", "--hash", "--config-settings", "--config-setting", "--global-option",
           "--install-option", "--python-version", "--platform", "--abi", "--implementation", "--torch-backend",
           "--index", "--default-index")  # fmt: skip
_FLAGS = ("--no-index", "--pre", "--prefer-binary", "--require-hashes", "--no-build-isolation", "--no-deps",
          "--upgrade", "-U", "--always-unzip", "-Z")  # fmt: skip
_ALLOWED = "a line is a requirement such as peft>=0.14, a URL, a path, -r FILE, -c FILE, or an option of pip"
_COMMENT = re.compile(r"(^|\s+)#.*$")
_OPTION = re.compile(r"\s(--[\w-]+|-[a-zA-Z])(?=[\s=]|$)")


@dataclass
class _Reading:
    target: Target
    declared: list[Declared] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seen: set[Path] = field(default_factory=set)
    lines: int = 0


def read_requirements_file(path: Path, target: Target) -> Source:
    """Read a requirements file and the files that it names.

    Raises:
        InputError: it can't be read, or is something else.
    """
    reading = _Reading(target)
    _read(path, reading, str(path))
    if len(reading.problems) > 3 and len(reading.problems) * 2 > reading.lines:
        raise InputError(
            f"{path} is no requirements file: {len(reading.problems)} of {reading.lines} lines are none, "
            f"such as {reading.problems[0]}; {_ALLOWED}"
        )
    problems = (*reading.problems, _ALLOWED) if reading.problems else ()
    return Source("requirements", tuple(reading.declared), problems, tuple(reading.notes))


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines without comments, continued ones joined, each with the number that it begins at."""
    begun = 0
    parts: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        begun = begun if parts else number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            parts.append(line[:-1])
            continue
        whole = _COMMENT.sub("", "".join([*parts, line])).strip()
        parts = []
        if whole:
            yield begun, whole
    if parts and (whole := _COMMENT.sub("", "".join(parts)).strip()):
        yield begun, whole


def _read(path: Path, reading: _Reading, shown: str) -> None:
    if path.resolve() in reading.seen:
        return
    reading.seen.add(path.resolve())
    for number, line in logical_lines(read_text(path)):
        reading.lines += 1
        place = f"{shown}:{number}"
        if line.startswith("-"):
            _read_option(line, place, path, reading)
        else:
            _take(line, place, reading)


def _take(line: str, place: str, reading: _Reading) -> None:
    option = _OPTION.search(line)  # --hash and the like behind a requirement
    requirement = line[: option.start()].strip() if option else line
    if option and option[1] not in (*_VALUED, *_FLAGS):
        reading.problems.append(f"{place}: pip knows no option {option[1]} behind a requirement")
        return
    found = read_requirement(requirement, place, reading.target)
    if isinstance(found, str):
        reading.problems.append(found)
    elif found:
        reading.declared.append(found)
    else:
        reading.notes.append(f"{place}: left out, since its marker does not hold here: {redact(requirement)}")


def _read_option(line: str, place: str, path: Path, reading: _Reading) -> None:
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    name, equals, value = words[0].partition("=")
    if not equals:
        value = " ".join(words[1:])
    if name[:2] in ("-r", "-c", "-e", "-i", "-f") and len(name) > 2 and name[2] != "-":
        name, value = name[:2], name[2:] + equals + value
    if name in _EDITABLE:
        _take(value or ".", place, reading)
    elif name in _FILES:
        _read_named(value, place, path, reading)
    elif name not in (*_VALUED, *_FLAGS):
        reading.problems.append(f"{place}: pip knows no option {name}")


def _read_named(value: str, place: str, path: Path, reading: _Reading) -> None:
    if not value:
        reading.problems.append(f"{place}: names no file")
    elif "://" in value:
        reading.notes.append(f"{place}: {redact(value)} was not read: it lies on the network")
    else:
        try:
            _read(path.parent / value, reading, str(path.parent / value))
        except InputError as error:
            reading.problems.append(f"{place}: {error}")
