"""What the markers of requirements mean for a target interpreter, which may be another one than the running one."""

import re

from doctor.environment.facts import Interpreter

_SYSTEMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}
_IMPLEMENTATIONS = {"cpython": "CPython", "pypy": "PyPy", "graalpy": "GraalVM"}


def marker_values(interpreter: Interpreter, extra: str = "") -> dict[str, str]:
    """Return the values of marker variables, as packaging's Marker.evaluate takes them.

    Args:
        interpreter: the target.
        extra: the extra that is asked for; "" for none.
    """
    numbers = re.match(r"\d+(\.\d+)?", interpreter.version)
    full = interpreter.version if interpreter.version.count(".") > 1 else f"{interpreter.version}.0"
    return {
        "python_version": numbers.group() if numbers else "",
        "python_full_version": full,
        "implementation_name": interpreter.implementation,
        "implementation_version": full,
        "platform_python_implementation": _IMPLEMENTATIONS.get(interpreter.implementation, interpreter.implementation),
        "sys_platform": interpreter.sys_platform,
        "platform_system": _SYSTEMS.get(interpreter.sys_platform, ""),
        "os_name": "nt" if interpreter.sys_platform == "win32" else "posix",
        "platform_machine": interpreter.machine,
        "platform_release": "",
        "platform_version": "",
        "extra": extra,
    }
