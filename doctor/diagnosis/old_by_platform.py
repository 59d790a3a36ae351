"""Releases that are old because newer ones have no wheel for this platform: installers take the last one that has."""

from collections.abc import Iterator
from functools import cache

from packaging.tags import parse_tag
from packaging.version import InvalidVersion, Version

from doctor.case import Case
from doctor.diagnosis.mechanism import Known
from doctor.diagnosis.relevance import confidence_for
from doctor.environment.facts import Interpreter
from doctor.finding import Change, Finding
from doctor.knowledge.metadata import Release, accepts_python

_GAP = 120  # days by which a release must be behind


def find_old_by_platform(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find installed releases that are the newest with a wheel for this platform, long after newer ones came."""
    interpreter = case.environment.interpreter
    if interpreter is None or not interpreter.tags or interpreter.fault:
        return
    accepted = frozenset(interpreter.tags)
    for one in case.environment.installed:
        if one.name not in knowledge.metadata.projects or case.environment.find(one.name) is not one:
            continue
        try:
            version = Version(one.version)
        except InvalidVersion:
            continue
        newer = [
            release
            for release in knowledge.metadata.releases(one.name)
            if release.version > version
            and not release.yanked
            and not release.version.is_prerelease
            and accepts_python(release, interpreter.version)
        ]
        here = next((each for each in knowledge.metadata.releases(one.name) if each.version == version), None)
        if not newer or here is None or any(_usable(release, accepted) for release in newer):
            continue
        newest = newer[-1]
        if (newest.uploaded - here.uploaded).days < _GAP:
            continue
        yield Finding(
            "old-by-platform",
            "resolve/silent_old",
            "note",
            confidence_for(case, 0.7, one.name, *one.modules[:2]),
            f"{one.name} {one.version} of {here.uploaded} is the newest with a wheel for this platform;"
            f" {newest.version} of {newest.uploaded} is there.",
            (
                f"wheels of {newest.version}: {', '.join(sorted(newest.wheels)[:4])}",
                f"this interpreter takes {_shown(interpreter)}",
            ),
            "An installer that finds no wheel of a release goes back to the last one that has one, without a word.",
            (
                Change(
                    "system", "Use a platform that the newer wheels are for: a newer Linux (glibc), or another Python."
                ),
            ),
            not_this=f"pip install --upgrade {one.name}: it is at the newest that fits",
            check=f"python -c \"import importlib.metadata as m; assert m.version('{one.name}') != '{one.version}'\"",
            culprits=(one.name,),
            source=f"declared metadata of {knowledge.metadata.date_of(one.name)}",
        )


def _usable(release: Release, accepted: frozenset[str]) -> bool:
    return release.sdist or not release.wheels or any(_tags(wheel) & accepted for wheel in release.wheels)


@cache
def _tags(wheel: str) -> frozenset[str]:
    try:
        return frozenset(map(str, parse_tag(wheel)))
    except ValueError:
        return frozenset()


def _shown(interpreter: Interpreter) -> str:
    return f"{interpreter.tags[0]} and older ({interpreter.libc or interpreter.sys_platform})"
