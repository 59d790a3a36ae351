"""C sources that are older than the Python that compiles them: the release that has a wheel for it."""

import re
from collections.abc import Iterator
from typing import Any

from packaging.utils import canonicalize_name

from doctor.case import Case
from doctor.diagnosis.mechanism import Said
from doctor.diagnosis.told import Told
from doctor.finding import Change, Finding

_SIGNS = (
    r"longintrepr\.h|PyThreadState\W* has no member named|_PyLong_AsByteArray|PyLongObject\W* has no member"
    r"|has no member named '(?:tp_print|f_code|ob_digit|curexc_type|cframe|use_tracing)'|\"ob_digit\": "
    r"|no member named 'ob_digit'|_PyInterpreterState_GetConfig|PyCode_New\W*[^\n]*too (?:few|many)"
    r"|too few arguments to function '_PyLong|_PyUnicode_FastCopyCharacters|implicit declaration of function '_?Py\w+'"
    r"|PyUnicode_(?:READY|WSTR|GET_SIZE)\W* undeclared"
)
_NAMED = (
    r"Failed building wheel for ([\w.-]+)|Could not build wheels for ([\w.-]+)|Failed to build (?!installable)([\w.-]+)"
    r"|Building wheel for ([\w.-]+)"
)


def release_with_wheel(project: str, python: tuple[int, int] | None, metadata: Any) -> str:
    """Return the requirement of the releases that have a ready wheel for a Python; the bare name where not known.

    Args:
        project: a distribution.
        python: version of Python, (3, 12); None where not known.
        metadata: released metadata.
    """
    if python is None:
        return project
    tag = re.compile(rf"cp{python[0]}{python[1]}-|cp3\d+-abi3-|py3-none-")
    fit = [
        one.version
        for one in metadata.releases(project)
        if not one.version.is_prerelease and not one.yanked and any(tag.match(wheel) for wheel in one.wheels)
    ]
    return f"{project}>={fit[0]}" if fit else project


def find_old_sources(case: Case, knowledge: Any) -> Iterator[Said]:
    """Tell which package's C sources don't compile with this Python, and which release has a wheel for it.

    Args:
        case: what is diagnosed.
        knowledge: released metadata; None where there is none.

    Yields:
        One finding at most.
    """
    told = Told(case)
    match = told.search(_SIGNS)
    if match is None:
        return
    named = told.search(_NAMED)
    project = str(canonicalize_name(next(one for one in named.groups() if one).rstrip("."))) if named else None
    python = f"Python {told.python[0]}.{told.python[1]}" if told.python else "this Python"
    if project and knowledge is not None:
        wanted = release_with_wheel(project, told.python, knowledge.metadata)
        newer = Change("pin", f"Take a release of {project} that has a wheel for {python}.", (wanted,))
    elif project:
        newer = Change("install", f"Take a newer release of {project}, which has a wheel for {python}.", (project,))
    else:
        newer = Change("install", f"Take a newer release of the package, which has a wheel for {python}.")
    older = min((3, 10), (told.python[0], told.python[1] - 1)) if told.python else (3, 10)
    yield Finding(
        "c-sources-older-than-python",
        "build/incompatible",
        "error",
        0.92,
        f"The C sources of {project or 'the package'} (made by an old Cython) don't compile with {python}.",
        (told.line(match),),
        "They reach into structures that newer Pythons changed (3.11 moved longintrepr.h, 3.12 and 3.13 changed more).",
        (
            newer,
            Change(
                "option",
                f"Or use an environment with an older Python ({older[0]}.{older[1]}).",
                commands=(f"uv venv --python {older[0]}.{older[1]}",),
            ),
        ),
        "installing headers: this one moved away with Python 3.11",
        culprits=(project,) if project else (),
        source="https://docs.python.org/3/whatsnew/3.11.html",
    )
