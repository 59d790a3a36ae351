"""A training that failed by its environment: what the doctor says of it."""

from collections.abc import Iterator

from agents.findings.evidence import Evidence
from agents.state import Proposal
from constants.environment_faults import is_environment_fault

_HEAD, _SHOWN = 2, 12  # lines of the doctor's that say what it was asked, and those that are shown


def failed_by_environment(error: str) -> bool:
    """Say whether the text of an error is one of the environment's, not of the task's.

    Args:
        error: the text.
    """
    return bool(error) and (is_environment_fault(RuntimeError(error)) or is_environment_fault(ImportError(error)))


def environment_fault(seen: Evidence) -> Iterator[Proposal]:
    """The training ended by a broken environment: nothing of the task can mend it."""
    error = seen.last["trained"]["error"]
    if failed_by_environment(error):
        yield Proposal(
            finding="environment_fault", changes=[], weight=0.99,
            evidence=[error, *[line for line in seen.advice.splitlines() if line.strip()][_HEAD : _HEAD + _SHOWN]],
            expected="the environment has to be mended; the same settings train then",
        )  # fmt: skip
