"""What a check says."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class CheckResult:
    """What a check says.

    Attributes:
        passed: whether the step holds it.
        text: one sentence with figures: "teacher.jsonl has 5,000 rows".
        figures: numbers and texts by name, JSON values, for the report.
    """

    passed: bool
    text: str
    figures: Mapping[str, object] = field(default_factory=dict)


class UnusableError(Exception):
    """A file that a check can't read; the text says which and why."""
