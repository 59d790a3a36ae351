"""A wheel that doesn't fit: which part of its name says so."""

import re
from collections.abc import Iterator
from typing import Any

from doctor.case import Case
from doctor.diagnosis.mechanism import Said
from doctor.diagnosis.told import Told
from doctor.diagnosis.torch_extensions import torch_of_wheel
from doctor.finding import Change, Finding

_BRANCH = "build/wrong_wheel"
_REFUSED = (
    r"(?P<wheel>[\w.+%-]+\.whl)['\"]? is not a supported wheel on this platform",
    r"(?:wheel filename|Invalid wheel filename)[^\n]*?['\"`](?P<wheel>[\w.+%-]+\.whl)",
    r"(?P<wheel>[\w.+%-]+\.whl)['\"`]?[^\n]*(?:incompatible with the current platform"
    r"|not compatible with|is invalid|is not a valid wheel)",
    r"(?:incompatible with the current platform|not compatible with)[^\n]*?(?P<wheel>[\w.+%-]+\.whl)",
)
_PYTHON = re.compile(r"(?:cp|py|pp|ip|jy|graalpy)\d+(?:_\d+)*")
_ABI = re.compile(r"cp\d+(?:t|d|m|mu|td)?|abi3t?|none|pypy\d+_pp\d+|graalpy\w+")
_PLATFORM = re.compile(
    r"any|win32|win_(?:amd64|arm64)|linux_\w+|(?:manylinux|musllinux)[\d_]\w*|macosx_\d+_\d+_\w+|ios_\w+|android_\w+"
    r"|(?:emscripten|wasi|pyodide)_\w+"
)
_SOURCE = "https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/"


def find_wrong_wheel(case: Case, knowledge: Any) -> Iterator[Said]:
    """Tell which tag of a refused wheel doesn't fit this Python or platform.

    Args:
        case: what is diagnosed.
        knowledge: not needed.

    Yields:
        One finding at most.
    """
    told = Told(case)
    match = next(filter(None, map(told.search, _REFUSED)), None)
    if match is None:
        return
    wheel = match["wheel"].replace("%2B", "+").replace("%2b", "+")
    line = told.line(match)
    parts = wheel.removesuffix(".whl").split("-")
    name = re.sub(r"[-_.]+", "-", parts[0]).lower()
    fault, fix, sure = _fault(parts, told)
    evidence = [line, f"tags of the name: {'-'.join(parts[-3:])}" if len(parts) >= 5 else "the name has too few parts"]
    if told.python:
        evidence.append(f"the interpreter is Python {told.python[0]}.{told.python[1]}")
    torch = torch_of_wheel(wheel)
    here = told.minor("torch")
    also = f" It is also built for torch {torch}, not {here}." if torch and here and torch != here else ""
    python = f"cp{told.python[0]}{told.python[1]}" if told.python else "this Python's"
    changes = [
        Change(
            "install",
            fix
            or f"Take the wheel of {name} whose tags are for this interpreter ({python}), "
            f"platform{f', torch {torch or here}' if torch or here else ''} and ABI.",
        ),
        Change(
            "install",
            "See which tags the interpreter accepts; without such a wheel build from source, or "
            "make an environment with the Python that the wheel is for.",
            commands=("python -m pip debug --verbose",),
        ),
    ]
    yield Finding(
        "wheel-does-not-fit",
        _BRANCH,
        "error",
        0.94 if sure else 0.85,
        f"The wheel of {name} can't be installed: {fault}.{also}",
        tuple(evidence),
        "pip installs a wheel only if all three tags of its name (Python, ABI, platform) are "
        "among those of the interpreter.",
        tuple(changes),
        "renaming the file: the compiled module inside stays what it is",
        "python -m pip debug --verbose",
        (name,),
        _SOURCE,
    )


