"""A compiled file that needs a newer glibc than the system has: whose it is, and how to get one that fits."""

from collections.abc import Iterator
from typing import Any

from packaging.version import Version

from doctor.case import Case
from doctor.diagnosis.library_tables import GLIBC_OF
from doctor.diagnosis.mechanism import Said
from doctor.diagnosis.told import Told
from doctor.diagnosis.torch_extensions import distribution_of
from doctor.finding import Change, Finding


def find_old_glibc(case: Case, knowledge: Any) -> Iterator[Said]:
    """Tell whose file needs a newer glibc, and the release or the build that does without.

    Args:
        case: what is diagnosed.
        knowledge: not needed.

    Yields:
        One finding at most.
    """
    told = Told(case)
    match = told.search(r"version [`'](GLIBC_(2\.\d+))' not found(?: \(required by ([^)\n]+)\))?")
    if match is None:
        return
    needed, number, path = match[1], match[2], match[3]
    project = distribution_of(path) if path else None
    changes = []
    known = GLIBC_OF.get(project or "")
    version = told.version(project) if project else None
    if known and Version(number) <= Version(known[1]) and (version is None or version >= Version(known[0])):
        text = f"Take {project} below {known[0]}: its ready wheels need no glibc {known[1]}."
        changes.append(Change("pin", text, (f"{project}<{known[0]}",)))
    name = project or "<package>"
    build = f"pip install --no-binary {name} --no-cache-dir --no-build-isolation --force-reinstall --no-deps {name}"
    changes += [
        Change(
            "install",
            f"{'Or build' if changes else 'Build'} {project or 'the package'} from source on this system: it then fits "
            f"its glibc.",
            commands=(build,),
        ),
        Change("install", "Or take a wheel for an older glibc: manylinux_2_17 or manylinux_2_28 in its name."),
        Change("system", "Or use a newer distribution or image."),
    ]
    file = f"the compiled file of {project}" if project else "the compiled file"
    yield Finding(
        "glibc-too-old",
        "import/system_library",
        "error",
        0.94,
        f"The C library of this system is older than what {file} needs ({needed}).",
        (told.line(match),),
        "glibc comes with the distribution (Debian 11 and Ubuntu 20.04: 2.31, Ubuntu 22.04: 2.35, Debian 12: 2.36) and "
        "can't be raised alone.",
        tuple(changes),
        "installing another glibc beside: it breaks the system",
        "ldd --version",
        (project,) if project else (),
        "https://peps.python.org/pep-0600/",
    )
