"""A name that a module doesn't have: which releases have it, who imports it, and which of the two moves less.

Where the release that is here has the name, no version is at fault: see shadowing.py.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.version import Version

from doctor.case import Case
from doctor.diagnosis.era import of_one_time
from doctor.diagnosis.mechanism import Known, Said, importer_of, signs
from doctor.diagnosis.moves import Move, into, known_names, may_be_in, needs, out_of, python_for, to_range
from doctor.diagnosis.releases import chosen_by_resolver
from doctor.failure.facts import Raised
from doctor.finding import Change, Finding
from doctor.knowledge.symbols import Span, Use

_IMPORT = re.compile(
    r"cannot import name '(?P<name>[\w.]+)' from (?:partially initialized module )?'(?P<module>[\w.]+)'"
)
_ATTRIBUTE = re.compile(
    r"(?:partially initialized )?module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'"
    r"|type object '(?P<class>\w+)' has no attribute '(?P<member>\w+)'"
)
# How sure a verdict is: both sides' versions known and the tables speak; one side; none.
_BOTH, _ONE, _NONE = 0.9, 0.8, 0.65


@dataclass(frozen=True)
class Missing:
    """A name that was asked for: where, of which project, by whom, and the line that says so."""

    module: str
    name: str
    project: str
    line: str
    raised: Raised | None


def missing(case: Case, knowledge: Known) -> Iterator[Missing]:
    """Yield the names that a failure says are not there, of projects that are known."""
    seen = set()
    for line, raised in signs(case):
        for found in (*_IMPORT.finditer(line), *_ATTRIBUTE.finditer(line)):
            module, name = found["module"], found["name"]
            if module is None or (module, name) in seen:
                continue
            seen.add((module, name))
            project = knowledge.symbols.project_of(module) or next(iter(knowledge.metadata.owners(module)), None)
            if project:
                yield Missing(module, name, project, line.splitlines()[0].strip(), raised)


def find_missing_names(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find names that the release that is here doesn't have."""
    for asked in missing(case, knowledge):
        spans = spans_of(asked, knowledge)
        if spans is None:
            if "partially initialized" not in asked.line:
                yield _by_eras(case, knowledge, asked)
            continue
        if not spans:
            yield f"no release of {asked.project} that was read has {asked.module}.{asked.name}"
            continue
        inside = may_be_in(case, asked.project, spans)
        version = case.environment.version(asked.project)
        if inside and version:
            yield f"{asked.project} {version} has {asked.module}.{asked.name}: its version is not at fault"
            continue
        users = _users(case, knowledge, asked)
        if inside is None and not users and all(span.end is None and span.from_start for span in spans):
            continue  # every release has it: nothing says that a version is at fault
        yield _finding(case, knowledge, asked, spans, users)


def spans_of(asked: Missing, knowledge: Known) -> tuple[Span, ...] | None:
    """Return the releases that have a name, None where nothing is known."""
    spans: tuple[Span, ...] | None = knowledge.symbols.names(asked.project, asked.module, asked.name)
    return spans


def _users(case: Case, knowledge: Known, asked: Missing) -> list[Use]:
    """Return who of what is here imports the name, the frames' importer first."""
    uses: list[Use] = [
        use for use in knowledge.symbols.importers(asked.module, asked.name) if use.project != asked.project
    ]
    top = importer_of(asked.raised)
    if top:
        owners = knowledge.metadata.owners(top)
        return [use for use in uses if use.project in owners]
    here = [use for use in uses if use.project in known_names(case)]
    return [use for use in here if may_be_in(case, use.project, use.spans) is not False]


