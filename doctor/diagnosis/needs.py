"""The requirements of installed distributions that hold for their interpreter, and whether a copy meets them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from doctor.environment.facts import Environment, Installed
from doctor.environment.marker_values import marker_values


@dataclass(frozen=True)
class Need:
    """A requirement: who has it, what it asks, and the copy that is imported (None: there is none)."""

    teller: Installed
    need: Requirement
    found: Installed | None

    @property
    def met(self) -> bool:
        """Whether what is imported is what is asked for."""
        return self.found is not None and meets(self.found, self.need)


def needs(environment: Environment) -> Iterator[Need]:
    """Yield the requirements of an environment's distributions.

    Args:
        environment: an environment read from files.

    Yields:
        Requirements without an extra whose marker holds for the target interpreter, of copies that are imported.
    """
    if environment.interpreter is None or not environment.complete:
        return
    first: dict[str, Installed] = {}
    for one in environment.installed:
        first.setdefault(one.name, one)
    for one in first.values():
        for need in applicable(one.requires, environment):
            yield Need(one, need, first.get(canonicalize_name(need.name)))


def applicable(lines: Iterable[str], environment: Environment) -> Iterator[Requirement]:
    """Yield those of some Requires-Dist lines, without an extra, whose marker holds for an environment."""
    values = marker_values(environment.interpreter) if environment.interpreter else None
    for line in lines:
        need = _parsed(line)
        if need is None:
            continue
        try:
            if need.marker is None or values is None or need.marker.evaluate(values):
                yield need
        except UndefinedEnvironmentName:
            continue


@cache
def _parsed(line: str) -> Requirement | None:
    try:
        return Requirement(line)
    except InvalidRequirement:
        return None


def meets(installed: Installed, need: Requirement) -> bool:
    """Return whether a copy has a version that a requirement asks for; one that is no version is let pass."""
    if not need.specifier or not installed.version:
        return True
    try:
        return need.specifier.contains(Version(installed.version), prereleases=True)
    except InvalidVersion:
        return True


def range_for(environment: Environment, name: str) -> str:
    """Return the range of a distribution that all which need it together allow; "" where none asks for one."""
    return joined(one.need for one in needs(environment) if canonicalize_name(one.need.name) == name)


def joined(asked: Iterable[Requirement]) -> str:
    """Return the range that some requirements allow together, of several lower and upper limits the narrowest."""
    parts = {str(part): part for need in asked for part in need.specifier}
    for operator, choose in ((">=", max), ("<", min)):
        limits = [part for part in parts.values() if part.operator == operator]
        if limits:
            kept = choose(limits, key=lambda part: Version(part.version))
            for part in limits:
                if part is not kept:
                    del parts[str(part)]
    return ",".join(sorted(parts, key=lambda text: (not text.startswith(">"), not text.startswith("<"), text)))
