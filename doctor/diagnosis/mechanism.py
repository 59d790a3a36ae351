"""What a mechanism of the diagnosis is: a function from a case and what is known to findings."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from doctor.case import Case
from doctor.failure.facts import Raised
from doctor.finding import Finding
from doctor.knowledge.rules import Rule


class Known(Protocol):
    """What mechanisms ask: released metadata, tables of symbols, and rules."""

    @property
    def metadata(self) -> Any:
        """Releases of projects."""

    @property
    def symbols(self) -> Any:
        """Names, modules and parameters of releases."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Breakages by names and versions."""


# A finding, or a sentence that says what was looked for and is not so.
Said = Finding | str
# The first line of a finding's evidence is the line of the failure that it explains: findings are ranked by where that
# line stands in the chain of exceptions.
Mechanism = Callable[[Case, Any], Iterator[Said]]


def signs(case: Case) -> Iterator[tuple[str, Raised | None]]:
    """Yield what a failure says, the first cause first: exceptions' lines with what was raised, then other lines."""
    if case.failure is None:
        return
    seen: set[str] = set()
    for raised in case.failure.raised:
        seen.update(raised.line.splitlines())
        yield raised.line, raised
    for line in (*case.failure.lines, *case.failure.text.splitlines()):
        if line.strip() and line not in seen:
            seen.add(line)
            yield line, None


def importer_of(raised: Raised | None) -> str | None:
    """Return the top-level module of the deepest third-party frame of an exception."""
    frames = raised.frames if raised else ()
    return next((frame.module for frame in reversed(frames) if frame.module), None)