def _finding(case: Case, knowledge: Known, asked: Missing, spans: tuple[Span, ...], users: list[Use]) -> Finding:
    version = case.environment.version(asked.project)
    moves = into(case, knowledge, asked.project, spans, but=users[0].project if users else "")
    for use in users[:2]:
        moves += out_of(case, knowledge, use.project, use.spans, but=asked.project)
    moves.sort(key=lambda one: one.cost)
    whole = f"{asked.module}.{asked.name}"
    has = " and ".join(describe(span) for span in spans)
    user = _who(case, asked, users)
    evidence = [asked.line, f"{asked.project} has {whole} {has} (symbols of {knowledge.symbols.date})"]
    evidence += [f"{use.project} imports it {_when(use.spans)}: {use.file}" for use in users[:3]]
    told = sum(1 for name in (asked.project, *(use.project for use in users[:1])) if case.environment.knows(name))
    confidence = (_NONE, _ONE, _BOTH)[min(told, 2)]
    changes = (*python_for(case, knowledge, asked.project, spans), *(one.change for one in moves))
    if not users and not importer_of(asked.raised):
        changes += (Change("code", f"Or write the code without {whole}, if it is your own that imports it."),)
    return Finding(
        "missing-name",
        "resolve/silent_old" if chosen_by_resolver(case, asked.project) else "import/wrong_version",
        "error",
        confidence,
        f"{asked.project}{f' {version}' if version else ''} has no {whole}, which {user} asks for.",
        tuple(evidence),
        f"{whole} is in {asked.project} {has}; the two are of different times, and what they declare allows it.",
        changes,
        culprits=culprits(moves, asked.project, users),
        source=f"symbols of {knowledge.symbols.date}",
        check=f'python -c "from {asked.module} import {asked.name}"' if not users else None,
        provable=f"import {users[0].project.replace('-', '_')}" if users and users[0].at_import else None,
    )


def _by_eras(case: Case, knowledge: Known, asked: Missing) -> Finding:
    """Return what is sure without a table: the two were not made for each other, and when each was."""
    version = case.environment.version(asked.project)
    top = importer_of(asked.raised)
    users = [*(knowledge.metadata.owners(top) if top else ()), *known_names(case)]
    unmet = _unmet(case, knowledge, asked.project)
    if unmet:
        users = [unmet[0]]
        changes = [move.change for move in to_range(case, knowledge, asked.project, unmet[1], but=unmet[0])]
    else:
        changes = [one for user in dict.fromkeys(users) for one in of_one_time(case, knowledge, user, asked.project)]
    who = unmet[0] if unmet else top or next((name for name in users if name != asked.project), "the importing code")
    whole = f"{asked.module}.{asked.name}"
    if not changes:
        changes = [Change("code", f"Find the releases of {asked.project} that have {whole}, and move {who} or it.")]
    return Finding(
        "missing-name-without-table",
        "resolve/silent_old" if chosen_by_resolver(case, asked.project) else "import/wrong_version",
        "error",
        0.85 if unmet else 0.55,
        f"{asked.project}{f' {version}' if version else ''} has no {whole}, which {who} asks for.",
        (asked.line, *((f"{who} asks for {asked.project}{unmet[1]}; {version} is here",) if unmet else ())),
        f"{whole} is of another release of {asked.project}; which, "
        + ("what is declared tells." if unmet else "no table here tells."),
        tuple(changes[:3]),
        culprits=(asked.project, *(name for name in users[:1] if name != asked.project)),
        source="the message itself; dates of releases",
    )


def _unmet(case: Case, knowledge: Known, project: str) -> tuple[str, str] | None:
    """Return who of what is here asks for releases of a project that the one here is none of, and for which."""
    version = case.environment.version(project)
    for name, specifier in needs(case, knowledge, project):
        if version and not specifier.contains(version, prereleases=True):
            return name, str(specifier)
    return None


def _who(case: Case, asked: Missing, users: list[Use]) -> str:
    if users:
        version: Version | None = case.environment.version(users[0].project)
        return f"{users[0].project} {version}" if version else users[0].project
    return importer_of(asked.raised) or "the importing code"


def describe(span: Span) -> str:
    """Return a span in words."""
    if span.from_start:
        return f"before {span.end}" if span.end else "in all releases that were read"
    return f"from {span.first} on" + (f" until before {span.end}" if span.end else "")


def _when(spans: tuple[Span, ...]) -> str:
    return " and ".join(describe(span) for span in spans)


def culprits(moves: list[Move], project: str, users: list[Use]) -> tuple[str, ...]:
    """Return the distributions at fault, in the order in which the moves would move them."""
    from packaging.requirements import Requirement

    moved = [Requirement(move.change.requirements[0]).name for move in moves]
    return tuple(dict.fromkeys([*moved, project, *(use.project for use in users[:1])]))
