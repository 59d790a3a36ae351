"""The whole answer: what was looked at, what was found, and how each change is typed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from doctor.case import Case
from doctor.environment.facts import Environment
from doctor.finding import Change, Diagnosis, Finding

HEALTHY, FINDINGS, UNKNOWN = 0, 1, 3
# Confidence in words: the least of each.
_WORDS = ((0.9, "almost certain"), (0.7, "very likely"), (0.5, "likely"), (0.0, "perhaps"))


@dataclass(frozen=True)
class Proved:
    """What became of trying a change.

    Args:
        word: "proved", "disproved", "not tried" or "not provable here".
        text: what was done and seen, or why nothing was, in a sentence.
        log: folder of the logs; None where nothing ran.
        seconds: how long it took.
        resolved: what was installed, "peft==0.13.2".
    """

    word: str
    text: str = ""
    log: str | None = None
    seconds: float | None = None
    resolved: tuple[str, ...] = ()


@dataclass(frozen=True)
class Remedy:
    """A change, and how it is typed.

    Args:
        change: the change.
        commands: what to type, by the tool: "uv", "pip", "colab", or "shell" for what is no installation.
        proof: what became of trying it; None where nobody asked.
    """

    change: Change
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    proof: Proved | None = None


@dataclass(frozen=True)
class Answered:
    """A finding with its remedies, the smallest first, and what is remembered of the like: a sentence each."""

    finding: Finding
    remedies: tuple[Remedy, ...] = ()
    remembered: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Args:
        about: what was looked at, in a line: "/work/v (Python 3.11.7, linux x86_64), 41 distributions".
        diagnosis: findings, what was ruled out, and the date of the knowledge.
        findings: the findings of the diagnosis with their remedies, in the same order.
        failed: whether a failure was given.
        facts: what is known of the environment and the failure, for JSON: plain values.
        notes: sentences for the reader, before those of the diagnosis.
        give_next: what to give so that more can be told, a sentence each.
        place: where it runs: "colab", "kaggle", "docker", ...; None where not known.
        case: what was diagnosed, for what comes after: a proof, memory.
    """

    about: str
    diagnosis: Diagnosis
    findings: tuple[Answered, ...] = ()
    failed: bool = False
    facts: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    give_next: tuple[str, ...] = ()
    place: str | None = None
    case: Case = field(default_factory=lambda: Case(Environment("nothing")))

    @property
    def exit_code(self) -> int:
        """0 healthy, 1 findings, 3 where a failure was given that nothing explains.

        Without a failure only errors are findings in this sense: what may go wrong is told and lets a script pass.
        """
        if self.failed:
            return FINDINGS if self.findings else UNKNOWN
        return FINDINGS if any(one.finding.level == "error" for one in self.findings) else HEALTHY


def confidence_word(confidence: float) -> str:
    """Return a confidence in words."""
    return next(word for least, word in _WORDS if confidence >= least)
