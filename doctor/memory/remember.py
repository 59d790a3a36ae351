"""From proofs to facts, and back: what was proved is kept, what is disproved is struck out, the like is recalled."""

import time
from dataclasses import replace
from pathlib import Path

from packaging.utils import canonicalize_name

from doctor.case import Case
from doctor.environment.facts import Environment
from doctor.finding import Finding
from doctor.memory.fact import Fact, branch_of, error_of, platform_of, read_change, written_change
from doctor.memory.folder import DEFAULT_FOLDER, Memory, changing
from doctor.proof.error_lines import same_error
from doctor.proof.log_folder import digest_of
from doctor.proof.outcome import Proof
from doctor.remedy.requirements import named, parse_requirement

# Confidence of what was proved for just these versions, for versions that are not known, and for others.
_EXACT, _UNKNOWN, _OTHER = 0.98, 0.85, 0.6


def remember(proof: Proof, finding: Finding, folder: Path = DEFAULT_FOLDER, day: str | None = None) -> Fact | None:
    """Keep what a proof shows: a change that mends is a fact, and facts that it disproves are struck out.

    Args:
        proof: what became of trying the changes of the finding.
        finding: what was tried.
        folder: folder of the memory; it is made.
        day: the day of the proof, "2026-11-28"; None is today.

    Returns:
        The fact; None where the proof shows none.

    Raises:
        OSError: the folder can't be written.
    """
    if proof.before is None or proof.before.passed or not proof.trials:
        return None
    day = day or time.strftime("%Y-%m-%d")
    fault = Fact(
        _versions(finding, proof), platform_of(proof.platform), day, error_of(proof.before.last),
        log=digest_of(proof.folder) if proof.folder else "", seconds=round(proof.seconds, 1),
        found_by=f"{finding.id} {finding.branch}",
    )  # fmt: skip
    failed = {written_change(one.change): one.after.last for one in proof.trials if one.after and not one.after.passed}
    new = replace(fault, change=written_change(proof.change)) if proof.change else None
    with changing(folder) as facts:
        for place, fact in enumerate(facts):
            of_this = (fact.error, fact.packages, fact.platform) == (fault.error, fault.packages, fault.platform)
            if of_this and fact.change in failed and not fact.struck:
                facts[place] = replace(fact, struck=day, why=f"it did not mend it: {failed[fact.change]}")
            if new and fact.id == new.id:
                facts[place] = new = replace(new, times=1 if fact.struck else fact.times + 1)
        if new and new not in facts:
            facts.append(new)
    return new


def remember_set(
    name: str, requirements: tuple[str, ...], platform: str, checked: str, folder: Path = DEFAULT_FOLDER,
    *, log: str = "", seconds: float = 0.0, day: str | None = None,
) -> Fact:  # fmt: skip
    """Keep a known-good set.

    Args:
        name: what it is for: "fine-tuning on a T4".
        requirements: all that is installed, pinned.
        platform: "linux-x86_64, Python 3.11.7".
        checked: what was tried with it: "imports, one training step".
        folder: folder of the memory; it is made.
        log: digest of the log, by `digest_of`.
        seconds: how long the check took.
        day: the day, "2026-11-28"; None is today.

    Raises:
        OSError: the folder can't be written.
    """
    day = day or time.strftime("%Y-%m-%d")
    fact = Fact(
        tuple(sorted(requirements)), platform_of(platform), day, name=name, checked=checked, log=log,
        seconds=round(seconds, 1),
    )  # fmt: skip
    with changing(folder) as facts:
        for place, one in enumerate(facts):
            if one.id == fact.id:
                facts[place] = fact = replace(fact, times=1 if one.struck else one.times + 1)
        if fact not in facts:
            facts.append(fact)
    return fact


