"""Names that a library uses and did not import: what brings them stands behind a check, its use does not.

Which of what the library may use has such a name tells what is absent, or too old.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from doctor.case import Case
from doctor.diagnosis.mechanism import Known, Said, importer_of, signs
from doctor.diagnosis.moves import into, known_names, may_be_in, name_of, python_for
from doctor.diagnosis.pair_changes import raised
from doctor.finding import Change, Finding
from doctor.knowledge.symbols import Span

_UNDEFINED = re.compile(r"^NameError: name '(?P<name>\w+)' is not defined")
_PATH = re.compile(r"(?:site|dist)-packages[/\\](\w+)[/\\]")
# What libraries most often import behind a check, where nothing tells which library it is.
_OPTIONAL = ("accelerate", "peft")


@dataclass(frozen=True)
class Undefined:
    """A name that is not there: its line, the library that uses it ("" where not known), and whether frames tell."""

    name: str
    line: str
    user: str
    by_frames: bool


def find_undefined_names(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find names that a library uses and did not import: an optional package that is absent or too old."""
    for line, what in signs(case):
        found = _UNDEFINED.search(line)
        top = importer_of(what) or _named_by_path(case)
        if not found or (what and what.frames and not top):
            continue  # the user's own code forgot an import
        sign = line.splitlines()[0].strip()
        for user in (*knowledge.metadata.owners(top),) if top else (known_names(case) or ("",)):
            brought = _brought(knowledge, user, found["name"])
            if brought:
                yield _optional(case, knowledge, Undefined(found["name"], sign, user, bool(top)), *brought)
                break
        else:
            if top:
                yield _of_nobody(case, knowledge, found["name"], top, sign)


def _named_by_path(case: Case) -> str | None:
    """Return the library that the last path below a folder of packages names, where no frame could be read."""
    if any(one.frames for one in (case.failure.raised if case.failure else ())):
        return None
    return next(iter(_PATH.findall(case.failure.text if case.failure else "")[::-1]), None)


def _brought(knowledge: Known, user: str, name: str) -> tuple[str, tuple[Span, ...]] | None:
    """Return the project that has a name, of those that a library requires, also as extras; and in which releases."""
    releases = knowledge.metadata.releases(user)
    asked = {name_of(line): None for one in reversed(releases) for line in one.requires}
    for project in asked if user else _OPTIONAL:
        if project == user or project not in knowledge.symbols.projects:
            continue
        spans = knowledge.symbols.names(project, project.replace("-", "_"), name)
        if spans:
            return project, spans
    return None


def _optional(case: Case, knowledge: Known, asked: Undefined, project: str, spans: tuple[Span, ...]) -> Finding:
    version = case.environment.version(project)
    user = asked.user or "The library that uses it"
    inside = may_be_in(case, project, spans)
    always = any(span.from_start and span.end is None for span in spans)
    told = inside is False and case.environment.knows(project)
    if version and inside:
        branch, confidence = "import/wrong_version", 0.45
        verdict = f"{user} uses {asked.name} of {project}, which it did not import though {project} {version} has it."
        changes = [Change("code", f"Run `import {project.replace('-', '_')}` alone: what it says is why.")]
    elif always or (not told and not case.environment.knows(project) and not _is_required(knowledge, asked, project)):
        branch, confidence = "import/not_installed", 0.82 if asked.by_frames else 0.76
        verdict = f"{user} uses {asked.name} of {project}, which is not installed, or can't be imported."
        wanted = project if always else f"{project}{spans[-1].specifier}"
        changes = [Change("install", f"Install {wanted}.", (wanted,))]
    else:
        branch, confidence = "import/wrong_version", 0.85 if told else 0.7
        here = f"{project} {version}" if version else f"the {project} that is here"
        verdict = f"{user} uses {asked.name}, which {here} does not have; it came with {project} {spans[-1].first}."
        changes = [move.change for move in into(case, knowledge, project, spans, but=asked.user)]
        changes = changes or [*python_for(case, knowledge, project, spans)]
    if not asked.by_frames:
        changes.append(Change("code", f"Or import {asked.name}, if it is your own code that uses it."))
    return Finding(
        "optional-import-skipped",
        branch,
        "error",
        confidence,
        verdict,
        (asked.line,),
        "The import stands behind a check whether the package is there and new enough; its use does not.",
        tuple(changes),
        check=f'python -c "from {project.replace("-", "_")} import {asked.name}"',
        culprits=(project, *((asked.user,) if asked.user else ())),
        source=f"symbols of {knowledge.symbols.date}",
    )


def _is_required(knowledge: Known, asked: Undefined, project: str) -> bool:
    """Return whether the newest release of the library requires a project at all times."""
    releases = knowledge.metadata.releases(asked.user)
    lines = releases[-1].requires if releases else ()
    return any(name_of(line) == project and "extra" not in line for line in lines)


def _of_nobody(case: Case, knowledge: Known, name: str, top: str, sign: str) -> Finding:
    newer = [move.change for owner in knowledge.metadata.owners(top) for move in raised(case, knowledge, owner)]
    return Finding(
        "optional-import-failed",
        "import/wrong_version",
        "error",
        0.45,
        f"{top} uses {name}, which it did not import: what brings it is absent, or too old for {top}.",
        (sign,),
        "Libraries import optional names behind a check of a version, and use them without one.",
        (*newer, Change("code", f"Raise or install what {name} belongs to, or move {top} by one release.")),
        culprits=(top.replace("_", "-"),),
        source="the message itself",
    )
