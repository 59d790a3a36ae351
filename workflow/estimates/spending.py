"""Money: what was spent, from the journal and from what runs, and whether more may be."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from constants.nearest import meant
from workflow.definition.numbers import number_of
from workflow.estimates.estimate import TOKENS
from workflow.estimates.prices import Price
from workflow.journal.journal import Event

KEY, ADDRESS = "TINKER_API_KEY", "TINKER_BASE_URL"
_HERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


def is_hosted(variables: Mapping[str, str]) -> bool:
    """Return whether steps would use a service that asks money: one that is not of this machine.

    Args:
        variables: environment variables that steps see.
    """
    if address := variables.get(ADDRESS):
        return (urlsplit(address).hostname or "") not in _HERE
    return bool(variables.get(KEY))


@dataclass
class Spending:
    """Adds up what is spent.

    Attributes:
        price: what the model's tokens cost; None where that isn't known.
        hosted: whether the service asks money; one of this machine costs nothing.
        budget: dollars that all steps may cost together, those of earlier runs too; None where nobody set one.
        model: the model, for what is said of its price.
        known: models whose prices are known.
        earlier: dollars of what has ended, by step, since the step was last done.
        spent: dollars of all that has ended.
    """

    price: Price | None
    hosted: bool
    budget: float | None = None
    model: str = ""
    known: tuple[str, ...] = ()
    earlier: dict[int, float] = field(default_factory=dict)
    spent: float = 0.0

    def take(self, events: Iterable[Event]) -> None:
        """Read what the journal says was spent."""
        self.earlier, self.spent = {}, 0.0
        for event in events:
            dollars = number_of(event.facts.get("dollars")) or 0.0
            self.spent += dollars
            begun_anew = event.kind == "done"
            self.earlier[event.step] = 0.0 if begun_anew else self.earlier.get(event.step, 0.0) + dollars

    def of(self, counts: Mapping[str, float]) -> float | None:
        """Return what a run of a step has cost; None where nobody knows.

        Args:
            counts: what it told: `dollars`, or else tokens.
        """
        if "dollars" in counts:
            return counts["dollars"]
        if not any(name in counts for name in TOKENS):
            return None
        if not self.hosted:
            return 0.0
        return self.price.dollars(counts) if self.price is not None else None

    def so_far(self, step: int, counts: Mapping[str, float]) -> float | None:
        """Return what a step has cost since it was last done, with what runs; None where nothing is known."""
        now, before = self.of(counts), self.earlier.get(step, 0.0)
        return None if now is None and not before else (now or 0.0) + before

    def total(self, running: Iterable[Mapping[str, float]]) -> float:
        """Return what all has cost.

        Args:
            running: what the steps that run have told.
        """
        return self.spent + sum(self.of(counts) or 0.0 for counts in running)

    def price_text(self) -> str:
        """Say whose prices hold, in a few words."""
        if self.price is not None:
            hosted = "" if self.hosted else "; nothing where the service is this machine's, as it would be now"
            return f"prices of {self.price.date} for {self.model}, {self.price.source}{hosted}"
        if not self.model or not self.hosted:
            return "the service is this machine's, which costs nothing"
        near = meant(self.model, self.known)
        return f"what {self.model} costs is not known: no table of prices has it{near}. Write it into prices.yaml"


def money(dollars: float) -> str:
    """Write dollars: `$1.20`, and `$0.0012` where it is less than a cent."""
    return f"${dollars:,.4f}" if 0 < dollars < 0.01 else f"${dollars:,.2f}"
