"""Old releases that were chosen without a word: by Python, glibc, pre-releases or bounds."""

import re
from collections.abc import Iterator

from packaging.version import Version

from doctor.case import Case
from doctor.diagnosis.mechanism import Known, Said
from doctor.diagnosis.moves import known_names, name_of, parsed, python_of
from doctor.diagnosis.releases import INSTEAD, chosen_by_resolver
from doctor.finding import Change, Finding
from doctor.knowledge.metadata import Release, accepts_python

# A release this many days younger is told of.
_GAP = 120
# Where nothing failed, one that is behind by less than this is only worth a note: most environments have some.
_LONG_GAP = 365
# glibc of systems that a text may name.
_SYSTEMS = {
    r"(?:CentOS|RHEL|Red Hat[\w ]*) ?(?:Linux )?(?:release )?7": (2, 17),
    r"(?:CentOS|RHEL|Rocky|Alma\w*|Red Hat[\w ]*) ?(?:Linux )?(?:Stream )?(?:release )?8": (2, 28),
    r"(?:CentOS|RHEL|Rocky|Alma\w*|Red Hat[\w ]*) ?(?:Linux )?(?:Stream )?(?:release )?9": (2, 34),
    r"Amazon Linux 2(?!0)": (2, 26),
    r"Ubuntu 18\.04": (2, 27),
    r"Ubuntu 20\.04": (2, 31),
    r"Ubuntu 22\.04": (2, 35),
    r"Debian (?:GNU/Linux )?(?:10|buster)": (2, 28),
    r"Debian (?:GNU/Linux )?(?:11|bullseye)": (2, 31),
    r"Debian (?:GNU/Linux )?(?:12|bookworm)": (2, 36),
}


