"""What a change would break and move besides, told before it is made."""

import re
from dataclasses import dataclass

from packaging.utils import canonicalize_name
from packaging.version import Version

from doctor.child_process import run_command
from doctor.environment.facts import Environment
from doctor.finding import Change
from doctor.remedy.known_releases import WithMetadata, target_release, target_version
from doctor.remedy.requirements import marker_values, needs, parse_requirement, parse_version, unmet_by
from doctor.uv import find_uv, uv_environment

_STEP = re.compile(r"^ ([-+~]) ([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def disturbs(
    change: Change, environment: Environment, knowledge: WithMetadata, resolve: bool = False
) -> tuple[str, ...]:
    """Say what a change would break and move besides.

    Args:
        change: what would be made.
        environment: what is installed.
        knowledge: released versions.
        resolve: whether to ask uv too, which knows all that moves; it needs uv, an environment on this machine, and
            an index or uv's cache. Nothing is installed.

    Returns:
        A sentence each: declared needs of other installed distributions that would no longer be met, then what moves
        along.
    """
    said = list(breaks(change, environment, knowledge))
    steps = dry_run(change, environment) if resolve else None
    if steps is None:
        said += moves_along(change, environment, knowledge)
    else:
        asked = {canonicalize_name(one.name) for text in change.requirements if (one := parse_requirement(text))}
        said += [str(step) for step in steps if step.name not in asked]
    return tuple(said)


def breaks(change: Change, environment: Environment, knowledge: WithMetadata) -> tuple[str, ...]:
    """Say which declared needs of other installed distributions are met now and would not be after a change."""
    after: dict[str, Version | None] = {canonicalize_name(name): None for name in change.remove}
    for text in change.requirements:
        requirement = parse_requirement(text)
        version = target_version(requirement, environment, knowledge.metadata) if requirement else None
        if requirement and version:
            after[canonicalize_name(requirement.name)] = version
    values = marker_values(environment.interpreter)
    said = []
    for other in environment.installed:
        if other.name in after:
            continue
        for need in needs((line for line in other.requires if _may_name(line, after)), values):
            name = canonicalize_name(need.name)
            if name not in after or unmet_by(environment, need):
                continue
            new = after[name]
            if new is None:
                said.append(f"{other.name} {other.version} declares {need.name}{need.specifier}, which is removed.")
            elif not need.specifier.contains(new, prereleases=True):
                said.append(f"{other.name} {other.version} declares {need.name}{need.specifier}, and gets {new}.")
    return tuple(dict.fromkeys(said))


def _may_name(line: str, names: dict[str, Version | None]) -> bool:
    """Return whether a Requires-Dist line names one of some projects, without reading all of it."""
    found = re.match(r"[A-Za-z0-9._-]+", line)
    return found is not None and canonicalize_name(found[0]) in names


def moves_along(change: Change, environment: Environment, knowledge: WithMetadata) -> tuple[str, ...]:
    """Say what else must move, by what the new versions declare and what is installed."""
    values = marker_values(environment.interpreter)
    asked = [one for text in change.requirements if (one := parse_requirement(text))]
    names = {canonicalize_name(one.name) for one in asked}
    said = []
    for requirement in asked:
        here = environment.version(requirement.name)
        stays = here is not None and requirement.specifier.contains(here, prereleases=True)
        found = environment.find(requirement.name) if stays else None
        release = None if stays else target_release(requirement, environment, knowledge.metadata)
        version = here if stays else release.version if release else None
        lines = found.requires if found else release.requires if release else ()
        lacked = set() if stays else _lacked_now(requirement.name, environment, knowledge)
        for need in needs(lines, values, requirement.extras):
            name = canonicalize_name(need.name)
            if name not in names and name not in lacked and unmet_by(environment, need):
                old = environment.version(name)
                now = f"{old} is installed" if old else "it is not installed"
                said.append(f"{requirement.name} {version} needs {need.name}{need.specifier}: {now}.")
    return tuple(dict.fromkeys(said))


def _lacked_now(name: str, environment: Environment, knowledge: WithMetadata) -> set[str]:
    """Return what the version that is here needs and has not: no change of it is to blame for that."""
    here, version = environment.find(name), environment.version(name)
    lines = here.requires if here else ()
    if not lines and version is not None:
        lines = next((one.requires for one in knowledge.metadata.releases(name) if one.version == version), ())
    values = marker_values(environment.interpreter)
    wanted = {canonicalize_name(need.name) for need in needs(lines, values, ())}
    return {one for one in wanted if environment.version(one) is None}


@dataclass(frozen=True)
class Step:
    """A distribution that an installer would move.

    Args:
        name: its name.
        old: version that goes; None where it is not installed.
        new: version that comes; None where it only goes.
    """

    name: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.old is None:
            return f"{self.name} {self.new} is installed along."
        if self.new is None:
            return f"{self.name} {self.old} is removed along."
        old, new = parse_version(self.old), parse_version(self.new)
        way = "moves down" if old and new and new < old else "moves"
        return f"{self.name} {way} along from {self.old} to {self.new}."


def dry_run(change: Change, environment: Environment, timeout: float = 60) -> tuple[Step, ...] | None:
    """Ask uv what installing a change would move; nothing is installed.

    Args:
        change: what would be installed.
        environment: an environment on this machine.
        timeout: seconds for uv.

    Returns:
        All that moves, also what is asked for by name; None where uv can't tell.
    """
    uv = find_uv()
    executable = environment.interpreter.executable if environment.interpreter else ""
    if not uv or not executable or not change.requirements:
        return None
    words = [*uv, "pip", "install", "--dry-run", "--no-config", "--python", executable, *change.requirements]
    ran = run_command(words, timeout, environment=uv_environment())
    return read_steps(ran.output) if ran.passed else None


def read_steps(output: str) -> tuple[Step, ...]:
    """Return the steps of what uv writes: lines such as " - peft==0.14.0" and " + peft==0.13.2"."""
    old: dict[str, str] = {}
    new: dict[str, str] = {}
    for sign, name, version in _STEP.findall(output):
        (old if sign == "-" else new)[canonicalize_name(name)] = version
    return tuple(Step(name, old.get(name), new.get(name)) for name in dict.fromkeys([*old, *new]))
