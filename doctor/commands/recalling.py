"""What is remembered of a case joins its answer."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from doctor.case import Case
from doctor.finding import Change, Finding
from doctor.memory.folder import DEFAULT_FOLDER, read_memory
from doctor.memory.remember import recall
from doctor.report.answer import Answered, Remedy


def with_memory(
    answered: Sequence[Answered], case: Case, folder: Path | None, remedy: Callable[[Change], Remedy]
) -> tuple[Answered, ...]:
    """Return the findings of an answer with what was proved before of the like.

    A fact about the same fault moves its change to the front, and is told there; another one is a finding of its own,
    in front of less sure ones.

    Args:
        answered: findings with their remedies.
        case: what was diagnosed.
        folder: of the memory; None for the doctor's own.
        remedy: makes a remedy of a change.
    """
    findings = list(answered)
    for fact in reversed(recall(case, read_memory(folder or DEFAULT_FOLDER))):
        place = next((i for i, one in enumerate(findings) if _same_fault(one.finding, fact)), None)
        told = next((line for line in fact.evidence if line.startswith("Proved")), fact.source)
        if place is not None:
            known = findings[place]
            rest = [one for one in known.remedies if one.change.requirements != fact.changes[0].requirements]
            first = next((one for one in known.remedies if one not in rest), remedy(fact.changes[0]))
            findings[place] = replace(known, remedies=(first, *rest), remembered=(*known.remembered, told))
            continue
        alone = Answered(fact, tuple(remedy(change) for change in fact.changes), (told,))
        surer = sum(one.finding.confidence > fact.confidence for one in findings) if case.failure else len(findings)
        findings.insert(surer, alone)
    return tuple(findings)


def _same_fault(finding: Finding, fact: Finding) -> bool:
    return finding.branch == fact.branch and bool({*finding.culprits} & {*fact.culprits})
