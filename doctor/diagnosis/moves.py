"""Where a distribution may move to: out of the releases that break something, or into those that have something.

A move ends at the newest release of a range that the rest of what is known to be here declares to go with: what others
need of it, what it needs of others, and Python's version. Only where there is none are declarations broken, and told.
"""

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from doctor.case import Case
from doctor.diagnosis.mechanism import Known
from doctor.finding import Change
from doctor.knowledge.metadata import Release, accepts_python
from doctor.knowledge.symbols import Span

_NAME, _EXTRA = re.compile(r"[A-Za-z0-9][\w.-]*"), re.compile(r"\bextra\s*==")
# How many releases a move counts that begins at a version nobody told.
_UNTOLD = 40


@dataclass(frozen=True)
class Move:
    """A move of one distribution.

    Args:
        change: what to install.
        to: the release that would be installed; None where none of the range is known.
        broken: declarations that the move breaks, a sentence each.
        steps: how many releases lie between here and there.
    """

    change: Change
    to: Version | None
    broken: tuple[str, ...]
    steps: int

    @property
    def cost(self) -> tuple[int, int]:
        """Sort key: what breaks least, then the shortest."""
        return len(self.broken), self.steps


def python_of(case: Case) -> str | None:
    """Return the version of Python of a case, "3.11", None where nobody told."""
    interpreter, failure = case.environment.interpreter, case.failure
    return (interpreter.version if interpreter else None) or (failure.platform.python if failure else None)


def known_names(case: Case) -> tuple[str, ...]:
    """Return the normalised names of all distributions that the case tells of."""
    here = case.environment
    return tuple(dict.fromkeys([*(one.name for one in here.installed), *(one.name for one in here.declared)]))


def in_spans(spans: Iterable[Span], version: Version) -> bool:
    """Return whether a release lies in one of the spans; what is far older than all that was read lies in none.

    A development release counts as the release that it leads to.
    """
    version = Version(version.base_version) if version.is_devrelease else version
    return any(
        span.covers(version) and (version >= span.first or version.release[:2] == span.first.release[:2])
        for span in spans
    )


def may_be_in(case: Case, project: str, spans: tuple[Span, ...]) -> bool | None:
    """Return whether the project's version here lies in spans; None where it may."""
    version = case.environment.version(project)
    if version is not None:
        return in_spans(spans, version)
    answers = [case.environment.may_be(project, span.specifier) for span in spans]
    return False if all(one is False for one in answers) else None


def requires_of(case: Case, knowledge: Known, name: str) -> tuple[Requirement, ...]:
    """Return what the release of a distribution that is here requires, without extras; () where not known."""
    installed, version = case.environment.find(name), case.environment.version(name)
    if installed and installed.requires:
        return tuple(parsed(installed.requires))
    releases = knowledge.metadata.releases(name)
    return next((tuple(parsed(one.requires)) for one in releases if one.version == version), ())


def parsed(lines: Iterable[str]) -> Iterator[Requirement]:
    """Yield the requirements of Requires-Dist lines that hold without an extra."""
    for line in lines:
        one = None if _EXTRA.search(line) else requirement(line)
        if one:
            yield one


@functools.cache
def requirement(line: str) -> Requirement | None:
    """Return a Requires-Dist line as a requirement, None where it is none; parsing is what takes the time here."""
    try:
        return Requirement(line)
    except InvalidRequirement:
        return None


def name_of(line: str) -> str:
    """Return the normalised name that a Requires-Dist line begins with, without parsing the rest."""
    found = _NAME.match(line)
    return canonicalize_name(found[0]) if found else ""


def needs(case: Case, knowledge: Known, project: str, but: str = "") -> Iterator[tuple[str, SpecifierSet]]:
    """Yield who of what is here requires which range of a project.

    Args:
        case: what is known.
        knowledge: metadata.
        project: the project that is required.
        but: a distribution that is not asked, as it is to move itself.
    """
    wanted = canonicalize_name(project)
    for name in known_names(case):
        if name in (wanted, canonicalize_name(but)):
            continue
        for one in requires_of(case, knowledge, name):
            if canonicalize_name(one.name) == wanted and str(one.specifier):
                yield name, one.specifier


def into(case: Case, knowledge: Known, project: str, spans: Iterable[Span], but: str = "") -> list[Move]:
    """Return the ways to move a project into spans of releases, the least costly first."""
    here = case.environment.version(project)
    ranges = []
    for span in spans:
        if here is not None and in_spans((span,), here):
            continue
        up = here is not None and here < span.first
        down = here is not None and not up
        if up or (here is None and span.end is None):
            ranges.append(f">={span.first}" + (f",<{span.end}" if span.end else ""))
        elif down and span.end:
            ranges.append(f"<{span.end}")
        elif span.specifier:
            ranges.append(span.specifier)
    return _moves(case, knowledge, project, ranges, but)


