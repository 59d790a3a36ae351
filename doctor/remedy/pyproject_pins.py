"""Pins in a pyproject.toml."""

import tomllib
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from doctor.remedy.refusal import CannotEdit
from doctor.remedy.toml_array import find_array, with_pin


def edit_pyproject(text: str, pins: tuple[str, ...], reason: str) -> str:
    """Return a pyproject.toml whose lists of dependencies hold pins; comments and layout stay.

    A pin goes into each list that has its project: [project] dependencies, optional dependencies, dependency groups;
    where none has, into [project] dependencies.

    Args:
        text: the file.
        pins: requirements.
        reason: becomes a comment beside each.

    Raises:
        CannotEdit: its dependencies are not a plain list, or the result would not read as it should.
    """
    try:
        before = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CannotEdit(f"it is not a TOML file: {error}") from None
    poetry = before.get("tool", {}).get("poetry", {}).get("dependencies")
    if "dependencies" not in before.get("project", {}):
        if poetry is not None:
            lines = tuple(f'{Requirement(pin).name} = "{Requirement(pin).specifier}"  # {reason}' for pin in pins)
            raise CannotEdit("its dependencies are in [tool.poetry.dependencies], which has a syntax of its own", lines)
        if "dependencies" in before.get("project", {}).get("dynamic", ()):
            raise CannotEdit("its dependencies are dynamic: a setup.py or another file states them")
        raise CannotEdit("it has no list of dependencies in [project]", (f"dependencies = {list(pins)!r}",))
    for pin in pins:
        places = _places(before, pin) or [("project", "dependencies")]
        for table, key in places:
            array = find_array(text, table, key)
            if array is None:
                raise CannotEdit(f"{key} of [{table}] is not a plain list of strings")
            text = with_pin(text, array, pin, reason, add=True)
    _check(before, text, pins)
    return text


def _lists(document: dict[str, Any]) -> dict[tuple[str, str], list[Any]]:
    """Return the lists of requirements by their table and key."""
    project = document.get("project", {})
    lists = {("project", "dependencies"): project.get("dependencies", [])}
    lists |= {
        ("project.optional-dependencies", key): of for key, of in project.get("optional-dependencies", {}).items()
    }
    lists |= {("dependency-groups", key): of for key, of in document.get("dependency-groups", {}).items()}
    return lists


def _name(text: object) -> str | None:
    try:
        return canonicalize_name(Requirement(text).name) if isinstance(text, str) else None
    except InvalidRequirement:
        return None


def _places(document: dict[str, Any], pin: str) -> list[tuple[str, str]]:
    name = _name(pin)
    return [place for place, items in _lists(document).items() if any(_name(item) == name for item in items)]


def _check(before: dict[str, Any], text: str, pins: tuple[str, ...]) -> None:
    """Hold the edited text against the file: all but the pinned projects' items must read as before."""
    pinned = {_name(pin) for pin in pins}
    try:
        after = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CannotEdit(f"the edited text would not read as TOML ({error})") from None
    for document in (before, after):
        for items in _lists(document).values():
            items[:] = [item for item in items if _name(item) not in pinned]
    if before != after:
        raise CannotEdit("the edited text would change more than the pins")
