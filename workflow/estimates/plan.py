"""What is still to do, and what it takes: as text for a person, as plain data for programs."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from constants.counting import counted
from constants.time_spans import span
from workflow.definition.facts import Definition
from workflow.estimates.estimate import StepEstimate, estimate_of, summed
from workflow.estimates.spending import Spending, money
from workflow.journal.state import StepState, command_of

_TOKENS = {"tokens_in": "tokens read", "tokens_out": "tokens written", "tokens_trained": "tokens trained on"}


@dataclass(frozen=True)
class Plan:
    """What is still to do.

    Attributes:
        title: the workflow.
        preset: the preset that holds.
        states: the steps that are not done.
        commands: the words of their commands.
        takes: what each will take.
        together: what they take one after the other.
        spending: what was spent, and the budget.
        free: megabytes that are free on the project's disk.
    """

    title: str
    preset: str
    states: tuple[StepState, ...]
    commands: tuple[tuple[str, ...], ...]
    takes: tuple[StepEstimate, ...]
    together: StepEstimate
    spending: Spending
    free: float


def plan_of(
    definition: Definition, preset: str, states: Sequence[StepState], spending: Spending, folder: Path
) -> Plan:  # fmt: skip
    """Work out what steps will take.

    Args:
        definition: the workflow.
        preset: the preset that holds.
        states: the steps that are to be done.
        spending: prices, what was spent, and the budget.
        folder: the project's folder.
    """
    settings = definition.presets[preset]
    takes = tuple(estimate_of(each.step, settings, spending.price) for each in states)
    commands = tuple(command_of(each.step, settings) for each in states)
    free = shutil.disk_usage(folder).free / 1e6
    return Plan(definition.title, preset, tuple(states), commands, takes, summed(takes), spending, free)


def content_of(plan: Plan) -> dict[str, object]:
    """Return a plan as plain data."""
    steps = [
        {"number": each.step.number, "title": each.step.title, "state": each.state, "person": each.step.person,
         "command": list(command), **asdict(take)}
        for each, command, take in zip(plan.states, plan.commands, plan.takes, strict=True)
    ]  # fmt: skip
    price, spending = plan.spending.price, plan.spending
    return {
        "schema_version": 1, "preset": plan.preset, "steps": steps, "together": asdict(plan.together),
        "price": asdict(price) if price is not None else None, "hosted": spending.hosted, "spent": spending.spent,
        "budget": spending.budget,
    }  # fmt: skip


def text_of(plan: Plan) -> str:
    """Return a plan as text."""
    width = max((len(each.step.title) for each in plan.states), default=0)
    lines = [f"{plan.title} (preset {plan.preset}): {counted(len(plan.states), 'step')} to do"]
    for each, command, take in zip(plan.states, plan.commands, plan.takes, strict=True):
        what = " ".join(command) or "a person"
        lines.append(f"  {each.step.number:2}  {each.step.title:<{width}}  {_costs(take) or '-'}\n      {what}")
    lines.append(f"together about {_costs(plan.together) or '0 s'}")
    if plan.together.megabytes > plan.free:
        lines.append(f"only {plan.free:,.0f} MB are free on its disk")
    if any(plan.together.tokens.values()):
        lines.append(plan.spending.price_text())
    return "\n".join([*lines, *_budget_lines(plan)])


def _costs(take: StepEstimate) -> str:
    costs = [span(60 * take.minutes)] if take.minutes else []
    costs += [f"{count:,.0f} {_TOKENS[name]}" for name, count in take.tokens.items() if count]
    costs += [money(take.dollars)] if take.dollars else []
    costs += [f"{take.megabytes:,.0f} MB"] if take.megabytes else []
    return ", ".join(costs)


def _budget_lines(plan: Plan) -> list[str]:
    """Say what was spent, and before which step the budget would be used up."""
    spending = plan.spending
    lines = [f"{money(spending.spent)} spent until now"] if spending.spent else []
    if spending.budget is None:
        return lines
    reached = spending.spent
    for each, take in zip(plan.states, plan.takes, strict=True):
        reached += take.dollars or 0.0
        if reached > spending.budget:
            return [*lines, f"a budget of {money(spending.budget)} is not enough for step {each.step.number}, "
                    f"{each.step.title}: {money(reached)} with it"]  # fmt: skip
    return [*lines, f"a budget of {money(spending.budget)} is enough"]
