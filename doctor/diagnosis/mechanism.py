"""What a mechanism of the diagnosis is: a function from a case and what is known to findings."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from doctor.case import Case
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
