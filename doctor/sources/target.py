"""The Python and the platform that a file is judged for: its markers hold there or they don't."""

import platform
import sys
from dataclasses import dataclass

from packaging.markers import Marker, UndefinedEnvironmentName, default_environment
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from doctor.environment.facts import Environment

_SYSTEMS = {"linux": ("posix", "Linux"), "darwin": ("posix", "Darwin"), "win32": ("nt", "Windows")}
# Pythons that one of a file's own choice is taken from, in this order, where this one isn't allowed.
_USUAL = ("3.12", "3.11", "3.13", "3.10", "3.14", "3.9", "3.8", "3.15", "3.7")


@dataclass(frozen=True)
class Target:
    """Where something would be installed.

    Args:
        python: version of Python, "3.11" or "3.11.7".
        sys_platform: "linux", "darwin" or "win32".
        machine: "x86_64", "arm64", ...
        assumed: whether the version is of this machine's Python or was chosen, and nobody has named it.
    """

    python: str
    sys_platform: str
    machine: str
    assumed: bool = False

    def holds(self, marker: Marker | str) -> bool:
        """Return whether a marker holds here; extras and dependency groups don't."""
        marker = Marker(marker) if isinstance(marker, str) else marker
        try:
            return bool(marker.evaluate({**self.variables(), "extra": ""}))
        except (UndefinedEnvironmentName, InvalidVersion):
            return True

    def variables(self) -> dict[str, str]:
        """Return the values of a marker's variables."""
        os_name, system = _SYSTEMS.get(self.sys_platform, ("posix", self.sys_platform))
        here: dict[str, str] = {key: str(value) for key, value in default_environment().items()}
        release = [*self.python.split("."), "0", "0"]
        return {
            **here,
            "os_name": os_name,
            "sys_platform": self.sys_platform,
            "platform_system": system,
            "platform_machine": self.machine,
            "python_version": ".".join(release[:2]),
            "python_full_version": ".".join(release[:3]),
            "implementation_version": ".".join(release[:3]),
            "platform_python_implementation": "CPython",
            "implementation_name": "cpython",
        }

    def allowed_by(self, requires_python: str) -> "Target":
        """Return the target, with a Python that a file allows where this one was only assumed and isn't allowed."""
        if not self.assumed or not requires_python:
            return self
        try:
            allowed = SpecifierSet(requires_python)
        except InvalidSpecifier:
            return self
        usable = (one for one in (self.python, *_USUAL) if allowed.contains(Version(one), prereleases=True))
        python = next(usable, None) or next((one for one in _USUAL if allowed.contains(f"{one}.99")), self.python)
        return Target(python, self.sys_platform, self.machine, assumed=True)


def target_of(environment: Environment | None = None, python: str | None = None) -> Target:
    """Return the target that an environment is; this Python's where none is known.

    Args:
        environment: an environment whose interpreter may be known.
        python: a version that somebody has named; it overrules.
    """
    found = environment.interpreter if environment else None
    version = python or (found.version if found else "")
    return Target(
        version or platform.python_version(),
        (found.sys_platform if found else "") or sys.platform,
        (found.machine if found else "") or platform.machine(),
        assumed=not version,
    )
