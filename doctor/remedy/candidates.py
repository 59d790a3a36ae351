"""The changes of a finding as concrete candidates, the smallest first."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from doctor.environment.facts import Environment
from doctor.finding import Change, Finding
from doctor.remedy.disturbance import breaks, moves_along
from doctor.remedy.known_releases import KnownRelease, KnownReleases, WithMetadata, target_version
from doctor.remedy.requirements import marker_values, needs, parse_requirement, unmet_by

# What others are compiled against, and what takes gigabytes: moving it moves half of an environment.
_HEAVY = frozenset({"torch", "tensorflow", "jax", "jaxlib", "triton", "mxnet", "paddlepaddle-gpu"})
_UNKNOWN = 10_000  # releases between two versions of which one is not known


@dataclass(frozen=True, order=True)
class Size:
    """How big a change is. Sizes compare field by field, in this order.

    Args:
        moved: distributions that it installs, moves or removes by name: one pin goes before a pair.
        broken: declared needs of other installed distributions that are met now and would not be after it.
        heavy: how many of the moved ones others are compiled against, such as torch.
        along: distributions that must move with it, by what the new version declares.
        majors: difference of the first numbers of the versions, added up.
        releases: releases between what is installed and what will be, added up.
        down: how many are moved to an older version: of two equal moves the newer one is taken.
    """

    moved: int
    broken: int
    heavy: int
    along: int
    majors: int
    releases: int
    down: int


def candidates(finding: Finding, environment: Environment, knowledge: WithMetadata) -> tuple[Change, ...]:
    """Return what may mend a finding, to be tried in this order.

    The order, each rule where the ones before are equal (`Size`): fewer distributions moved by name; fewer declared
    needs of other installed distributions broken; torch and its like left where they are; fewer others moved along;
    fewer majors; fewer releases between; newer rather than older; then as the finding has them. What moves no
    distribution (rename a file, set a variable, restart) keeps its place among the others, for its weight can't be
    compared with theirs.

    How far a range above what is installed moves is counted to its nearest version. It stays within that version's
    major: "transformers>=4.43" becomes "transformers>=4.43,<5". Where the newest of it needs what is not there, it
    becomes one version: the last patch of the nearest minor whose needs are met, or else of the nearest. Behind all
    others come, for such ranges, the nearest version of each and the range as it was written.

    Args:
        finding: what is mended.
        environment: what is known to be installed.
        knowledge: released versions.
    """
    first: list[tuple[int, Change]] = []
    more: list[tuple[bool, Size, int, Change]] = []
    sized: list[tuple[Size, int, Change]] = []
    for place, change in enumerate(finding.changes):
        if not change.requirements and not change.remove:
            first.append((place, change))
            continue
        made = list(_concrete(change, environment, knowledge.metadata))
        sized.append((size_of(made[0], environment, knowledge), place, made[0]))
        more += [(one == change, size_of(one, environment, knowledge), place, one) for one in made[1:]]
    slots = iter(sorted(sized, key=lambda one: one[:2]))
    still = dict(first)
    ordered = [still[place] if place in still else next(slots)[2] for place in range(len(finding.changes))]
    ordered += [one[3] for one in sorted(more, key=lambda one: one[:3])]
    once: dict[object, Change] = {}
    for change in ordered:
        once.setdefault(_meaning(change), change)
    return tuple(once.values())


def _meaning(change: Change) -> object:
    """Return what a change does, however its ranges are written."""
    parsed = [parse_requirement(text) for text in change.requirements]
    wanted = frozenset(
        (canonicalize_name(one.name), one.specifier, frozenset(one.extras), str(one.marker)) for one in parsed if one
    )
    return (wanted, change.remove, change.environment) if wanted or change.remove else change


def size_of(change: Change, environment: Environment, knowledge: WithMetadata) -> Size:
    """Return how far a change moves an environment; what is not known counts as far."""
    majors = releases = down = heavy = moved = 0
    for text in change.requirements:
        requirement = parse_requirement(text)
        if requirement is None:
            continue
        here = environment.version(requirement.name)
        if here and requirement.specifier.contains(here, prereleases=True):
            continue  # it is only held, or what it needs moves along
        moved += 1
        heavy += canonicalize_name(requirement.name) in _HEAVY
        there = _least(requirement, here, environment, knowledge.metadata)
        if here is None or there is None:
            releases += 0 if here is None and environment.complete else _UNKNOWN
            continue
        majors += abs(there.major - here.major)
        releases += _between(requirement.name, here, there, knowledge.metadata)
        down += there < here
    removed = [name for name in change.remove if name not in map(_name_of, change.requirements)]
    return Size(
        max(1, moved + len(removed)), len(breaks(change, environment, knowledge)), heavy,
        len(moves_along(change, environment, knowledge)), majors, releases, down,
    )  # fmt: skip


def _name_of(text: str) -> str:
    requirement = parse_requirement(text)
    return canonicalize_name(requirement.name) if requirement else text


def _between(name: str, here: Version, there: Version, known: KnownReleases) -> int:
    low, high = sorted((here, there))
    versions = [one.version for one in known.releases(name) if not one.version.is_prerelease]
    if not versions:
        return 10 * abs(there.minor - here.minor) + abs(there.micro - here.micro) + 1
    return max(1, sum(low < version <= high for version in versions))


def _least(
    requirement: Requirement, here: Version | None, environment: Environment, known: KnownReleases
) -> Version | None:
    """Return the version that a requirement must at least be moved to."""
    if here and _upgrades(requirement, here):
        reachable = _reachable(requirement, here, environment, known)
        if reachable:
            return reachable[0].version
    return target_version(requirement, environment, known)


def _concrete(change: Change, environment: Environment, known: KnownReleases) -> Iterator[Change]:
    """Yield a change as it is best made, then with the nearest versions of its ranges, then as it was written."""
    best = tuple(_best(text, environment, known) for text in change.requirements)
    yield replace(change, requirements=best)
    nearest = tuple(_nearest(text, environment, known) or text for text in best)
    for more in (nearest, change.requirements):
        if more != best:
            yield replace(change, requirements=more)


def _best(text: str, environment: Environment, known: KnownReleases) -> str:
    requirement = parse_requirement(text)
    here = environment.version(requirement.name) if requirement else None
    if requirement is None or here is None or not _upgrades(requirement, here):
        return text
    reachable = _reachable(requirement, here, environment, known)
    if not reachable:
        return text
    major = reachable[0].version.major
    within = [one for one in reachable if one.version.major == major]
    if not _unmet(within[-1], environment):
        return text if len(within) == len(reachable) else _written(requirement, f"{requirement.specifier},<{major + 1}")
    last_of_minor = {one.version.release[:2]: one for one in within}
    met = (one for one in last_of_minor.values() if not _unmet(one, environment))
    return _written(requirement, f"=={next(met, next(iter(last_of_minor.values()))).version}")


def _nearest(text: str, environment: Environment, known: KnownReleases) -> str | None:
    """Return an upgrade to the last patch of the nearest minor version; None where nothing is nearer."""
    requirement = parse_requirement(text)
    here = environment.version(requirement.name) if requirement else None
    if requirement is None or here is None or not _upgrades(requirement, here):
        return None
    reachable = [one.version for one in _reachable(requirement, here, environment, known)]
    if not reachable:
        return None
    nearest = max(one for one in reachable if one.release[:2] == reachable[0].release[:2])
    return None if nearest == reachable[-1] else _written(requirement, f"=={nearest}")


def _upgrades(requirement: Requirement, here: Version) -> bool:
    """Return whether a range lies above a version, and leaves a choice."""
    if requirement.specifier.contains(here, prereleases=True):
        return False
    return any(part.operator in (">=", ">", "~=") for part in requirement.specifier)


def _reachable(
    requirement: Requirement, here: Version, environment: Environment, known: KnownReleases
) -> list[KnownRelease]:
    """Return the releases of a range above a version that this Python can have, ascending."""
    python = environment.interpreter.version if environment.interpreter else None
    return [
        one for one in known.releases(requirement.name)
        if one.version > here and not one.yanked and not one.version.is_prerelease
        and requirement.specifier.contains(one.version)
        and (python is None or known.newest(requirement.name, python=python, specifier=f"=={one.version}"))
    ]  # fmt: skip


def _unmet(release: KnownRelease, environment: Environment) -> list[Requirement]:
    values = marker_values(environment.interpreter)
    return [one for one in needs(release.requires, values) if unmet_by(environment, one)]


def _written(requirement: Requirement, specifier: str) -> str:
    """Return a requirement with another range."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    marker = f" ; {requirement.marker}" if requirement.marker else ""
    return f"{requirement.name}{extras}{specifier}{marker}"
