"""What installed distributions declare and don't get: requirements, the Python version, the platform of their wheel."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import parse_tag
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from doctor.case import Case
from doctor.diagnosis.copies import foreign_sites
from doctor.diagnosis.mechanism import Known
from doctor.diagnosis.needs import Need, applicable, joined, meets, needs, range_for
from doctor.diagnosis.relevance import confidence_for
from doctor.environment.facts import Declared, Environment, Installed
from doctor.environment.installed_files import recorded_paths
from doctor.finding import Change, Finding
from doctor.knowledge.metadata import accepts_python

_OWN_CHECK = "dependency_versions_check.py"  # a file by which transformers and diffusers refuse to be imported


def find_unmet_needs(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find requirements that are declared and not met, one finding for each distribution that is missing or wrong."""
    groups: dict[str, list[Need]] = defaultdict(list)
    for one in needs(case.environment):
        if not one.met:
            groups[canonicalize_name(one.need.name)].append(one)
    for name, several in groups.items():
        if several[0].found is None:
            yield _missing(case, name, several)
        elif not _is_foreign(case.environment, several):
            yield _wrong(case, knowledge, name, several)


def _is_foreign(environment: Environment, several: list[Need]) -> bool:
    """Return whether the copy that is imported lies in a folder that is not the environment's: that is told as such."""
    found = several[0].found
    return found is not None and found.site in foreign_sites(environment)


def _missing(case: Case, name: str, several: list[Need]) -> Finding:
    tellers = [one.teller.name for one in several]
    specifier = joined(one.need for one in several)
    return Finding(
        "need-missing",
        "import/not_installed",
        "warning",
        confidence_for(case, 0.85, name, name.replace("-", "_")),
        f"{name}{specifier} is needed by {_some(tellers)} and is not installed.",
        tuple(
            f"{one.teller.name} {one.teller.version} requires {one.need} ({one.teller.folder})" for one in several[:4]
        ),
        "It was removed, or what needs it was installed without its dependencies (--no-deps).",
        (Change("install", f"Install {name}{specifier}.", (f"{name}{specifier}",)),),
        check=f"python -c \"import importlib.metadata as m; m.version('{name}')\"",
        culprits=(name,),
        source="declared metadata of what is installed",
        provable=f"import importlib.metadata as m; m.version({name!r})",
    )


def _wrong(case: Case, knowledge: Known, name: str, several: list[Need]) -> Finding:
    environment = case.environment
    found = several[0].found
    assert found is not None
    tellers = [one.teller.name for one in several]
    # Of two dist-info folders in one place nobody can say which one a check reads: that is told as such.
    sure = sum(one.name == name for one in environment.installed) == 1
    refusing = [one for one in several if sure and name in _own_checks(one.teller)]
    specifier = joined(one.need for one in several)
    changes = []
    together = range_for(environment, name)
    verb = "needs" if len(set(tellers)) == 1 else "need"
    if _possible(name, together):
        changes.append(Change("pin", f"Install a release of {name} that all accept.", (f"{name}{together}",)))
    # One that needs it may move instead; of several, each would have to fit the others too.
    other = _accepting(environment, knowledge, several[0].teller, found) if len(set(tellers)) == 1 else None
    text = f"Move {_some(tellers)} to a release that accepts {name} {found.version}."
    if other:
        changes.append(Change("pin", text, (other,), holds=(f"{name}=={found.version}",)))
    elif not changes:
        changes.append(Change("option", text))
    return Finding(
        "need-unmet",
        "import/wrong_version",
        "error" if refusing else "warning",
        confidence_for(case, 0.97 if refusing else 0.7, name, name.replace("-", "_"), *tellers),
        f"{name} {found.version} is installed, and {_some(tellers)} {verb} {name}{specifier}.",
        (
            *(f"{one.teller.name} {one.teller.version} requires {one.need}" for one in several[:4]),
            *(
                f"{os.path.join(one.teller.site, _module(one.teller), _OWN_CHECK)} refuses others at import"
                for one in refusing
            ),
            found.folder,
        ),
        "The program asks for that range at import and stops." if refusing
        else "Declared ranges are what the authors have tried: outside of them names and arguments may be missing.",
        tuple(changes),
        check=f'python -c "import {_module(refusing[0].teller)}"' if refusing else
        f"python -c \"import importlib.metadata as m; from packaging.specifiers import SpecifierSet as S;"
        f" assert m.version('{name}') in S('{specifier}')\"",
        culprits=(name, *dict.fromkeys(tellers)),
        source="declared metadata of what is installed",
        provable=f"import {_module(refusing[0].teller)}" if refusing else None,
    )  # fmt: skip


