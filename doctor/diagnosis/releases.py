"""Releases that can't be had, by their name, Python or platform; and whether a text says that an installer chose."""

import difflib
import re
from collections.abc import Iterator

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from doctor.case import Case
from doctor.diagnosis.mechanism import Known, Said, signs
from doctor.diagnosis.moves import python_of
from doctor.finding import Change, Finding
from doctor.knowledge.metadata import Release, accepts_python

_NAME = r"[A-Za-z][\w.-]*?(?:\[[\w,.-]+\])?"
_VERSION = r"\d(?:[\w.+!-]*[\w*])?"
_RANGE = rf"[<>=!~]=?\s*{_VERSION}(?:\s*,\s*[<>=!~]=?\s*{_VERSION})*"
_NONE_FITS = (
    re.compile(rf"No matching distribution found for (?P<name>{_NAME})\s*(?P<range>{_RANGE})?(?=[\s;]|$)"),
    re.compile(
        rf"Could not find a version that satisfies the requirement (?P<name>{_NAME})\s*(?P<range>{_RANGE})?(?=[\s;(]|$)"
    ),
    re.compile(rf"Because (?P<name>{_NAME}) was not found in the (?:package registry|provided)"),
    re.compile(rf"[Bb]ecause there (?:is|are) no versions? of (?P<name>{_NAME})\s*(?P<range>{_RANGE})?(?=[\s,;]|$)"),
    re.compile(
        rf"[Dd]istribution `?(?P<name>{_NAME})\s*(?P<range>==[\w.+!-]+)[^\n]*can't be installed because it doesn't have"
    ),
    re.compile(rf"(?P<name>{_NAME})\s*(?P<range>==[\w.+!-]+)? (?:has|have) no wheels with a matching"),
    re.compile(rf"Package '(?P<name>{_NAME})' requires a different Python"),
)
_VERSIONS = re.compile(r"\(from versions: (?P<list>[^)\n]*)\)")
# An installer is said to have chosen: "0.11.0 chosen by uv for '>=0.11.0'", "pip picks 0.8.3", "falls back to 0.5".
_CHOSE = re.compile(
    r"\b(?:chosen|chose|chooses|selected|picked|picks|resolved|resolves|resolving|backtrack\w*|falls? back|fell back"
    r"|silently|installs|installed)\b[^\n]*\b(?:by (?:pip|uv|the resolver|poetry|conda)|instead of|for ['\"`]?[<>=~])"
    r"|\b(?:pip|uv|resolver|poetry)\b[^\n]*\b(?:chose|chooses|picks|picked|selects|selected|resolves|resolved|installs"
    r"|installed|takes|took|gives|gave)\b[^\n]*\d\.\d"
)
INSTEAD = re.compile(
    r"\d\S* instead of v?(?P<wanted>\d[\w.]*\w)"
    r"|\d\S* (?:was |is |got )?(?:installed|chosen)\W+(?P<other>\d[\w.]*\w) (?:was )?expected"
)
_WORDS = {"linux": "linux", "darwin": "macosx", "win32": "win_"}


