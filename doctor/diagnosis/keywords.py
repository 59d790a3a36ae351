"""A call with a keyword that the function doesn't take: who calls, who is called, and which of the two moves less.

Three kinds. A library calls another: versions differ. A library calls the user's own override with an argument that is
new: the override must take it. A file of settings holds a key that the reader does not know yet: the reader is too old.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from doctor.case import Case
from doctor.diagnosis.mechanism import Known, Said, importer_of, signs
from doctor.diagnosis.missing_names import culprits, describe
from doctor.diagnosis.moves import Move, in_spans, into, known_names, may_be_in, out_of, python_for
from doctor.failure.facts import Raised
from doctor.finding import Change, Finding
from doctor.knowledge.symbols import Span, Use

_UNEXPECTED = re.compile(r"(?P<function>[\w.<>]+)\(\) got an unexpected keyword argument '(?P<keyword>\w+)'")
# Classes whose fields are written to files beside weights, and read back by whatever release is installed.
_WRITTEN = re.compile(
    r"^(?:LoraConfig|AdaLoraConfig|IA3Config|LoHaConfig|LoKrConfig|PromptTuningConfig|PrefixTuningConfig|PeftConfig"
    r"|\w*Config)$"
)
_WRITTEN_BY = ("peft", "transformers", "diffusers", "sentence-transformers")
# Settings that a person writes in code, whatever their name ends with.
_WRITTEN_BY_HAND = re.compile(
    r"^(?:SFT|DPO|PPO|GRPO|KTO|ORPO|Reward|CPO|BCO|RLOO|OnlineDPO|Training|Generation|Accelerate)\w*"
)


# A dataclass of settings that adds words before the name of the one whose fields it has: AxolotlGRPOConfig.
_BASE = re.compile(r"[A-Z][a-z0-9]+(?P<base>[A-Z]\w*(?:Config|Arguments)\.__init__)$")


@dataclass(frozen=True)
class Called:
    """A call that failed: the function's last two words, the keyword, the line, and what was raised."""

    function: str
    keyword: str
    line: str
    raised: Raised | None


