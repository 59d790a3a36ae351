"""Which models fit a task and a machine, the most capable first."""

from collections.abc import Sequence
from dataclasses import dataclass

from agents.models.estimate import PROCESS, Memory, TuningPlan, memory_of, tokens_per_second
from agents.models.open_model import OpenModel


@dataclass(frozen=True)
class Wishes:
    """What a model must do.

    Attributes:
        languages: codes of the languages that it must speak.
        any_licence: whether licences with terms of their own will do.
        context: tokens of the longest row.
        memory: bytes that there are.
    """

    languages: frozenset[str]
    any_licence: bool
    context: int
    memory: int


@dataclass(frozen=True)
class Recommendation:
    """A model, and what is said for and against it.

    Attributes:
        model: the model.
        plan: the cheapest way to tune it that fits, or that comes nearest to it.
        memory: what that takes.
        speed: tokens a second.
        against: why it can't be taken; empty where it can.
    """

    model: OpenModel
    plan: TuningPlan
    memory: Memory
    speed: float
    against: tuple[str, ...]


def recommend(
    models: Sequence[OpenModel], wishes: Wishes, tokens: int, length: int, flops: float
) -> list[Recommendation]:
    """Rank models: those that can be taken, the largest first, then the others, the smallest first.

    Args:
        models: the models.
        wishes: what a model must do.
        tokens: tokens of a batch.
        length: tokens of a row.
        flops: floating-point operations a second of the machine.
    """
    found = [_judged(model, wishes, tokens, length, flops) for model in models]
    fitting = sorted((one for one in found if not one.against), key=lambda one: -one.model.parameters)
    return [*fitting, *sorted((one for one in found if one.against), key=lambda one: one.model.parameters)]


def _judged(model: OpenModel, wishes: Wishes, tokens: int, length: int, flops: float) -> Recommendation:
    against = []
    if not model.speaks(wishes.languages):
        missing = sorted(wishes.languages - set(model.languages))
        against.append(f"it is not made for {', '.join(missing)}")
    if not model.free and not wishes.any_licence:
        against.append(f"licence {model.licence}: {model.terms}")
    if model.context < wishes.context:
        against.append(f"its context is {model.context:,} tokens, and the longest row needs {wishes.context:,}")
    # In fp32 as training does it by itself; else frozen in bf16, and then with activations computed again.
    plans = [TuningPlan(tokens), TuningPlan(tokens, weight_bytes=2), TuningPlan(tokens, weight_bytes=2, recompute=True)]
    room = wishes.memory - PROCESS
    plan = next((plan for plan in plans if memory_of(model, plan).total <= room), plans[-1])
    memory = memory_of(model, plan)
    if memory.total > room:
        needed = (memory.total + PROCESS) / 2**30
        against.append(f"it needs {needed:.1f} GiB, and {wishes.memory / 2**30:.1f} are there")
    return Recommendation(model, plan, memory, tokens_per_second(model, plan, length, flops), tuple(against))
