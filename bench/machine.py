"""What the benches say of the machine."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def processor() -> str:
    """Return how many cores of which processor there are."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else platform.processor()


def installed(names: Sequence[str]) -> list[str]:
    """Return each package with its version, or that it is not installed.

    Args:
        names: packages.
    """
    told = []
    for name in names:
        try:
            told.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            told.append(f"{name} is not installed")
    return told
