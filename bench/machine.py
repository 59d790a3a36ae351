"""What the benches say of the machine."""

import platform
from pathlib import Path


def processor() -> str:
    """Return how many cores of which processor there are."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else platform.processor()
