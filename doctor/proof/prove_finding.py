"""The proof of a finding: its candidates against what is installed."""

import sys
from pathlib import Path

from doctor.case import Case
from doctor.finding import Finding
from doctor.proof.broken_set import BrokenSet, broken_set, imported_modules
from doctor.proof.failing_code import codes_of
from doctor.proof.outcome import NOT_PROVABLE, Budget, Proof
from doctor.proof.prove import DEFAULT_FOLDER, Consent, prove
from doctor.remedy.candidates import candidates
from doctor.remedy.known_releases import WithMetadata

_MOST = 6  # candidates that are tried


def prove_finding(
    finding: Finding,
    case: Case,
    knowledge: WithMetadata,
    *,
    consent: Consent | None = None,
    budget: Budget | None = None,
    folder: Path = DEFAULT_FOLDER,
) -> Proof:
    """Try the changes of a finding, the smallest first, in a scratch environment.

    Args:
        finding: what was found.
        case: its environment, and the failure that must be seen again.
        knowledge: released versions.
        consent: whether it may be begun.
        budget: time and bytes that it may take.
        folder: folder of the logs.

    Returns:
        What became of it.
    """
    why_not = not_provable(finding, case)
    if why_not:
        return Proof(NOT_PROVABLE, why_not)
    environment = case.environment
    made = candidates(finding, environment, knowledge)
    changes = [one for one in made if one.requirements or one.remove or one.environment][:_MOST]
    interpreter = environment.interpreter
    python = (interpreter.executable or interpreter.version) if interpreter else ""
    if not python and case.failure and case.failure.platform.python:
        python = case.failure.platform.python
    expected = tuple(one.line.splitlines()[0] for one in case.failure.raised if one.type) if case.failure else ()

    codes = _codes(finding, case)
    modules = tuple(module for code in codes for module in imported_modules(code))

    def wider(missing: tuple[str, ...]) -> BrokenSet | None:
        if not environment.complete:
            return None
        return broken_set(finding, environment, optional=True, modules=(*modules, *missing))

    return prove(
        codes, broken_set(finding, environment, modules=modules), changes or made, python or "3.11", budget,
        expected=expected, consent=consent, wider=wider, folder=folder,
    )  # fmt: skip


def not_provable(finding: Finding, case: Case) -> str | None:
    """Return why a finding can't be proved in a scratch environment, None where it can."""
    if finding.gpu:
        return "It needs a GPU."
    if not _codes(finding, case):
        return "No code is known that shows it in an environment of its own."
    if not any(one.requirements or one.remove or one.environment for one in finding.changes):
        kinds = ", ".join(dict.fromkeys(one.kind for one in finding.changes)) or "none is known"
        return f"A scratch environment can't show its changes ({kinds})."
    system = case.environment.interpreter.sys_platform if case.environment.interpreter else None
    system = system or (case.failure.platform.sys_platform if case.failure else None)
    here = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}
    if system and system != sys.platform:
        return f"It is of {here.get(system, system)}, and this machine has {here.get(sys.platform, sys.platform)}."
    return None


def _codes(finding: Finding, case: Case) -> tuple[str, ...]:
    """Return what may show a finding: the failing import itself, then what the finding tells."""
    told = (finding.provable,) if finding.provable else ()
    return (*codes_of(case.failure, case.environment), *told)