def _fault(parts: list[str], told: Told) -> tuple[str, str, bool]:
    """Return what is wrong with a name's tags, what to do about it, and whether that is sure."""
    if len(parts) not in (5, 6):
        return (
            "its name is not that of a wheel (name-version-python-abi-platform)",
            "Download it again with its original name.",
            True,
        )
    python, abi, platform = parts[-3:]
    for tag, form, what in ((python, _PYTHON, "Python"), (abi, _ABI, "ABI"), (platform, _PLATFORM, "platform")):
        wrong = [one for one in tag.split(".") if not form.fullmatch(one)]
        if wrong:
            return (
                f"its {what} tag {wrong[0]} is not a valid one",
                "Get the wheel from its publisher again, or build it with `python -m build --wheel`.",
                True,
            )
    compiled = re.match(r"cp(\d)(\d+)", abi)
    if compiled and not any(re.match(rf"cp{compiled[1]}{compiled[2]}", one) for one in python.split(".")):
        return (
            f"no interpreter has the pair {python}-{abi}: a compiled wheel for CPython "
            f"{compiled[1]}.{compiled[2]} is tagged "
            f"cp{compiled[1]}{compiled[2]}-cp{compiled[1]}{compiled[2]}"
            " (converted from an egg, or renamed by hand)",
            f"Build the wheel anew with `python -m build --wheel` (bdist_wheel), so that it is "
            f"tagged cp{compiled[1]}{compiled[2]}-cp{compiled[1]}{compiled[2]}, or take another "
            f"build.",
            True,
        )
    here = told.python
    if here and not _fits_python(python, abi, here):
        made = re.match(r"[a-z]+(\d)(\d*)", python)
        which = f"{made[1]}.{made[2]}" if made and made[2] else python
        return (
            f"it is for Python {which}, and this is Python {here[0]}.{here[1]}",
            (f"Take the file whose tag is cp{here[0]}{here[1]} for this interpreter, or use Python {which}."),
            True,
        )
    if abi.endswith("t") and compiled:
        return "it is for the free-threaded build of Python", "Take the wheel without the t in its ABI tag.", True
    system = told.system if told.system != _system(platform) or told.case.environment.interpreter else None
    texts = told.text.replace("-".join(parts), "")
    if system is None:
        system = next(
            (
                name
                for pattern, name in (
                    (r"\bwindows\b|C:\\", "win32"),
                    (r"\bmac(os)?\b|darwin|apple", "darwin"),
                    (r"linux|ubuntu|debian|colab", "linux"),
                )
                if re.search(pattern, texts, re.IGNORECASE)
            ),
            None,
        )
    if system and _system(platform) and _system(platform) != system:
        names = {"win32": "Windows", "darwin": "macOS", "linux": "Linux"}
        return (
            f"it is for {names[_system(platform) or '']}, and this is {names.get(system, system)}",
            "Take the file for this system.",
            True,
        )
    machine = re.search(r"\b(aarch64|arm64|x86_64|amd64)\b", texts, re.IGNORECASE)
    made_for = re.search(r"(aarch64|arm64|x86_64|amd64|universal2)$", platform)
    same = {"arm64": "aarch64", "amd64": "x86_64"}
    if (
        machine
        and made_for
        and made_for[1] != "universal2"
        and same.get(machine[1].lower(), machine[1].lower()) != same.get(made_for[1], made_for[1])
    ):
        return (
            f"it is for {made_for[1]} processors, and this is {machine[1]}",
            "Take the file for this processor.",
            True,
        )
    glibc = re.search(r"manylinux_(\d+)_(\d+)", platform)
    if glibc:
        return f"it needs glibc {glibc[1]}.{glibc[2]} or newer, if its Python tag ({python}) fits", "", False
    if not here:
        return (
            f"its tags {python}-{abi}-{platform} are not among this interpreter's: most often the "
            f"Python version ({python}) is another",
            "",
            False,
        )
    return f"its tags {python}-{abi}-{platform} are not among this interpreter's", "", False


def _fits_python(python: str, abi: str, here: tuple[int, int]) -> bool:
    """Return whether a wheel's tags allow a version of Python."""
    for tag in python.split("."):
        found = re.match(r"(cp|py)(\d)(\d*)", tag)
        if not found:
            continue
        number = (int(found[2]), int(found[3]) if found[3] else 0)
        if (
            number == here
            or (tag.startswith("py") and number[0] == here[0] and number <= here)
            or (abi.startswith("abi3") and number <= here)
        ):
            return True
    return False


def _system(platform: str) -> str | None:
    """Return the system of a platform tag; None for any."""
    if platform.startswith("win"):
        return "win32"
    if platform.startswith("macosx"):
        return "darwin"
    return "linux" if "linux" in platform else None
