"""What a file declares, as its readers hand it on."""

import re
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from doctor.environment.facts import Declared
from doctor.redaction import redact
from doctor.sources.target import Target

_ADDRESS = re.compile(r"(?:[a-z+]+:/|\.{1,2}(?:/|\\|$)|/|~/|[A-Za-z]:[\\/])|\S+\.whl$")
_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?")
PYTHON = "python"
"""Name under which a file's Requires-Python is declared, as if Python were a distribution."""


@dataclass(frozen=True)
class Source:
    """What a file declares.

    Args:
        kind: "requirements", "pyproject", "lock", "script", "notebook" or "conda".
        declared: its requirements that hold on the target; Requires-Python by the name PYTHON.
        problems: lines that can't be read, each with its place: the file can't be judged.
        notes: what was left out, and why, a sentence each.
        other_platform: why a lock does not fit the target; None where it does, or is no lock.
        locked: whether it names all that gets installed, so that what isn't in it won't be there.
    """

    kind: str
    declared: tuple[Declared, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    other_platform: str | None = None
    locked: bool = False


def read_requirement(text: str, place: str, target: Target) -> Declared | str | None:
    """Read one PEP 508 requirement.

    Args:
        text: such as "peft>=0.14; python_version < '3.13'", a URL or a path of a wheel.
        place: where it stands.
        target: where it would be installed.

    Returns:
        What it declares; None where its marker doesn't hold on the target; a sentence where it can't be read.
    """
    if direct := _direct(text, place):
        return direct
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        return f"{place}: {redact(text)!r} is no requirement ({_reason(text, error)})"
    if requirement.marker and not target.holds(requirement.marker):
        return None
    return Declared(canonicalize_name(requirement.name), _specifier(requirement), place, redact(text))


def _specifier(requirement: Requirement) -> str:
    if not requirement.url:
        return str(requirement.specifier)
    version = _wheel(requirement.url)
    return f"=={version[1]}" if version else ""


def _direct(text: str, place: str) -> Declared | None:
    """Read a URL, or a path of a wheel or a folder, without a name before it."""
    shown = redact(text)
    address = shown.partition(" ;")[0].partition("; ")[0].strip()
    if not _ADDRESS.match(address) or " " in address:
        return None
    if wheel := _wheel(address):
        return Declared(canonicalize_name(wheel[0]), f"=={wheel[1]}", place, shown)
    egg = address.partition("#")[2].replace("&", " ").split()
    name = next((part.removeprefix("egg=").partition("[")[0] for part in egg if part.startswith("egg=")), "")
    if not name:
        path = address.partition("#")[0].partition("?")[0].rstrip("/").replace("\\", "/")
        path = path.partition("://")[2].partition("/")[2] if "://" in path else path  # without the host
        name = path.rpartition("/")[2].partition("@")[0].removesuffix(".git")
    return Declared(canonicalize_name(name) if _NAME.fullmatch(name) else "folder", "", place, shown)


def _wheel(url: str) -> tuple[str, str] | None:
    """Return name and version of a wheel that a URL or path leads to; None where it is none."""
    name = url.partition("#")[0].partition("?")[0].replace("\\", "/").rpartition("/")[2].replace("%2B", "+")
    try:
        project, version, _, _ = parse_wheel_filename(name)
    except InvalidWheelFilename:
        return None
    return project, str(version)


def _reason(text: str, error: InvalidRequirement) -> str:
    words = text.split()
    if words[:2] in (["pip", "install"], ["pip3", "install"]) or text.startswith(("!pip", "%pip")):
        return "leave 'pip install' out, and write one requirement a line"
    name, equals, version = text.partition("=")
    if equals and version and version[0] not in "=" and name[-1:] not in "<>!~=":
        return f"a single = is conda's: {name.strip()}=={version.partition('=')[0].strip()}"
    if len(words) == 2 and words[1][:1].isdigit():
        return f"the versions need an operator: {words[0]}=={words[1]}"
    return str(error).splitlines()[0].strip().rstrip(":").lower()
