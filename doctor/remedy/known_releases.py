"""What a remedy asks of the knowledge about released versions; doctor/knowledge/ answers it."""

from collections.abc import Sequence
from datetime import date
from typing import Protocol

from packaging.requirements import Requirement
from packaging.version import Version

from doctor.environment.facts import Environment


class KnownRelease(Protocol):
    """A released version."""

    @property
    def version(self) -> Version:
        """Its version."""

    @property
    def requires(self) -> tuple[str, ...]:
        """Its Requires-Dist lines."""

    @property
    def yanked(self) -> bool:
        """Whether it was taken back."""


class KnownReleases(Protocol):
    """Released versions of some projects."""

    def releases(self, name: str) -> Sequence[KnownRelease]:
        """Return the releases of a project in ascending order, none where it is not known."""

    def newest(
        self, name: str, *, before: date | None = None, python: str | None = None, specifier: str = ""
    ) -> KnownRelease | None:
        """Return the newest release of a range for a Python version."""


class WithMetadata(Protocol):
    """The knowledge, as far as a remedy asks it."""

    @property
    def metadata(self) -> KnownReleases:
        """Released versions."""


def target_version(requirement: Requirement, environment: Environment, known: KnownReleases) -> Version | None:
    """Return the version that installing a requirement brings: the pinned one, or the newest for this Python."""
    release = target_release(requirement, environment, known)
    if release:
        return release.version
    pinned = [part.version for part in requirement.specifier if part.operator == "==" and "*" not in part.version]
    return Version(pinned[0]) if pinned else None


def target_release(requirement: Requirement, environment: Environment, known: KnownReleases) -> KnownRelease | None:
    """Return the release that installing a requirement brings; None where none is known."""
    python = environment.interpreter.version if environment.interpreter else None
    return known.newest(requirement.name, python=python, specifier=str(requirement.specifier))
