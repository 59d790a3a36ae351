"""Version checks that programs do themselves: is what they ask for right, and is what they found what is installed?"""

import re
from collections.abc import Iterator

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from doctor.case import Case
from doctor.diagnosis.mechanism import Known, Said, importer_of, signs
from doctor.diagnosis.model_types import needed
from doctor.diagnosis.moves import Move, name_of, needs, parsed, to_range
from doctor.failure.facts import Raised
from doctor.finding import Change, Finding
from doctor.knowledge.metadata import Release

_NAME, _VERSION = r"[A-Za-z][\w.-]*?", r"\d(?:[\w.+!-]*[\w*])?"
_RANGE = rf"[<>=!~]=?\s*{_VERSION}(?:\s*,\s*[<>=!~]=?\s*{_VERSION})*"
_FOUND = re.compile(
    rf"(?P<name>{_NAME})\s*(?P<range>{_RANGE}) is required[^\n]*?,? but found (?P=name)\s*==?\s*(?P<found>{_VERSION})"
)
_CONFLICT = re.compile(
    rf"VersionConflict: \((?P<name>{_NAME}) (?P<found>{_VERSION})[^\n]*?"
    rf"Requirement\.parse\(['\"](?P=name)(?P<range>{_RANGE})",
    re.IGNORECASE,
)
_HAVE = re.compile(
    rf"(?P<by>{_NAME}) [\w.+!-]+ (?:requires|depends on|has requirement) (?P<name>{_NAME})\s*(?P<range>{_RANGE})"
    rf"[^\n]*?, but you(?:'ll)? have (?P=name) (?P<found>{_VERSION})"
)
_ABSENT = re.compile(
    rf"The '(?P<name>{_NAME})\s*(?P<range>(?:{_RANGE})?)' distribution was not found"
    rf"|No package metadata was found for '?(?P<bare>{_NAME})'?(?=\s|$|\W)"
    rf"|PackageNotFoundError: (?P<alone>{_NAME})$",
    re.MULTILINE,
)
# "requires the SentencePiece library but it was not found", and the advice behind it.
_ASKS = re.compile(
    r"\b[Rr]equires?\b|not (?:be )?found|not installed|[Pp]lease install|need to (?:have|install)|pip install"
)
_ADVICE = re.compile(
    rf"pip install (?:-U |--upgrade )?['\"`]?(?P<name>{_NAME})(?:\[[\w,]+\])?(?P<range>{_RANGE})?(?=['\"`\s.,;)]|$)"
)
_NAMED = re.compile(
    r"requires (?:the )?(?P<name>\w[\w-]+) (?:library|package)"
    r"|the package (?P<other>\w[\w-]+) seems to be not installed"
)
_QUOTED = re.compile(rf"[Rr]equires (?:the latest version of )?[`'](?P<name>{_NAME})\s*(?P<range>{_RANGE})?[`']")
_NAMES = (_QUOTED, _ADVICE, _NAMED)
_USER_SITE = re.compile(r"/\.local/lib/python|AppData[/\\]Roaming[/\\]Python|/Library/Python/|user.site", re.IGNORECASE)
_OTHER_PATH = re.compile(r"PYTHONPATH", re.IGNORECASE)
# Programs with checks of their own, by what their texts hold.
_PROGRAMS = {
    "DISABLE_VERSION_CHECK|llama-?factory|llamafactory": "llamafactory",
    "axolotl": "axolotl",
    "swift": "ms-swift",
}
_LIVE = ("colab", "kaggle", "notebook")