def find_unexpected_keywords(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find calls with keywords that the function of the release that is here doesn't take."""
    seen = set()
    for line, raised in signs(case):
        for found in _UNEXPECTED.finditer(line):
            function = ".".join(found["function"].replace("<locals>.", "").split(".")[-2:])
            if (function, found["keyword"]) in seen:
                continue
            seen.add((function, found["keyword"]))
            sign = line[line.rfind("\n", 0, found.start()) + 1 :].splitlines()[0].strip()
            yield from _explain(case, knowledge, Called(function, found["keyword"], sign, raised))


def _explain(case: Case, knowledge: Known, called: Called) -> Iterator[Said]:
    owners = owners_of(case, knowledge, called)
    for project, spans in owners:
        version = case.environment.version(project)
        if version and in_spans(spans, version):
            yield f"{project} {version} takes {called.keyword} in {called.function}: its version is not at fault"
        elif spans or len(owners) == 1:
            yield _of_library(case, knowledge, called, project, spans)
    if not owners:
        yield from _of_override(case, knowledge, called)


def owners_of(case: Case, knowledge: Known, called: Called) -> list[tuple[str, tuple[Span, ...]]]:
    """Return the projects that have such a function, with the releases that take the keyword.

    What is here is asked first, and all that was read only where nothing of it has the function.
    """
    symbols = knowledge.symbols
    top = importer_of(called.raised)
    near = [*(knowledge.metadata.owners(top) if top else ()), *known_names(case)]
    for names in (near, sorted(symbols.projects - set(near))):
        found = []
        for name in dict.fromkeys(names):
            spans = _taking(case, knowledge, name, called) if name in symbols.projects else None
            if spans is not None:
                found.append((name, spans))
        if found and (names is near or len(found) == 1):
            return found
        if "." not in called.function:
            return []  # a bare name is anybody's
    base = _BASE.match(called.function)
    return owners_of(case, knowledge, replace(called, function=base["base"])) if base else []


def _taking(case: Case, knowledge: Known, project: str, called: Called) -> tuple[Span, ...] | None:
    """Return the releases of a project in which the function takes the keyword.

    The message says that the function which is here takes no **kwargs: where the table says that it does, that is of
    another class of the name, such as one that stands in for an absent library, and only what is named counts.
    """
    asked = (project, called.function, called.keyword)
    spans: tuple[Span, ...] | None = knowledge.symbols.parameters(*asked)
    version = case.environment.version(project)
    always = any(span.from_start and span.end is None for span in spans or ())
    if spans and (in_spans(spans, version) if version else always):
        spans = knowledge.symbols.parameters(*asked, named=True)
    return spans


def _users(case: Case, knowledge: Known, called: Called, project: str) -> list[Use]:
    uses = [one for one in knowledge.symbols.callers(called.function, called.keyword) if one.project != project]
    top = importer_of(called.raised)
    names = knowledge.metadata.owners(top) if top else known_names(case)
    return [one for one in uses if one.project in names and may_be_in(case, one.project, one.spans) is not False]


def _of_library(case: Case, knowledge: Known, called: Called, project: str, spans: tuple[Span, ...]) -> Finding:
    version = case.environment.version(project)
    users = _users(case, knowledge, called, project)
    name = called.function.split(".")[0]
    early = version is not None and bool(spans) and version < spans[0].first
    late = not spans or (version is not None and not early) or (version is None and spans[-1].end is not None)
    is_file = (
        not users
        and project in _WRITTEN_BY
        and bool(_WRITTEN.match(name))
        and not _WRITTEN_BY_HAND.match(name)
        and (early or not late)
    )
    moves = into(case, knowledge, project, spans, but=users[0].project if users else "")
    for use in users[:2]:
        moves += out_of(case, knowledge, use.project, use.spans, but=project)
    moves.sort(key=lambda one: one.cost)
    changes = [*python_for(case, knowledge, project, spans), *(move.change for move in moves)]
    what = f"{called.function.removesuffix('.__init__')}({called.keyword}=...)"
    if is_file:
        changes.append(
            Change("code", f"Or remove the key {called.keyword} from the file of settings, if it is unused.")
        )
    elif not users:
        own = Change(
            "code",
            f"Call {called.function.removesuffix('.__init__')} without {called.keyword}, as {project} now names it.",
        )
        changes = [own, *changes] if late else [*changes, own]
    takes = " and ".join(map(describe, spans)) or "in no release that was read"
    return Finding(
        "unexpected-keyword",
        "runtime/data_format" if is_file else "runtime/api_change",
        "error",
        0.88 if version and (users or spans) else 0.7 if spans else 0.5,
        _verdict(case, called, project, users, is_file),
        (called.line, f"{project} takes {what} {takes} (symbols of {knowledge.symbols.date})",
         *(f"{use.project} passes it: {use.file}" for use in users[:3])),
        f"The settings were written by a newer {project}." if is_file else
        f"{what} works in {project} {takes}; {users[0].project if users else 'the calling code'} is of another time.",
        tuple(changes),
        not_this="Write the file again by hand: a newer reader takes it as it is" if is_file else None,
        culprits=culprits(moves, project, users),
        source=f"symbols of {knowledge.symbols.date}",
    )  # fmt: skip


def _verdict(case: Case, called: Called, project: str, users: list[Use], is_file: bool) -> str:
    version = case.environment.version(project)
    here = f"{project} {version}" if version else f"{project} as it is here"
    function = called.function.removesuffix(".__init__")
    if is_file:
        return f"{here} does not know the key {called.keyword} of a file of settings ({function})."
    by = f"{users[0].project} passes it" if users else "the calling code passes it"
    return f"{here} has no {called.keyword} in {function}; {by}."


def _of_override(case: Case, knowledge: Known, called: Called) -> Iterator[Said]:
    """Find methods of the user's own that a library calls with an argument that they don't take yet."""
    method = called.function.split(".")[-1]
    if "." not in called.function or method == "__init__":
        yield _unread(called)
        return
    top = importer_of(called.raised)
    names = knowledge.metadata.owners(top) if top else ()
    uses = [
        one
        for one in knowledge.symbols.callers(method, called.keyword)
        if (not names or one.project in names) and may_be_in(case, one.project, one.spans) is not False
    ]
    known = [one for one in uses if case.environment.knows(one.project)] or uses
    if not known:
        yield _unread(called)
        return
    use = known[0]
    moves: list[Move] = out_of(case, knowledge, use.project, use.spans)
    version = case.environment.version(use.project)
    yield Finding(
        "override-lacks-argument",
        "runtime/api_change",
        "error",
        0.85 if version else 0.7,
        f"{use.project}{f' {version}' if version else ''} passes {called.keyword} to {method}, "
        f"and the override {called.function} does not take it.",
        (called.line, f"{use.project} passes {called.keyword}: {use.file}"),
        f"The argument is new in {use.project} {describe(use.spans[-1])}; overrides written before don't have it.",
        (
            Change("code", f"Add `{called.keyword}=None` or `**kwargs` to the parameters of {called.function}."),
            *(move.change for move in moves if move.change.requirements[0].find("<") >= 0),
        ),
        culprits=(use.project,),
        source=f"symbols of {knowledge.symbols.date}",
    )


def _unread(called: Called) -> Finding:
    """Return what is sure without a table: caller and called were not made for each other."""
    top = importer_of(called.raised)
    name = called.function.removesuffix(".__init__")
    return Finding(
        "unexpected-keyword-without-table",
        "runtime/api_change",
        "error",
        0.5,
        f"{top or 'The calling code'} passes {called.keyword} to {name}, which does not take it in this release.",
        (called.line,),
        "An argument was added, renamed or removed between the release that the call was written for and this one.",
        (
            Change(
                "code", f"Look up what {name} calls {called.keyword} in the installed release, or move one of the two."
            ),
        ),
        culprits=(top.replace("_", "-"),) if top else (),
        source="the message itself",
    )