def _accepting(environment: Environment, knowledge: Known, teller: Installed, found: Installed) -> str | None:
    """Return the pin of the release of a distribution nearest to the installed one that accepts another's version."""
    interpreter = environment.interpreter
    try:
        here = Version(teller.version)
    except InvalidVersion:
        return None
    fitting = [
        release
        for release in knowledge.metadata.releases(teller.name)
        if not release.yanked
        and not release.version.is_prerelease
        and (interpreter is None or accepts_python(release, interpreter.version))
        and all(
            meets(found, need)
            for need in applicable(release.requires, environment)
            if canonicalize_name(need.name) == found.name
        )
    ]
    above = [one.version for one in fitting if one.version > here]
    below = [one.version for one in fitting if one.version < here]
    chosen = min(above, default=None) or max(below, default=None)
    return f"{teller.name}=={chosen}" if chosen else None


def _possible(name: str, ranges: str) -> bool:
    return Environment("ranges", declared=(Declared(name, ranges),)).may_be(name, "") is not False


def _some(names: list[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:3]) + (f" and {len(unique) - 3} more" if len(unique) > 3 else "")


def _module(one: Installed) -> str:
    own = one.name.replace("-", "_")
    return own if own in one.modules or not one.modules else one.modules[0]


def _own_checks(teller: Installed) -> frozenset[str]:
    """Return the projects whose ranges a distribution checks when it is imported, read from its own list."""
    try:
        with open(os.path.join(teller.site, _module(teller), _OWN_CHECK), encoding="utf-8") as stream:
            text = stream.read()
    except OSError:
        return frozenset()
    listed = re.search(r"pkgs_to_check_at_runtime\s*=\s*(\[[^\]]*\]|\"[^\"]*\"|'[^']*')", text)
    return frozenset(map(canonicalize_name, re.findall(r"[A-Za-z][\w.-]+", listed[1]))) if listed else frozenset()