def strike(fact_id: str, why: str, folder: Path = DEFAULT_FOLDER, day: str | None = None) -> Fact | None:
    """Strike a fact out.

    Args:
        fact_id: its id or how that begins.
        why: what disproves it.
        folder: folder of the memory.
        day: the day, "2026-11-28"; None is today.

    Returns:
        The fact; None where there is none of that id.
    """
    struck = None
    with changing(folder) as facts:
        found = Memory(tuple(facts)).find(fact_id)
        if found:
            struck = replace(found, struck=day or time.strftime("%Y-%m-%d"), why=why)
            facts[facts.index(found)] = struck
    return struck


def recall(case: Case, memory: Memory) -> tuple[Finding, ...]:
    """Return what was proved of such a case before, the likeliest first.

    A fact is recalled where the failure has its error and its versions are those of the environment, or are not known;
    with a lower confidence where other versions fail the same way. Without a failure all of its versions must be there.
    What is struck out is not recalled, and neither is a change that is made already.

    Args:
        case: the environment and the failure.
        memory: of `read_memory`.
    """
    errors = [one.line for one in case.failure.raised] if case.failure else []
    found: list[Finding] = []
    for fact in memory.facts:
        if fact.struck or fact.name or not fact.change:
            continue
        if case.failure and not any(same_error(line, fact.error) for line in errors):
            continue
        same = [_same_version(pin, case.environment) for pin in fact.packages]
        if not case.failure and not (fact.packages and all(same)):
            continue
        confidence = _EXACT if all(same) else _OTHER if False in same else _UNKNOWN
        change = read_change(fact.change)
        if _is_made(change.requirements, case.environment):
            continue
        found.append(_finding(fact, confidence, case))
    return tuple(sorted(found, key=lambda one: (-one.confidence, one.id)))


def known_good(memory: Memory, names: tuple[str, ...] = (), platform: str = "") -> tuple[Fact, ...]:
    """Return known-good sets, those proved most often and latest first.

    Args:
        memory: of `read_memory`.
        names: distributions that they must hold.
        platform: how their platform must begin, "linux-x86_64".
    """
    wanted = {str(canonicalize_name(name)) for name in names}
    fit = [one for one in memory.facts if one.name and not one.struck and one.platform.startswith(platform)
           and wanted <= set(named(one.packages))]  # fmt: skip
    return tuple(sorted(fit, key=lambda one: (one.times, one.date, one.id), reverse=True))


def _versions(finding: Finding, proof: Proof) -> tuple[str, ...]:
    """Return the versions that a fact holds for: of what the finding names, where nothing names any of all."""
    names = set(map(str, map(canonicalize_name, finding.culprits)))
    for change in finding.changes:
        names |= {*named(change.requirements), *named(change.holds), *map(str, map(canonicalize_name, change.remove))}
    pins = sorted(pin for pin in proof.broken if str(canonicalize_name(pin.partition("==")[0])) in names)
    return tuple(pins or sorted(proof.broken))


def _same_version(pin: str, environment: Environment) -> bool | None:
    requirement = parse_requirement(pin)
    if requirement is None:
        return None
    return environment.may_be(requirement.name, str(requirement.specifier))


def _is_made(requirements: tuple[str, ...], environment: Environment) -> bool:
    parsed = [one for text in requirements if (one := parse_requirement(text))]
    return bool(parsed) and all(environment.may_be(one.name, str(one.specifier)) is True for one in parsed)


def _finding(fact: Fact, confidence: float, case: Case) -> Finding:
    change = read_change(fact.change)
    times = "once" if fact.times == 1 else f"{fact.times} times"
    proved = f"Proved on {fact.date} ({times}) on {fact.platform}, log {fact.log or 'not kept'}."
    evidence = [f"{fact.id} of the memory: {', '.join(fact.packages)} fails with {fact.error!r}.", proved]
    if confidence == _OTHER:
        evidence.append("Other versions than these are here, which fail in the same way.")
    return Finding(
        f"memory-{fact.id}", branch_of(fact), "error" if case.failure else "warning", confidence,
        f"{', '.join(fact.packages)}: this was seen before, and {fact.change} mended it", tuple(evidence),
        changes=(change,),
        culprits=tuple(dict.fromkeys((fact.topic, *named(fact.packages)))), source=f"memory, proved on {fact.date}",
    )  # fmt: skip
