"""Requirements as distributions declare them, read for one interpreter."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from packaging.markers import InvalidMarker, UndefinedEnvironmentName, default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from doctor.environment.facts import Environment, Interpreter
from doctor.environment.marker_values import marker_values as of_interpreter


@lru_cache(maxsize=20_000)
def parse_requirement(text: str) -> Requirement | None:
    """Return a requirement of a line; None where the line is none. It is shared: don't change it."""
    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


def parse_version(text: str) -> Version | None:
    """Return a version, None where the text is none."""
    try:
        return Version(text)
    except InvalidVersion:
        return None


def marker_values(interpreter: Interpreter | None) -> Mapping[str, str]:
    """Return what environment markers are compared with, for an interpreter or, where none is known, for this one."""
    if interpreter is None:
        return {key: str(value) for key, value in default_environment().items()}
    return of_interpreter(interpreter)


def needs(lines: Iterable[str], values: Mapping[str, str], extras: Iterable[str] = ()) -> list[Requirement]:
    """Return the requirements that hold for an interpreter.

    Args:
        lines: Requires-Dist lines.
        values: of `marker_values`.
        extras: extras that were asked for.
    """
    found = []
    for line in lines:
        requirement = parse_requirement(line)
        if requirement and holds(requirement, values, extras):
            found.append(requirement)
    return found


def holds(requirement: Requirement, values: Mapping[str, str], extras: Iterable[str] = ()) -> bool:
    """Return whether a requirement's marker holds, with any of the extras or without one."""
    if requirement.marker is None:
        return True
    try:
        return any(requirement.marker.evaluate({**values, "extra": extra}) for extra in ("", *extras))
    except (UndefinedEnvironmentName, InvalidMarker, InvalidVersion):
        return True


def named(requirements: Iterable[str]) -> tuple[str, ...]:
    """Return the normalised names of requirements, each once, in their order."""
    parsed = (parse_requirement(text) for text in requirements)
    return tuple(dict.fromkeys(canonicalize_name(one.name) for one in parsed if one))


def unmet_by(environment: Environment, requirement: Requirement) -> bool:
    """Return whether an environment is known to hold a version that a requirement forbids, or not to hold it at all."""
    version = environment.version(requirement.name)
    if version is None:
        return environment.complete
    return not requirement.specifier.contains(version, prereleases=True)


def direction(requirements: Iterable[str], environment: Environment) -> frozenset[tuple[str, str]]:
    """Return what requirements move: each project with "up", "down", or "" where it stays or can't be told.

    Args:
        requirements: what is to be installed.
        environment: what is installed.
    """
    moves = set()
    for text in requirements:
        one = parse_requirement(text)
        here = environment.version(one.name) if one else None
        way = ""
        if one and here and not one.specifier.contains(here, prereleases=True):
            above = (
                part for part in one.specifier if part.operator in (">", ">=", "~=", "==") and "*" not in part.version
            )
            way = "up" if any(Version(part.version) >= here for part in above) else "down"
        if one:
            moves.add((canonicalize_name(one.name), way))
    return frozenset(moves)