def find_wrong_python(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find distributions whose Requires-Python forbids this interpreter."""
    interpreter = case.environment.interpreter
    if interpreter is None or not case.environment.complete or interpreter.version.count(".") < 1:
        return
    for one in case.environment.installed:
        try:
            asked = SpecifierSet(one.requires_python)
            if asked.contains(interpreter.version, prereleases=True):
                continue
            lower = SpecifierSet(",".join(str(part) for part in asked if part.operator not in ("<", "<=", "!=")))
        except InvalidSpecifier:
            continue
        too_old = not lower.contains(interpreter.version, prereleases=True)
        yield Finding(
            "python-refused",
            "resolve/no_wheel",
            "warning" if too_old else "note",
            confidence_for(case, 0.8 if too_old else 0.5, one.name, *one.modules[:2]),
            f"{one.name} {one.version} asks for Python {one.requires_python}, and this is {interpreter.version}.",
            (
                f"Requires-Python: {one.requires_python} in {os.path.join(one.folder, 'METADATA')}",
                interpreter.executable,
            ),
            "Its files may use what this Python doesn't have; uv doesn't honour upper limits, and folders are copied."
            if too_old else "Upper limits say what was tried; uv installs over them, pip doesn't.",
            (Change("pin", f"Install {one.name} for Python {interpreter.version}.", (one.name,), (one.name,)),),
            check=f'python -c "import {(one.modules or (one.name.replace("-", "_"),))[0]}"',
            culprits=(one.name,),
            source="declared metadata of what is installed",
        )  # fmt: skip


def find_wrong_wheels(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find distributions of a wheel that this interpreter would not take: another Python, system or libc."""
    interpreter = case.environment.interpreter
    if interpreter is None or not interpreter.tags or interpreter.fault:
        return
    accepted = set(interpreter.tags)
    for one in case.environment.installed:
        tags = {str(tag) for line in one.tags for tag in _tags(line)}
        if not tags or tags & accepted or one.installer == "conda" or one.editable:
            continue
        compiled = [path for path in recorded_paths(one.folder) if re.search(r"\.(so|pyd|dylib)$", path)]
        why, sure = _mismatch(tags, interpreter.tags[0], compiled)
        if not why:
            continue
        shown = sorted(tags)[0]
        yield Finding(
            "wheel-of-another-platform",
            "build/wrong_wheel",
            "error" if sure else "warning",
            confidence_for(case, 0.95 if sure else 0.6, one.name, *one.modules[:3]),
            f"{one.name} {one.version} is a wheel for {why}, and this interpreter takes {interpreter.tags[0]}.",
            (
                f"Tag: {shown} in {os.path.join(one.folder, 'WHEEL')}",
                *(os.path.join(one.site, path) for path in compiled[:2]),
            ),
            "Its compiled files can't be loaded here: it was installed for another interpreter, or its folder was"
            " copied.",
            (
                Change(
                    "clean",
                    f"Install {one.name} {one.version} again with this interpreter.",
                    (f"{one.name}=={one.version}",),
                    (one.name,),
                ),
            ),
            not_this=f"Look for a missing dependency of {one.name}: its files are of another platform",
            check=f'python -c "import {(one.modules or (one.name.replace("-", "_"),))[0]}"',
            culprits=(one.name,),
            source="installed files",
            provable=f"import {one.modules[0]}" if sure and len(one.modules) == 1 else None,
        )  # fmt: skip


@cache
def _tags(line: str) -> frozenset[object]:
    try:
        return frozenset(parse_tag(line))
    except ValueError:
        return frozenset()


def _mismatch(tags: set[str], own: str, compiled: list[str]) -> tuple[str, bool]:
    """Return what a wheel is for, and whether its compiled files certainly can't be loaded; "" where it may well do."""
    python, _, platform = own.split("-", 2)
    split = [tag.split("-", 2) for tag in tags]
    pythons = {part[0] for part in split}
    platforms = {part[2] for part in split}
    systems = {_system(one) for one in platforms}
    if "any" not in systems and _system(platform) not in systems:
        return " and ".join(sorted(platforms)[:2]), bool(compiled)
    if "any" not in systems and not any(_machine(one) == _machine(platform) for one in platforms):
        return " and ".join(sorted(platforms)[:2]), bool(compiled)
    if python not in pythons and not any(one.startswith("py") for one in pythons):
        tied = [path for path in compiled if re.search(r"\.(cpython-\d+\w*|cp\d+|pypy\d+)-", path)]
        stable = any(part[1] == "abi3" for part in split)
        return " and ".join(sorted(pythons)[:3]), bool(tied) and not stable and len(tied) == len(compiled)
    if python in pythons or "any" in systems:
        # A newer glibc than this one's is asked for, or a tag that no interpreter accepts.
        return (" and ".join(sorted(platforms)[:2]), False) if compiled and "any" not in systems else ("", False)
    return "", False


def _system(platform: str) -> str:
    return re.split(r"[_\d]", platform.replace("linux_", "manylinux_") if platform.startswith("linux_") else platform)[
        0
    ]


def _machine(platform: str) -> str:
    match = re.search(r"(x86_64|amd64|aarch64|arm64|i686|win32|universal2|ppc64le|s390x|armv7l|riscv64)$", platform)
    return (
        {"amd64": "x86_64", "arm64": "aarch64", "universal2": "aarch64"}.get(match[1], match[1]) if match else platform
    )