def python_for(case: Case, knowledge: Known, project: str, spans: Iterable[Span]) -> Iterator[Change]:
    """Yield the change of Python without which none of the releases in spans can be had; nothing where one can."""
    python = python_of(case)
    inside = [one for one in knowledge.metadata.releases(project) if in_spans(spans, one.version) and not one.yanked]
    if python and inside and not any(accepts_python(one, python) for one in inside):
        wanted = inside[0].requires_python
        text = (
            f"Use a Python of {wanted}, and {project} {inside[-1].version}: no release that would do is for {python}."
        )
        yield Change("system", text, commands=(f"uv venv --python '{wanted}'",))


def out_of(case: Case, knowledge: Known, project: str, spans: tuple[Span, ...], but: str = "") -> list[Move]:
    """Return the ways to move a project out of spans of releases, the least costly first."""
    here = case.environment.version(project)
    at = [span for span in spans if here is None or span.covers(here)][-1:]
    ranges = []
    for span in at:
        if span.end:
            ranges.append(f">={span.end}")
        if not span.from_start:
            ranges.append(f"<{span.first}")
    return _moves(case, knowledge, project, ranges, but)


def to_range(case: Case, knowledge: Known, project: str, specifier: str, but: str = "") -> list[Move]:
    """Return the way to move a project into one range, [] where it is there."""
    if case.environment.may_be(project, specifier):
        return []
    return _moves(case, knowledge, project, [specifier], but)


def _moves(case: Case, knowledge: Known, project: str, ranges: Iterable[str], but: str) -> list[Move]:
    made = [_move(case, knowledge, project, one, but) for one in dict.fromkeys(ranges)]
    return sorted((one for one in made if one), key=lambda one: one.cost)


def _move(case: Case, knowledge: Known, project: str, specifier: str, but: str) -> Move | None:
    releases = [one for one in knowledge.metadata.releases(project) if not one.yanked]
    inside = [one for one in releases if SpecifierSet(specifier).contains(one.version)]
    python = python_of(case)
    if python:
        inside = [one for one in inside if accepts_python(one, python)]
    if releases and not inside:
        return None
    wanted = [*needs(case, knowledge, project, but)]
    best: Release | None = None
    broken: tuple[str, ...] = ()
    for release in reversed(inside):
        bad = (*_refused(case, project, release, but), *_refusing(project, release, wanted))
        if best is None or len(bad) < len(broken):
            best, broken = release, bad
        if not bad:
            break
    limited = best is not None and best is not inside[-1]
    parts = specifier.split(",")
    if limited and best:  # its own limit is the narrower one
        parts = [*(one for one in parts if not one.startswith("<")), f"<={best.version}"]
    requirement = f"{project}{','.join(sorted(parts, key=lambda one: one[0] != '>'))}"
    verb = _verb(case, project, best)
    text = f"{verb} {project} {'to ' + str(best.version) if best else 'to a release of ' + specifier}."
    return Move(
        Change("pin", text, (requirement,), disturbs=broken),
        best.version if best else None,
        broken,
        _steps(case, project, releases, best),
    )


def _verb(case: Case, project: str, best: Release | None) -> str:
    here = case.environment.version(project)
    if here is None or best is None:
        return "Move"
    return "Raise" if best.version > here else "Lower"


def _steps(case: Case, project: str, releases: list[Release], best: Release | None) -> int:
    here = case.environment.version(project)
    if here is None or best is None:
        return _UNTOLD
    low, high = sorted((here, best.version))
    return sum(low < one.version <= high for one in releases)


def _refused(case: Case, project: str, release: Release, but: str) -> tuple[str, ...]:
    """Return what a release requires of what is here that is not so."""
    said = []
    for one in parsed(release.requires):
        here = case.environment.version(one.name)
        if here is None or canonicalize_name(one.name) == canonicalize_name(but):
            continue
        if one.marker is None and not one.specifier.contains(here, prereleases=True):
            said.append(f"{project} {release.version} asks for {one.name}{one.specifier}; {here} is here")
    return tuple(said)


def _refusing(project: str, release: Release, wanted: Iterable[tuple[str, SpecifierSet]]) -> tuple[str, ...]:
    """Return who of what is here asks for another range than a release lies in."""
    return tuple(
        f"{name} asks for {project}{specifier}" for name, specifier in wanted if not specifier.contains(release.version)
    )
