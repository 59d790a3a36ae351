"""From a case to an answer: every mechanism is asked, what says the same is merged, the first cause comes first."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from packaging.specifiers import SpecifierSet

from doctor.case import Case
from doctor.diagnosis.declared_set import find_declared_faults
from doctor.diagnosis.era import find_other_eras
from doctor.diagnosis.installed_state import find_installed_state
from doctor.diagnosis.keywords import find_unexpected_keywords
from doctor.diagnosis.machine_faults import MACHINE_FAULTS
from doctor.diagnosis.mechanism import Known, Mechanism
from doctor.diagnosis.missing_modules import find_missing_modules
from doctor.diagnosis.missing_names import find_missing_names
from doctor.diagnosis.mixed_files import find_mixed_files
from doctor.diagnosis.model_types import find_unknown_model_types, needed
from doctor.diagnosis.old_releases import find_silently_old
from doctor.diagnosis.other_interfaces import find_missing_attributes, find_wrong_arguments
from doctor.diagnosis.releases import find_unobtainable
from doctor.diagnosis.resolver import find_conflicts
from doctor.diagnosis.shadowing import find_shadowing_files, find_two_owners, find_wrong_copies
from doctor.diagnosis.undefined_names import find_undefined_names
from doctor.diagnosis.unlinked_names import find_unlinked_names
from doctor.diagnosis.version_checks import find_told_packages, find_told_requirements
from doctor.failure.facts import Failure
from doctor.finding import LEVELS, Change, Diagnosis, Finding
from doctor.knowledge.rules import matches, pair_findings
from doctor.remedy.requirements import parse_requirement, unmet_by

# Below this a finding is as often wrong as right: it is only told as a guess. Measured by bench/doctor.py.
THRESHOLD = 0.3
# What each step away from the first cause costs: a later line of a chain is oftener a consequence than a cause.
_STEP, _STEPS = 0.06, 3
# A guess adds nothing to what is sure: its changes are of other distributions, and may be smaller.
_GUESS, _SURE = 0.5, 0.7
# Words by which a text tells that something holds a distribution back.
_HELD = re.compile(r"\b(?:forced|required|capped|limited|held|enforced)\b[^\n]*|\b(?:range|version) check\b")


def find_by_rules(case: Case, knowledge: Known) -> Iterator[Finding | str]:
    """Find breakages that rules speak of; says which rules a version rules out."""
    for match in matches(knowledge.rules, case):
        yield match.finding or match.against
    if case.failure is None:
        yield from pair_findings(knowledge.rules, case)


# Each line is asked in turn; a mechanism belongs to the file that names its subject.
MECHANISMS: tuple[Mechanism, ...] = (
    find_by_rules,
    *MACHINE_FAULTS,
    find_installed_state,
    find_mixed_files,
    find_shadowing_files,
    find_wrong_copies,
    find_two_owners,
    find_unlinked_names,
    find_missing_names,
    find_missing_modules,
    find_unexpected_keywords,
    find_missing_attributes,
    find_wrong_arguments,
    find_undefined_names,
    find_told_requirements,
    find_told_packages,
    find_unknown_model_types,
    find_conflicts,
    find_unobtainable,
    find_silently_old,
    find_declared_faults,
    find_other_eras,
)


def diagnose(case: Case, knowledge: Known, mechanisms: tuple[Mechanism, ...] = MECHANISMS) -> Diagnosis:
    """Tell what is wrong.

    Args:
        case: what is known of the environment and of the failure.
        knowledge: metadata, symbols and rules.
        mechanisms: what to ask.

    Returns:
        Findings, the likeliest cause first; empty where nothing is sure enough, and then what was ruled out.
    """
    found: list[Finding] = []
    ruled_out: list[str] = []
    for mechanism in mechanisms:
        for said in mechanism(case, knowledge):
            if isinstance(said, Finding):
                found.append(said)
            elif said not in ruled_out:
                ruled_out.append(said)
    need = needed(case, knowledge) if case.failure else ""
    merged = [_held(_usable(one, case, knowledge, need), case) for one in _merged(found, case)]
    ranked = sorted(merged, key=lambda one: _rank(one, case.failure))
    sure = tuple(one for one in ranked if one.confidence >= THRESHOLD)
    notes = [f"Too unsure to be a verdict: {one.verdict}" for one in ranked if one.confidence < THRESHOLD][:3]
    return Diagnosis(sure, tuple(ruled_out), getattr(knowledge.metadata, "date", ""), tuple(notes))


def _held(finding: Finding, case: Case) -> Finding:
    """Return a finding whose change a told limit forbids as the conflict that it is: who sets the limit must move."""
    text = case.failure.text if case.failure else ""
    for requirement in finding.changes[0].requirements if finding.changes else ():
        name, _, _ = requirement.partition(">")
        line = next((one for one in text.splitlines() if re.match(rf"\W*{re.escape(name)}\b", one)), "")
        holds = _HELD.search(line)
        if (
            not holds
            or case.environment.version(name)
            or case.environment.may_be(name, requirement[len(name) :]) is not False
        ):
            continue
        first = Change(
            "pin", f"Raise what holds {name} back ({holds[0]}) to a release that allows {requirement}.", (requirement,)
        )
        return replace(
            finding,
            branch="resolve/conflict",
            verdict=f"{finding.verdict} And something here forbids the {name} that would do: {line.strip()}.",
            changes=(first, *finding.changes[1:]),
            not_this=f"Obey the limit on {name}: it is what breaks",
        )
    return finding


def _rank(finding: Finding, failure: Failure | None) -> tuple[float, float, str]:
    """Return a sort key: without a failure the graver first; with one the surer, early lines of it before late ones."""
    if failure is None:
        return LEVELS.index(finding.level), -finding.confidence, finding.id
    return 0, _STEP * min(_place(finding, failure), _STEPS) - finding.confidence, finding.id


def _place(finding: Finding, failure: Failure) -> int:
    """Return how many exceptions of the chain came before the line that a finding explains."""
    sign = finding.evidence[0] if finding.evidence else ""
    for place, raised in enumerate(failure.raised):
        if sign and any(sign in line or line in sign for line in raised.line.splitlines() if line.strip()):
            return place
    # Lines of tools and warnings before the first exception are causes as often as it is.
    return 0 if any(sign in line for line in failure.lines) or not failure.raised else 1


def _merged(found: Iterable[Finding], case: Case) -> list[Finding]:
    """Join findings of one branch about one distribution or one line: the surest speaks, all evidence stays."""
    merged: list[Finding] = []
    for one in sorted(found, key=lambda each: -each.confidence):
        place = next((place for place, other in enumerate(merged) if _is_same(other, one)), None)
        if place is None:
            merged.append(one)
        else:
            merged[place] = _joined(merged[place], one, case)
    return merged


def _is_same(first: Finding, other: Finding) -> bool:
    if first.branch != other.branch:
        return False
    if not first.culprits or not other.culprits:
        return first.id == other.id
    if first.culprits[0] == other.culprits[0]:
        return True
    same_line = first.evidence[:1] == other.evidence[:1] and bool(first.evidence)
    return same_line and bool(set(first.culprits) & set(other.culprits))


def _usable(finding: Finding, case: Case, knowledge: Known, need: str) -> Finding:
    """Return a finding whose changes to transformers that a model of the text can't use come last, and say so."""
    if not need:
        return finding
    useful, useless = [], []
    for change in finding.changes:
        asked = next((one for one in change.requirements if re.match(r"transformers[<>=!~]", one)), None)
        whole = SpecifierSet(f"{asked.removeprefix('transformers')},{need}") if asked else None
        if whole and not any(whole.contains(one.version) for one in knowledge.metadata.releases("transformers")):
            told = f"the model that the text names needs transformers{need}"
            useless.append(replace(change, disturbs=(*change.disturbs, told)))
        else:
            useful.append(change)
    return replace(finding, changes=(*useful, *useless))


def _joined(first: Finding, other: Finding, case: Case) -> Finding:
    if first.changes and other.confidence < _GUESS and first.confidence >= _SURE:
        return first
    evidence = (*first.evidence, *(line for line in other.evidence if line not in first.evidence))
    known = {_what(change) for change in first.changes}
    more = [change for change in other.changes if _what(change) not in known]
    changes = (*first.changes, *(change for change in more if not first.changes or not _is_made(change, case)))
    return replace(
        first,
        evidence=evidence,
        changes=changes,
        culprits=tuple(dict.fromkeys((*first.culprits, *other.culprits))),
        not_this=first.not_this or other.not_this,
        check=first.check or other.check,
        provable=first.provable or other.provable,
    )


def _is_made(change: Change, case: Case) -> bool:
    """Return whether an installer would do nothing: what a change asks for is installed."""
    if not case.environment.complete or change.remove or change.kind not in ("pin", "install"):
        return False
    asked = [parse_requirement(text) for text in change.requirements]
    return bool(asked) and not any(one is None or unmet_by(case.environment, one) for one in asked)


def _what(change: Change) -> tuple[object, ...]:
    return (
        change.kind,
        change.requirements,
        change.remove,
        change.environment,
        "" if change.requirements else change.text,
    )