def find_silently_old(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find releases that an installer chose though much newer ones are there."""
    python, glibc = python_of(case), glibc_of(case)
    lines = [line.strip() for line in case.failure.text.splitlines()] if case.failure else []
    asks = case.failure is None or (case.failure.kind in ("pip", "uv", "silent") and not case.failure.raised)
    for name in known_names(case):
        version, newest = case.environment.version(name), knowledge.metadata.newest(name)
        if version is not None and newest is None and chosen_by_resolver(case, name):
            yield _untabled(case, name, version)
        if version is None or newest is None or newest.version <= version:
            continue
        releases = knowledge.metadata.releases(name)
        release = next((one for one in releases if one.version == version), None)
        if release is None or (newest.uploaded - release.uploaded).days < _GAP:
            continue
        chosen = chosen_by_resolver(case, name) or any(
            re.fullmatch(rf"(?:Successfully installed )?{re.escape(name)}(?:==|-){re.escape(str(version))}", line, re.I)
            for line in lines
        )
        if not chosen and not asks:
            continue
        newer = [one for one in releases if one.version > version and not one.yanked]
        why = _why(knowledge, release, newer, python, glibc)
        if chosen or why[0]:
            yield _old(case, knowledge, name, release, newest, why, chosen)


def _untabled(case: Case, name: str, version: Version) -> Finding:
    """Return what is likely of a release that an installer is said to have chosen, of a project not in the snapshot."""
    python, bound = python_of(case), f"{name}>{version}"
    here = f" Python {python}," if python else " this Python,"
    return Finding(
        "old-release-chosen",
        "resolve/silent_old",
        "error",
        0.55,
        f"{name} {version} was chosen by the installer; newer releases, if there are, were passed over.",
        (
            next(
                (line.strip() for line in (case.failure.text if case.failure else "").splitlines() if name in line), ""
            ),
        ),
        f"An installer passes without a word over releases that{here} the platform or another requirement rules out.",
        (
            Change("system", f"Use a Python that its newer releases ask for (`pip index versions {name}`)."),
            Change("pin", f"Ask for {bound}: then what refuses it is told.", (bound,)),
        ),
        culprits=(name,),
        source="the text itself",
    )


def glibc_of(case: Case) -> tuple[int, int] | None:
    """Return the version of glibc of a case, where it is known or told."""
    interpreter, text = case.environment.interpreter, case.failure.text if case.failure else ""
    told = re.search(
        r"glibc[^\d\n]{0,3}(\d)\.(\d+)", f"{interpreter.libc if interpreter else ''}\n{text}", re.IGNORECASE
    )
    if told:
        return int(told[1]), int(told[2])
    return next((glibc for system, glibc in _SYSTEMS.items() if re.search(system, text, re.IGNORECASE)), None)


def _why(
    knowledge: Known, release: Release, newer: list[Release], python: str | None, glibc: tuple[int, int] | None
) -> tuple[str, str]:
    """Return why every newer release was passed over, as kind and what it asks for; "" where nothing tells."""
    if python and all(not accepts_python(one, python) for one in newer):
        return "python", newer[-1].requires_python
    if glibc and all(needs_glibc(one) > glibc for one in newer):
        return "glibc", ".".join(map(str, min(needs_glibc(one) for one in newer)))
    stopped = _only_prereleases(knowledge, release, newer[0])
    return ("prerelease", stopped) if stopped else ("", "")


def needs_glibc(release: Release) -> tuple[int, int]:
    """Return the oldest glibc that a release's wheels accept; (0, 0) where there are others, or a source."""
    found = []
    for wheel in release.wheels:
        platforms = wheel.split("-")[-1]
        if platforms == "any":
            return 0, 0
        found += [(int(one[1]), int(one[2])) for one in re.finditer(r"manylinux_(\d+)_(\d+)", platforms)]
        found += [(2, 17)] if "manylinux2014" in platforms else []
        found += [(2, 12)] if "manylinux2010" in platforms or "manylinux1" in platforms else []
    return (0, 0) if release.sdist or not found else min(found)


def _only_prereleases(knowledge: Known, release: Release, after: Release) -> str:
    """Return what the release after the chosen one asks for newly, and of which only pre-releases are in its range."""
    had = set(map(name_of, release.requires))
    for asked in parsed(line for line in after.requires if name_of(line) not in had):
        inside = [one for one in knowledge.metadata.releases(asked.name) if asked.specifier.contains(one.version, True)]
        if inside and all(one.version.is_prerelease for one in inside):
            return f"{asked.name}{asked.specifier}"
    return ""


def _old(
    case: Case, knowledge: Known, name: str, release: Release, newest: Release, why: tuple[str, str], chosen: bool
) -> Finding:
    kind, asked = why
    long = (newest.uploaded - release.uploaded).days >= _LONG_GAP
    text = case.failure.text if case.failure else ""
    lines = [line.strip() for line in text.splitlines() if name in line]
    wanted = next(
        (found["wanted"] or found["other"] for found in map(INSTEAD.search, lines) if found), str(newest.version)
    )
    bound = f"{name}>={wanted}"
    changes: tuple[Change, ...] = (Change("pin", f"Ask for {bound}, and read what refuses it.", (bound,)),)
    reason = (
        "An installer takes any release that all requirements allow: a lower bound that is too low, or a limit of "
        "another package, lets it fall back."
    )
    if kind == "python":
        reason = f"Newer releases ask for Python {asked}, so that installers pass over them without a word."
        changes = (Change("system", f"Use a Python of {asked}.", commands=(f"uv venv --python '{asked}'",)), *changes)
    elif kind == "glibc":
        reason = f"Newer releases have wheels for glibc {asked} or newer only, so that installers pass over them."
        changes = (Change("system", f"Use a system with glibc {asked} or newer, or a container of one."), *changes)
    elif kind == "prerelease":
        reason = (
            f"Newer releases ask for {asked}, of which there are pre-releases only: some installers go back for that."
        )
        more = ("uv>=0.12",) if case.environment.may_be("uv", ">=0.12") is False else ()
        changes = (
            Change("pin", f"Ask for {bound}: then it is chosen, or what stops it is told.", (bound, *more)),
            Change("option", "Allow the pre-release: uv pip install --prerelease if-necessary-or-explicit."),
        )
    return Finding(
        "old-release-chosen",
        "resolve/silent_old",
        "error" if chosen else "warning" if case.failure or long else "note",
        (0.78 if kind else 0.6) if chosen else 0.5,
        f"{name} {release.version} of {release.uploaded} was chosen; {newest.version} of {newest.uploaded} is there.",
        (next(iter(lines), f"{name} {release.version}"), f"declared metadata of {knowledge.metadata.date}"),
        reason,
        changes,
        not_this="Look for the fault in the model or the code: they run an old release",
        culprits=(name,),
        source=f"declared metadata of {knowledge.metadata.date}",
    )
