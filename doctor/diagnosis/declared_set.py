"""What a file's pins and ranges show to be wrong before anything is installed: by released metadata alone."""

from collections.abc import Iterator
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from doctor.case import Case
from doctor.diagnosis.mechanism import Known, Said
from doctor.environment.facts import Declared, Environment
from doctor.finding import Change, Finding
from doctor.knowledge.metadata import Metadata, Release, accepts_python
from doctor.remedy.requirements import marker_values, needs

_PYTHON = "python"  # under which a file's Requires-Python is declared
_OLD_DAYS = 180  # by how much an older release that would be chosen must be older to be told


@dataclass(frozen=True)
class _Pinned:
    """A declared distribution with the one release that it is pinned to, where that is known."""

    declared: Declared
    version: Version
    release: Release | None


def find_declared_faults(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find what is wrong with a file's requirements; nothing for installed environments and for failures.

    Args:
        case: what is diagnosed.
        knowledge: released metadata.

    Yields:
        Findings.
    """
    environment = case.environment
    if case.failure is not None or environment.complete or not environment.declared:
        return
    metadata: Metadata = knowledge.metadata
    python = environment.interpreter.version if environment.interpreter else ""
    pinned = _pinned(environment, metadata)
    yield from _contradictions(environment, metadata)
    for one in pinned:
        yield from _judged(one, python, environment, metadata)
    yield from _conflicts(pinned, environment, metadata)
    if python:
        yield from _silently_old(environment, python, metadata)


def _pinned(environment: Environment, metadata: Metadata) -> list[_Pinned]:
    found: list[_Pinned] = []
    for one in environment.declared:
        version = Environment("", declared=(one,)).version(one.name) if one.name != _PYTHON else None
        if version is not None and one.name not in {each.declared.name for each in found}:
            release = next((each for each in metadata.releases(one.name) if _same(each.version, version)), None)
            found.append(_Pinned(one, version, release))
    return found


def _same(release: Version, pinned: Version) -> bool:
    """Whether a pin means a release: torch==2.6.0+cu124 means 2.6.0."""
    return release == pinned or (pinned.local is not None and release == Version(pinned.public))


def _contradictions(environment: Environment, metadata: Metadata) -> Iterator[Finding]:
    """Find one name declared twice, in ranges that no release is in."""
    lines: dict[str, list[Declared]] = {}
    for one in environment.declared:
        if one.specifier and one.name != _PYTHON:
            lines.setdefault(one.name, []).append(one)
    for name, several in lines.items():
        together = ",".join(one.specifier for one in several)
        if len({one.specifier for one in several}) > 1 and environment.may_be(name, together) is not True:
            known = metadata.releases(name)
            possible = any(SpecifierSet(together).contains(one.version, prereleases=True) for one in known)
            if (known and not possible) or (not known and environment.may_be(name, "") is False):
                yield Finding(
                    "declared-twice", "resolve/conflict", "error", 0.97,
                    f"{name} is declared {len(several)} times, and no release is in all of the ranges.",
                    tuple(f"{one.place}: {one.text or one.name + one.specifier}" for one in several),
                    "An installer takes all lines together and finds nothing.",
                    (Change("code", f"Keep one of the lines of {name}, or loosen one of them."),),
                    culprits=(name,), source="the file itself",
                )  # fmt: skip


def _judged(one: _Pinned, python: str, environment: Environment, metadata: Metadata) -> Iterator[Finding]:
    name, version, release = one.declared.name, one.version, one.release
    place = f"{one.declared.place}: {one.declared.text or name}"
    releases = metadata.releases(name)
    if releases and release is None and not version.is_prerelease and not version.is_devrelease:
        newest = metadata.newest(name, python=python or None)
        later = newest is not None and version > releases[-1].version
        nearest = _nearest(version, releases)
        yield Finding(
            "no-such-release", "resolve/no_wheel", "warning" if later else "error", 0.5 if later else 0.93,
            f"There is no {name} {version}" + (f": the newest known is {releases[-1].version}." if later else "."),
            (place, f"known releases around it: {nearest}"),
            f"It may be newer than the metadata of {metadata.date_of(name)}." if later else
            "The index has no such version, so that nothing can be installed.",
            (Change("pin", f"Take {newest.version}, the newest." if newest else "Take one that there is.",
                    (f"{name}=={newest.version}",) if newest else ()),),
            culprits=(name,), source=f"index of {metadata.date_of(name)}",
        )  # fmt: skip
    if release is None:
        return
    if release.yanked:
        below = metadata.newest(name, python=python or None, specifier=f"<{version.base_version}")
        other = below or metadata.newest(name)
        yield Finding(
            "yanked-release", "resolve/no_wheel", "warning", 0.9,
            f"{name} {version} was withdrawn (yanked) by its authors.", (place,),
            "Installers still take it where it is pinned, with a warning; something was found to be wrong with it.",
            (Change("pin", f"Take {other.version}." if other else "Take another.",
                    (f"{name}=={other.version}",) if other else ()),),
            culprits=(name,), source=f"index of {metadata.date_of(name)}",
        )  # fmt: skip
    if python and not accepts_python(release, python):
        yield _wrong_python(one, place, python, metadata)
    elif python and (why := _no_file(release, environment)):
        other = next((each for each in reversed(releases) if not each.yanked and accepts_python(each, python)
                      and not _no_file(each, environment)), None)  # fmt: skip
        changes = (
            [Change("pin", f"Take {name} {other.version}, which has one.", (f"{name}=={other.version}",))]
            if other
            else []
        )
        changes.append(Change("code", f"Say in the file that {name} is for other platforms: "
                              f"{name}=={version}; sys_platform == 'linux'."))  # fmt: skip
        yield Finding(
            "no-file-for-target", "resolve/no_wheel", "error", 0.85,
            f"{name} {version} has no file for {why}.",
            (place, f"its wheels: {', '.join(release.wheels[:4])}"),
            "It has no source distribution either, so that nothing can be installed.",
            tuple(changes), culprits=(name,), source=f"index of {metadata.date_of(name)}",
        )  # fmt: skip


def _wrong_python(one: _Pinned, place: str, python: str, metadata: Metadata) -> Finding:
    name, release = one.declared.name, one.release
    assert release is not None
    other = metadata.newest(name, python=python)
    changes = [Change("pin", f"Take {name} {other.version}, the newest that accepts Python {python}.",
                      (f"{name}=={other.version}",))] if other else []  # fmt: skip
    changes.append(
        Change(
            "environment",
            f"Or use a Python that it accepts: {release.requires_python}.",
            commands=("uv venv --python 3.12",),
        )
    )
    return Finding(
        "pinned-for-other-python", "resolve/no_wheel", "error", 0.95,
        f"{name} {one.version} requires Python {release.requires_python}, and the file is judged for {python}.",
        (place, f"Requires-Python of {name} {one.version}: {release.requires_python}"),
        "pip refuses it; uv overlooks upper limits and installs what was never tried.",
        tuple(changes), culprits=(name,), source=f"index of {metadata.date_of(name)}",
    )  # fmt: skip


def _nearest(version: Version, releases: tuple[Release, ...]) -> str:
    below = [one.version for one in releases if one.version < version][-2:]
    above = [one.version for one in releases if one.version > version][:2]
    return ", ".join(map(str, (*below, *above)))


def _no_file(release: Release, environment: Environment) -> str | None:
    """Return the target that a release has no wheel for and no source; None where it has, or nobody can tell."""
    interpreter = environment.interpreter
    if interpreter is None or release.sdist or not release.wheels:
        return None
    prefix = {"linux": ("linux", "manylinux", "musllinux"), "darwin": ("macosx",), "win32": ("win",)}
    machines = {"x86_64": ("x86_64", "amd64", "universal2"), "AMD64": ("amd64",), "arm64": ("arm64", "universal2"),
                "aarch64": ("aarch64",)}  # fmt: skip
    short = "".join(interpreter.version.split(".")[:2])
    number = int(interpreter.version.split(".")[1]) if "." in interpreter.version else 0
    system_fits = False
    for wheel in release.wheels:
        pythons, abis, platforms = ([*part.split(".")] for part in wheel.split("-")[-3:])
        fits = "any" in platforms or any(
            one.startswith(prefix.get(interpreter.sys_platform, ("",)))
            and one.endswith(machines.get(interpreter.machine, ("",)))
            for one in platforms
        )
        system_fits = system_fits or fits
        stable = "abi3" in abis and any(
            one[:3] == "cp3" and one[3:].isdigit() and int(one[3:]) <= number for one in pythons
        )
        if fits and (
            stable or f"cp{short}" in pythons or any(one.startswith("py3") or one == "py2" for one in pythons)
        ):
            return None
    python = ".".join(interpreter.version.split(".")[:2])
    names = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}
    system = names.get(interpreter.sys_platform, interpreter.sys_platform)
    return f"Python {python} on {system}" if system_fits else f"{system} {interpreter.machine}"


def _conflicts(pinned: list[_Pinned], environment: Environment, metadata: Metadata) -> Iterator[Finding]:
    """Find a pinned release whose declared needs another declared range can't meet."""
    values = marker_values(environment.interpreter)
    ranges: dict[str, Declared] = {}
    for declared in environment.declared:
        ranges.setdefault(declared.name, declared)
    for one in pinned:
        for need in needs(one.release.requires, values) if one.release else ():
            other = ranges.get(canonicalize_name(need.name))
            if other is not None and other.specifier and _impossible(need, other, environment, metadata):
                yield _conflict(one, need, other, environment, metadata)


def _impossible(need: Requirement, other: Declared, environment: Environment, metadata: Metadata) -> bool:
    """Return whether no release is in a need and in a declared range."""
    version = Environment("", declared=(other,)).version(other.name)
    if version is not None:
        return not need.specifier.contains(Version(version.public), prereleases=True)
    releases = metadata.releases(other.name)
    try:
        both = SpecifierSet(f"{need.specifier},{other.specifier}".strip(","))
    except InvalidSpecifier:
        return False
    if releases:
        return not any(both.contains(one.version, prereleases=True) for one in releases)
    return Environment("", declared=(other,)).may_be(other.name, str(need.specifier)) is False


def _conflict(
    one: _Pinned, need: Requirement, other: Declared, environment: Environment, metadata: Metadata
) -> Finding:
    name, python = one.declared.name, environment.interpreter.version if environment.interpreter else ""
    changes = []
    fitting = metadata.newest(other.name, python=python or None, specifier=str(need.specifier))
    changes.append(
        Change("pin", f"Take a {other.name} that {name} {one.version} accepts: {need.specifier}.",
               (f"{other.name}=={fitting.version}" if fitting else f"{other.name}{need.specifier}",),
               holds=(f"{name}=={one.version}",))
    )  # fmt: skip
    mover = _accepting(name, other, environment, metadata, python)
    if mover:
        changes.append(
            Change("pin", f"Or take {name} {mover.version}, which accepts {other.name}{other.specifier}.",
                   (f"{name}=={mover.version}",), holds=(f"{other.name}{other.specifier}",))
        )  # fmt: skip
    return Finding(
        "declared-conflict", "resolve/conflict", "error", 0.96,
        f"{name} {one.version} needs {other.name}{need.specifier}, and {other.name}{other.specifier} is asked for.",
        (f"{one.declared.place}: {one.declared.text or name}", f"{other.place}: {other.text or other.name}",
         f"Requires-Dist of {name} {one.version}: {need}"),
        "An installer finds no set of versions; installed past that (--no-deps) it may break when it is imported.",
        tuple(changes), culprits=(other.name, name), source=f"declared metadata of {metadata.date_of(name)}",
    )  # fmt: skip


def _accepting(name: str, other: Declared, environment: Environment, metadata: Metadata, python: str) -> Release | None:
    """Return the newest release of a project whose needs a declared range can meet."""
    values = marker_values(environment.interpreter)
    for release in reversed(metadata.releases(name)):
        if release.yanked or release.version.is_prerelease or (python and not accepts_python(release, python)):
            continue
        asked = [one for one in needs(release.requires, values) if canonicalize_name(one.name) == other.name]
        if not any(_impossible(one, other, environment, metadata) for one in asked):
            return release
    return None


def _silently_old(environment: Environment, python: str, metadata: Metadata) -> Iterator[Finding]:
    """Find what isn't pinned and of which this Python gets a much older release than there is, without a word."""
    for one in environment.declared:
        if one.name == _PYTHON or environment.version(one.name) is not None:
            continue
        try:
            newest = metadata.newest(one.name, specifier=one.specifier)
            chosen = metadata.newest(one.name, python=python, specifier=one.specifier)
        except InvalidSpecifier:
            continue
        if newest is None or chosen is newest:
            continue
        place = f"{one.place}: {one.text or one.name}"
        if chosen is None:
            yield Finding(
                "no-release-for-python", "resolve/no_wheel", "error", 0.9,
                f"No {one.name}{one.specifier} accepts Python {python}: {newest.version} has {newest.requires_python}",
                (place,), "Each release says which Pythons it is for.",
                (Change("environment", f"Use a Python that it accepts: {newest.requires_python}.",
                        commands=("uv venv --python 3.12",)),),
                culprits=(one.name,), source=f"index of {metadata.date_of(one.name)}",
            )  # fmt: skip
        elif (newest.uploaded - chosen.uploaded).days >= _OLD_DAYS:
            yield Finding(
                "silently-old", "resolve/silent_old", "warning", 0.85,
                f"On Python {python} pip takes {one.name} {chosen.version} of {chosen.uploaded}; "
                f"the newest is {newest.version} of {newest.uploaded}.",
                (place, f"Requires-Python of {one.name} {newest.version}: {newest.requires_python}"),
                "An installer walks back to a release that accepts this Python, and does not say so; uv overlooks "
                "upper limits and takes the newest, which was never tried with it.",
                (Change("environment", f"Use a Python that it accepts: {newest.requires_python}.",
                        commands=("uv venv --python 3.12",)),
                 Change("pin", "Or say that the old one is meant.", (f"{one.name}=={chosen.version}",))),
                culprits=(one.name,), source=f"index of {metadata.date_of(one.name)}",
            )  # fmt: skip
