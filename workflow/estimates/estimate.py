"""What a step will take, worked out with the settings of a preset."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from workflow.definition.expression import calculated
from workflow.definition.facts import Step
from workflow.estimates.prices import Price

TOKENS = ("tokens_in", "tokens_out", "tokens_trained")


@dataclass(frozen=True)
class StepEstimate:
    """What a step will take.

    Attributes:
        minutes: time.
        tokens_in: tokens that a model reads.
        tokens_out: tokens that a model writes.
        tokens_trained: tokens that a model is trained on.
        megabytes: what is left on disk.
        dollars: money for the tokens; None where the model's price isn't known.
    """

    minutes: float
    tokens_in: float
    tokens_out: float
    tokens_trained: float
    megabytes: float
    dollars: float | None

    @property
    def tokens(self) -> dict[str, float]:
        """The tokens by kind."""
        return {name: getattr(self, name) for name in TOKENS}


def estimate_of(step: Step, settings: Mapping[str, object], price: Price | None) -> StepEstimate:
    """Work out what a step will take.

    Args:
        step: the step.
        settings: settings of the preset.
        price: what its model's tokens cost; None where that isn't known.
    """
    stated = step.estimate
    values = {name: calculated(getattr(stated, name), settings) for name in ("minutes", *TOKENS, "megabytes")}
    tokens = {name: values[name] for name in TOKENS}
    money = price.dollars(tokens) if price is not None else 0.0 if not any(tokens.values()) else None
    return StepEstimate(**values, dollars=money)


def summed(estimates: Iterable[StepEstimate]) -> StepEstimate:
    """Return what steps take together, one after the other."""
    every = list(estimates)
    money = [each.dollars for each in every]
    names = ("minutes", *TOKENS, "megabytes")
    return StepEstimate(
        **{name: sum(getattr(each, name) for each in every) for name in names},
        dollars=None if None in money else sum(each or 0.0 for each in money),
    )
