"""The wheel tags that an interpreter accepts, worked out from its facts: it may be another one than the running one."""

import re
from collections.abc import Iterator

from packaging import tags

from doctor.environment.facts import Interpreter

_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


def accepted_tags(interpreter: Interpreter, abi_flags: str, soabi: str | None, mac: str) -> tuple[str, ...]:
    """Return the tags of wheels that an interpreter accepts, best first.

    Args:
        interpreter: its version, implementation, platform, machine and libc are read.
        abi_flags: what its ABI's name ends in: "t" without the global lock, "d" in a debug build, "m" before 3.8.
        soabi: its SOABI such as "pypy310-pp73-x86_64-linux-gnu", which only PyPy's tags need.
        mac: version of macOS, "" elsewhere.

    Returns:
        Tags such as "cp311-cp311-manylinux_2_28_x86_64".
    """
    numbers = re.match(r"(\d+)\.(\d+)", interpreter.version)
    if not numbers:
        return ()
    version = (int(numbers[1]), int(numbers[2]))
    platforms = list(platform_tags(interpreter, mac))
    short = f"{version[0]}{version[1]}"
    if interpreter.implementation == "cpython":
        own = tags.cpython_tags(version, [f"cp{short}{abi_flags}"], platforms)
        name = f"cp{short}"
    else:
        name = f"pp{short}" if interpreter.implementation == "pypy" else f"{interpreter.implementation}{short}"
        parts = (soabi or "").split("-")
        own = tags.generic_tags(name, ["_".join(parts[:2])] if len(parts) > 1 else ["none"], platforms)
    found = [*map(str, own), *map(str, tags.compatible_tags(version, name, platforms))]
    return tuple(dict.fromkeys(found))


def platform_tags(interpreter: Interpreter, mac: str = "") -> Iterator[str]:
    """Yield the platform parts of tags that an interpreter accepts, best first."""
    machine = interpreter.machine
    if interpreter.sys_platform == "linux":
        libc, _, text = (interpreter.libc or "").partition(" ")
        numbers = re.match(r"(\d+)\.(\d+)", text)
        if libc == "glibc" and numbers and numbers[1] == "2":
            oldest = 5 if machine in ("x86_64", "i686") else 17
            for minor in range(int(numbers[2]), oldest - 1, -1):
                yield f"manylinux_2_{minor}_{machine}"
                if minor in _LEGACY:
                    yield f"{_LEGACY[minor]}_{machine}"
        elif libc == "musl" and numbers:
            for minor in range(int(numbers[2]), -1, -1):
                yield f"musllinux_{numbers[1]}_{minor}_{machine}"
        yield f"linux_{machine}"
    elif interpreter.sys_platform == "darwin":
        numbers = re.match(r"(\d+)\.(\d+)", mac)
        yield from tags.mac_platforms((int(numbers[1]), int(numbers[2])) if numbers else (14, 0), machine)
    elif interpreter.sys_platform == "win32":
        yield {"AMD64": "win_amd64", "ARM64": "win_arm64", "arm64": "win_arm64"}.get(machine, "win32")
    else:
        yield re.sub(r"[-.]", "_", f"{interpreter.sys_platform}_{machine}")