def find_told_requirements(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find requirements that a program or an installer says are broken."""
    seen: set[tuple[str, str]] = set()
    for line, raised in signs(case):
        for pattern in (_FOUND, _CONFLICT, _HAVE):
            for found in pattern.finditer(line):
                name = canonicalize_name(found["name"])
                if (name, found["range"]) in seen or not _understood(found["range"], found["found"]):
                    continue
                seen.add((name, found["range"]))
                sign = line[line.rfind("\n", 0, found.start()) + 1 :].splitlines()[0].strip()
                by = found["by"] if pattern is _HAVE else None
                yield _broken(case, knowledge, name, found["range"], found["found"], sign, raised, by)
        for found in _ABSENT.finditer(line):
            name = canonicalize_name(found["name"] or found["bare"] or found["alone"])
            if (name, "") not in seen:
                seen.add((name, ""))
                yield _absent(case, name, found["range"] or "", line.splitlines()[0].strip())


def find_told_packages(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find packages that a program asks for by name: "requires Accelerate: `pip install 'accelerate>=0.26.0'`"."""
    seen = set()
    for line, _ in signs(case):
        asks = _ASKS.search(line)
        found = next((one for one in (each.search(line) for each in _NAMES) if one), None) if asks else None
        if not found:
            continue
        groups = found.groupdict()
        name = canonicalize_name(groups["name"] or groups.get("other") or "")
        specifier = (groups.get("range") or "").replace(" ", "")
        if name not in seen and name not in ("u", "upgrade", "the", "it", "a", "an"):
            seen.add(name)
            yield _asked(case, name, specifier, line.splitlines()[0].strip())


def _asked(case: Case, name: str, specifier: str, sign: str) -> Finding:
    told = case.environment.version(name)
    enough = told is not None and (not specifier or SpecifierSet(specifier).contains(told, prereleases=True))
    place = case.failure.platform.place if case.failure else None
    requirement = f"{name}{specifier}"
    install = Change("install", f"Install {requirement} with the Python that runs.", (requirement,))
    restart = Change("restart", "Restart the runtime (kernel): what was looked for when it started is remembered.")
    if enough:
        branch, confidence = "import/stale_or_partial", 0.8 if place in _LIVE else 0.55
        verdict = f"{name} {told} is told to be installed and would do, but the program did not find it."
        changes = [restart, install]
    elif told is not None:
        branch, confidence = "import/wrong_version", 0.8
        verdict = f"{name} {told} is here, and the program works with {requirement} only."
        changes = [Change("pin", f"Move {name} to {specifier}.", (requirement,))]
    else:
        branch, confidence = "import/not_installed", 0.75
        verdict = f"{name} is not installed here, or was installed after this process looked for it."
        changes = [install, *([restart] if place in _LIVE else [])]
    return Finding(
        "told-package",
        branch,
        "error",
        confidence,
        verdict,
        (sign,),
        "The program looks for the package's metadata when it starts, and names the package by what it did not find.",
        tuple(changes),
        check=f"python -c \"import importlib.metadata as m; print(m.version('{name}'))\"",
        culprits=(name,),
        source="the program's own words",
    )


def _understood(specifier: str, version: str) -> bool:
    try:
        SpecifierSet(specifier)
        Version(version)
    except (InvalidSpecifier, InvalidVersion):
        return False
    return True


def _broken(
    case: Case,
    knowledge: Known,
    name: str,
    specifier: str,
    found: str,
    sign: str,
    raised: Raised | None,
    by: str | None,
) -> Finding:
    wanted = SpecifierSet(specifier)
    told = next((one for one in _told(case, name) if one != found and wanted.contains(one, prereleases=True)), None)
    if told:
        return _other_copy(case, name, found, told, specifier, sign)
    teller = by or next(iter(knowledge.metadata.owners(importer_of(raised) or "transformers")), "transformers")
    teller = canonicalize_name(teller)
    moves = to_range(case, knowledge, name, specifier.replace(" ", ""), but=teller)
    asks_more = [f"{who} asks for {name}{one}" for who, one in needs(case, knowledge, name, but=teller) if found in one]
    moves = [*moves, *_teller_moves(case, knowledge, teller, name, Version(found))]
    model = needed(case, knowledge) if name == "transformers" else ""
    if model and not any(wanted.contains(one.version) for one in _releases_in(knowledge, name, model)):
        return _advice_is_wrong(case, name, specifier, found, model, sign, by or _program(case))
    if asks_more:
        moves.sort(key=lambda one: one.cost)
    version = case.environment.version(teller)
    return Finding(
        "told-requirement",
        "import/wrong_version" if not by else "resolve/conflict",
        "error" if not by else "warning",
        0.88 if not by else 0.55,
        f"{name} {found} is here, and {teller}{f' {version}' if version else ''} works with {name}{specifier} only.",
        (sign, *asks_more),
        f"Something else installed {name} {found} after {teller}, or {teller} was installed without its dependencies.",
        tuple(one.change for one in moves),
        check=f'python -c "import {teller.replace("-", "_")}"',
        culprits=(name, teller),
        source="the program's own check",
        provable=f"import {teller.replace('-', '_')}",
    )


def _releases_in(knowledge: Known, name: str, specifier: str) -> Iterator[Release]:
    for release in knowledge.metadata.releases(name):
        if SpecifierSet(specifier).contains(release.version):
            yield release


def _program(case: Case) -> str:
    text = case.failure.text if case.failure else ""
    return next((name for sign, name in _PROGRAMS.items() if re.search(sign, text, re.IGNORECASE)), "the program")


def _advice_is_wrong(case: Case, name: str, specifier: str, found: str, model: str, sign: str, program: str) -> Finding:
    requirement = f"{name}{model}"
    known = program in _PROGRAMS.values()
    asked = (program, requirement) if known else (requirement,)
    return Finding(
        "advice-against-the-model",
        "import/wrong_version",
        "error",
        0.85,
        f"{program} wants {name}{specifier}, and the model that is named needs {requirement}: no release is both.",
        (sign,),
        f"{program} was released before the model, and checks an upper limit of its own.",
        (
            Change("pin", f"Raise {program} to a release that allows {requirement}.", asked),
            Change("option", "Or leave its check out (DISABLE_VERSION_CHECK=1 in LLaMA-Factory), at your own risk."),
        ),
        not_this=f"Install {name}{specifier}, as the message says: it can't read the model",
        culprits=(program, name) if known else (name,),
        source="the program's own check against the table of model types",
    )


def _told(case: Case, name: str) -> Iterator[str]:
    """Yield all versions of a distribution that the case tells of: installed ones, and what the text says besides."""
    known = case.environment.version(name)
    if known:
        yield str(known)
    spelt = re.escape(name).replace(r"\-", "[-_.]")
    text = case.failure.text if case.failure else ""
    for line in re.findall(rf"^\W*{spelt}\b[^\n]*", text, re.MULTILINE | re.IGNORECASE):
        if "required" not in line:
            yield from (one for one in re.findall(rf"(?<![\w.-])v?({_VERSION})", line) if _understood("", one))


def _teller_moves(case: Case, knowledge: Known, teller: str, name: str, found: Version) -> list[Move]:
    """Return the move of who asks to the nearest release that accepts what is here."""
    version = case.environment.version(teller)
    accepting = []
    for release in knowledge.metadata.releases(teller):
        for one in parsed(line for line in release.requires if name_of(line) == name):
            if one.specifier.contains(found, prereleases=True):
                accepting.append(release.version)
            break
    if not accepting:
        return []
    if version is not None:
        above = [one for one in accepting if one > version]
        specifier = f">={above[0]}" if above else f"<={accepting[-1]}"
        if above and accepting[-1] != max(one.version for one in knowledge.metadata.releases(teller)):
            specifier += f",<={accepting[-1]}"
    else:
        specifier = f">={accepting[0]}"
    return to_range(case, knowledge, teller, specifier, but=name)


def _other_copy(case: Case, name: str, found: str, told: str, specifier: str, sign: str) -> Finding:
    failure = case.failure
    text = failure.text if failure else ""
    place = failure.platform.place if failure else None
    by_user = bool(failure and failure.platform.user_site) or bool(_USER_SITE.search(text))
    by_path = bool(_OTHER_PATH.search(text)) or "PYTHONPATH" in case.environment.variables
    changes = [
        Change(
            "clean",
            f"Remove every copy of {name} and install it once.",
            (f"{name}{specifier.replace(' ', '')}",),
            (name,),
        )
    ]
    branch = "import/stale_or_partial"
    if by_user or by_path:
        branch = "import/shadowed"
        variable = ("PYTHONNOUSERSITE", "1") if by_user else ("PYTHONPATH", "")
        changes.insert(0, Change("environment", "Leave the other folder of packages out.", environment=(variable,)))
    elif place in _LIVE:
        changes.insert(0, Change("restart", "Restart the runtime: it still holds what it imported first."))
    return Finding(
        "other-copy-found",
        branch,
        "error",
        0.8,
        f"{name} {told} is installed and would do, but {found} is what was found: a second copy, or leftovers of it.",
        (sign, f"{name} {told} is told to be installed"),
        "The check reads the first metadata of that name on the path, which need not be of the package that pip lists.",
        tuple(changes),
        not_this=f"pip install {name}{specifier}: it is installed already",
        check=f"python -c \"import importlib.metadata as m; print(m.files('{name}')[0].locate())\"",
        culprits=(name,),
        source="the program's own check against what is told to be installed",
    )


def _absent(case: Case, name: str, specifier: str, sign: str) -> Finding:
    told = case.environment.version(name)
    requirement = f"{name}{specifier.replace(' ', '')}"
    return Finding(
        "metadata-absent",
        "import/stale_or_partial" if told else "import/not_installed",
        "error",
        0.75,
        f"No metadata of {name} is here" + (f", though {told} is told to be installed." if told else "."),
        (sign,),
        "The program reads installed metadata (dist-info): not on this path, deleted, or left out of a frozen program.",
        (Change("clean" if told else "install", f"Install {requirement} again.", (requirement,)),),
        culprits=(name,),
        source="the program's own check",
        check=f"python -c \"import importlib.metadata as m; print(m.version('{name}'))\"",
    )