def find_unobtainable(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find distributions of which an installer found no release, and why."""
    seen = set()
    for line, _ in signs(case):
        for pattern in _NONE_FITS:
            for found in pattern.finditer(line):
                groups = found.groupdict()
                name = canonicalize_name(groups["name"].split("[")[0])
                if name not in seen:
                    seen.add(name)
                    sign = line[line.rfind("\n", 0, found.start()) + 1 :].splitlines()[0].strip()
                    yield _unobtainable(case, knowledge, name, (groups.get("range") or "").replace(" ", ""), sign)


def _unobtainable(case: Case, knowledge: Known, name: str, specifier: str, sign: str) -> Finding:
    python = python_of(case)
    releases = [one for one in knowledge.metadata.releases(name) if not one.yanked]
    inside = [one for one in releases if not specifier or _contains(specifier, one)]
    changes: list[Change] = []
    said = 0.8
    if not releases:
        why, changes = _no_such_name(knowledge, name)
        verdict = f"No distribution called {name} could be had."
        said = 0.6 if changes else 0.4
    elif not inside:
        near = _nearest(releases, specifier)
        verdict = f"{name} has no release {specifier}; the nearest is {near}, the newest {releases[-1].version}."
        why = "It was never released, was withdrawn, or is a pre-release, which must be asked for by its exact version."
        changes = [Change("pin", f"Ask for {name} {near}.", (f"{name}=={near}",))]
    elif python and not any(accepts_python(one, python) for one in inside):
        wanted = inside[-1].requires_python
        verdict = f"{name}{specifier} asks for Python {wanted}; this is {python}."
        why = "An installer passes over releases whose Requires-Python is not met, as if they were not there."
        best = knowledge.metadata.newest(name, python=python)
        changes = [Change("system", f"Use a Python of {wanted}.", commands=(f"uv venv --python '{wanted}'",))]
        if best:
            changes.append(
                Change(
                    "pin", f"Or take {name} {best.version}, the newest for this Python.", (f"{name}=={best.version}",)
                )
            )
    elif not any(_goes_with_system(one, case) for one in inside):
        only = _platforms(inside[-1])
        verdict = f"{name}{specifier} has files for {only} only."
        why = "It brings wheels for these and no source, so an installer elsewhere finds nothing."
        marker = {"Linux": "linux", "macOS": "darwin", "Windows": "win32"}.get(
            only.split(",")[0].split(" ")[0], "linux"
        )
        changes = [
            Change("pin", "Ask for it there only.", (f"{name}{specifier}; sys_platform == '{marker}'",)),
            Change("system", f"Or work on {only}" + (" (on Windows: in WSL)." if marker == "linux" else ".")),
        ]
    elif python and not any(_has_file_for(one, python, case) for one in inside):
        fits = _pythons(inside[-1], _WORDS.get(_system(case) or "", ""))
        verdict = f"{name}{specifier} has no file for Python {python} on this platform."
        why = f"Its newest release brings wheels for {', '.join(fits) or 'other platforms'} and no source."
        changes = [Change("system", f"Use a Python that it has wheels for: {', '.join(fits)}.",
                          commands=tuple(f"uv venv --python {one}" for one in fits[-1:]))]  # fmt: skip
        others = [one.version for one in releases if one.version > inside[-1].version and _fits(one, python, case)]
        if others:
            text = f"Or take {name} {others[0]}, the next that has a file for Python {python}."
            changes.append(Change("pin", text, (f"{name}=={others[0]}",)))
    else:
        only = _platforms(inside[-1])
        verdict = f"No file of {name}{specifier} goes with this Python or platform."
        why = f"Its newest release has wheels for {only}." if only else "What the index offers does not fit."
        changes = [Change("system", "Use a Python and a platform that it has wheels for.")]
        said = 0.65
    changes += _offered(case, name, specifier, changes)
    return Finding(
        "no-release-fits",
        "resolve/no_wheel",
        "error",
        said,
        verdict,
        (sign,),
        why,
        tuple(changes),
        not_this=None if not releases else "Check the spelling or the network: the name is right",
        culprits=(name,),
        source=f"declared metadata of {knowledge.metadata.date}",
    )


def _offered(case: Case, name: str, specifier: str, known: list[Change]) -> Iterator[Change]:
    """Yield the release nearest to an exact one that is asked for, of those that pip says the index has for this."""
    asked = re.fullmatch(r"==(\d[\w.]*)", specifier)
    text = case.failure.text if case.failure else ""
    line = next((one for one in text.splitlines() if "(from versions:" in one and name in canonicalize_name(one)), "")
    told = _VERSIONS.search(line)
    if not asked or not told or any(change.requirements for change in known):
        return
    there = [Version(one) for one in re.findall(r"\b\d+(?:\.\d+)+\b", told["list"])]
    goal = Version(asked[1])
    near = min((one for one in there if one > goal), default=max(there, default=None))
    if near and goal not in there:
        text = f"Or take {name} {near}, the nearest of what the index has for this Python and platform."
        yield Change("pin", text, (f"{name}=={near}",))


def _contains(specifier: str, release: Release) -> bool:
    try:
        return SpecifierSet(specifier).contains(release.version, prereleases=True)
    except InvalidSpecifier:
        return True


def _nearest(releases: list[Release], specifier: str) -> Version:
    wanted = re.search(r"\d[\w.]*", specifier)
    try:
        goal = Version(wanted[0]) if wanted else releases[-1].version
    except ValueError:
        goal = releases[-1].version
    below = [one.version for one in releases if one.version <= goal]
    return below[-1] if below else releases[0].version


def _no_such_name(knowledge: Known, name: str) -> tuple[str, list[Change]]:
    owners = knowledge.metadata.owners(name.replace("-", "_"))
    near = [
        one
        for one in (*owners, *difflib.get_close_matches(name, sorted(knowledge.metadata.projects), 2, 0.8))
        if one != name
    ]
    changes = [Change("install", f"Install {one}.", (one,)) for one in dict.fromkeys(near)]
    if changes:
        return f"A module's name is not always its distribution's: {', '.join(dict.fromkeys(near))}.", changes
    return "The name is spelt otherwise, lies on another index, or the index can't be reached.", []


def _fits(release: Release, python: str, case: Case) -> bool:
    """Return whether a release that is no pre-release can be had for a Python and this platform."""
    told = not release.version.is_prerelease and accepts_python(release, python)
    return told and _has_file_for(release, python, case)


def _has_file_for(release: Release, python: str, case: Case) -> bool:
    if release.sdist or not release.wheels:
        return True
    tag = "cp" + "".join(python.split(".")[:2])
    return any(_tag_fits(wheel, tag, _system(case)) for wheel in release.wheels)


def _goes_with_system(release: Release, case: Case) -> bool:
    """Return whether a release has a file for this system, whatever the Python; True where that is not known."""
    word = _WORDS.get(_system(case) or "")
    if word is None or release.sdist or not release.wheels:
        return True
    platforms = [wheel.split("-")[-1] for wheel in release.wheels]
    return any(one == "any" or word in one for one in platforms)


def _tag_fits(wheel: str, tag: str, system: str | None) -> bool:
    pythons, abi, platforms = [*wheel.split("-"), "", ""][:3]
    ours = tag in pythons.split(".") or "py3" in pythons.split(".")
    if "abi3" in abi and not ours:
        ours = any(one.startswith("cp3") and int(one[3:] or 0) <= int(tag[3:] or 0) for one in pythons.split("."))
    word = _WORDS.get(system or "", "")
    return ours and (platforms == "any" or any(word in one for one in platforms.split(".")))


def _system(case: Case) -> str | None:
    interpreter, failure = case.environment.interpreter, case.failure
    return (interpreter.sys_platform if interpreter else None) or (failure.platform.sys_platform if failure else None)


def _pythons(release: Release, platform: str) -> list[str]:
    """Return the versions of Python that a release has wheels for, of platforms whose tag holds a word."""
    found = {
        f"{one[2]}.{one[3:]}"
        for wheel in release.wheels
        for one in wheel.split("-")[0].split(".")
        if re.match(r"cp3\d", one) and platform in wheel
    }
    return sorted(found, key=Version)


def _platforms(release: Release) -> str:
    words = {"manylinux": "Linux", "musllinux": "Linux (musl)", "macosx": "macOS", "win": "Windows"}
    return ", ".join(
        name
        for word, name in words.items()
        if any(f"-{word}" in wheel or f".{word}" in wheel for wheel in release.wheels)
    )


def chosen_by_resolver(case: Case, name: str) -> bool:
    """Return whether the text says that an installer chose the release of a distribution that is here."""
    lines = case.failure.text.splitlines() if case.failure else ()
    wanted = re.compile(re.escape(name).replace(r"\-", "[-_.]"), re.IGNORECASE)
    return any(wanted.search(line) and (_CHOSE.search(line) or INSTEAD.search(line)) for line in lines)
