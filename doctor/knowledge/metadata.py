"""Released versions of projects and what they declare, from a snapshot that says its date."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from constants import ARTIFACTS_DIR
from doctor.knowledge.module_owners import OWNERS
from doctor.knowledge.packed import INDEX, Packed

SHIPPED = Path(__file__).resolve().parent / "metadata.zip"
REFRESHED = ARTIFACTS_DIR / "doctor" / "metadata.zip"


@dataclass(frozen=True)
class Release:
    """A release of a project.

    Args:
        version: its version.
        uploaded: the day on which its first file came to the index.
        requires: Requires-Dist lines, of the Linux wheel where wheels differ.
        requires_python: its Requires-Python; empty where it has none.
        yanked: whether all of its files were withdrawn.
        wheels: compressed tags of its wheels, "cp311-cp311-manylinux_2_28_x86_64".
        sdist: whether it has a source distribution.
        unread: whether what it requires could not be read, so that `requires` says nothing.
    """

    version: Version
    uploaded: datetime.date
    requires: tuple[str, ...] = ()
    requires_python: str = ""
    yanked: bool = False
    wheels: tuple[str, ...] = ()
    sdist: bool = False
    unread: bool = False


class Metadata:
    """A snapshot of releases; of several, each project's newest is used.

    Args:
        *paths: packed snapshots; without any, the shipped one and the one that was refreshed since.
    """

    def __init__(self, *paths: Path) -> None:
        self._packed = [Packed(path) for path in paths or (SHIPPED, REFRESHED)]
        self._read: dict[str, dict[str, Any]] = {}
        self._releases: dict[str, tuple[Release, ...]] = {}

    @cached_property
    def _indexes(self) -> list[dict[str, Any]]:
        """Index of each snapshot."""
        return [packed.read(INDEX) for packed in self._packed]

    @property
    def date(self) -> str:
        """Day on which every project had been looked up, "2026-11-28"; empty where there is no snapshot."""
        days = [self.date_of(name) for name in self.projects]
        return min(days, default="")

    def date_of(self, name: str) -> str:
        """Return the day on which a project was looked up, empty where it is not in the snapshot."""
        wanted = canonicalize_name(name)
        return max((index.get("dates", {}).get(wanted, "") for index in self._indexes), default="")

    @cached_property
    def projects(self) -> frozenset[str]:
        """Normalised names of the projects in the snapshot."""
        return frozenset(name for index in self._indexes for name in index.get("dates", {}))

    def releases(self, name: str) -> tuple[Release, ...]:
        """Return a project's releases by version, the oldest first; () where the project is not in the snapshot.

        Pre-releases are left out, unless the project has nothing else: see `prereleases`.
        """
        wanted = canonicalize_name(name)
        if wanted not in self._releases:
            self._releases[wanted] = unpacked(self.packed(wanted))
        return self._releases[wanted]

    def prereleases(self, name: str) -> int:
        """Return how many pre-releases a project has."""
        return int(self.packed(name).get("prereleases", 0))

    def newest(
        self, name: str, *, before: datetime.date | None = None, python: str | None = None, specifier: str = ""
    ) -> Release | None:
        """Return the newest release that fits, no pre-release and not yanked; None where there is none.

        Args:
            name: name of the project.
            before: only what was uploaded before this day.
            python: only what accepts this Python, "3.11"; whether there is a wheel for it is not looked at.
            specifier: only what lies in this range.
        """
        allowed = SpecifierSet(specifier)
        for release in reversed(self.releases(name)):
            if release.yanked or release.version.is_prerelease or release.version not in allowed:
                continue
            if before and release.uploaded >= before:
                continue
            if python and not accepts_python(release, python):
                continue
            return release
        return None

    def owners(self, module: str) -> tuple[str, ...]:
        """Return the distributions that install a top-level module, the usual one first; () where not known.

        Args:
            module: a module's name; of "google.protobuf.message" the longest known beginning decides.
        """
        parts = module.split(".")
        for end in range(len(parts), 0, -1):
            name = ".".join(parts[:end])
            known = list(OWNERS.get(name, ()))
            for index in self._indexes:
                known += [owner for owner in index.get("modules", {}).get(name, ()) if owner not in known]
            if known:
                return tuple(known)
        same = canonicalize_name(parts[0])
        return (same,) if same in self.projects else ()

    def packed(self, name: str) -> dict[str, Any]:
        """Return what the newest snapshot of a project holds, as it is packed; {} where there is none."""
        wanted = canonicalize_name(name)
        if wanted not in self._read:
            dated = [
                (index["dates"][wanted], number)
                for number, index in enumerate(self._indexes)
                if wanted in index.get("dates", {})
            ]
            self._read[wanted] = self._packed[max(dated)[1]].read(f"{wanted}.json") if dated else {}
        return self._read[wanted]


def accepts_python(release: Release, python: str) -> bool:
    """Return whether a release's Requires-Python accepts a Python; True where it cannot be understood."""
    try:
        wanted = SpecifierSet(release.requires_python)
    except InvalidSpecifier:
        return True
    # "3.11" stands for some 3.11.x: ">=3.11.2" doesn't rule it out.
    tried = [python] if python.count(".") >= 2 else [f"{python}.0", f"{python}.99"]
    return any(wanted.contains(one, prereleases=True) for one in tried)


def unpacked(project: Mapping[str, Any]) -> tuple[Release, ...]:
    """Return the releases of a project's member: see build_metadata.packed."""
    if not project:
        return ()
    lines, tags = project["lines"], project["tags"]
    wheels = [tuple(tags[number] for number in numbers) for numbers in project["wheels"]]
    requires = [tuple(lines[number] for number in numbers) for numbers in project["requires"]]
    releases = []
    for version, day, needs, python, has, flags in project["releases"]:
        releases.append(
            Release(
                Version(version),
                datetime.date.fromisoformat(day),
                requires[needs],
                python,
                "y" in flags,
                wheels[has],
                "s" in flags,
                "u" in flags,
            )
        )
    return tuple(releases)
