"""Whether the members of a group can be trained at once, and whether that is faster."""

from typing import Any

from data.tensor_rows import quick
from train.machine import SMALL_STEP_FLOPS
from train.step_choice import choose
from train.steps.update import plain_and_fused

# What is counted with, on a CPU. Not measured on the spot: the clock would decide about the results' last bits.
_RECORDING = 0.010  # seconds for each operator of the hook: of each member, and three times of all together
_SAVED = 20e-6  # seconds for each operator and step of each member but one


def why_in_turn(trainer: Any, seeds: int, faster_only: bool = True) -> str | None:
    """Say why members have to be trained, or are trained faster, one after the other.

    What shows only when the hook is recorded (`StackedLoss`) is found later.

    Args:
        trainer: the first member's.
        seeds: how many members there are.
        faster_only: whether slower is a reason.

    Returns:
        None where they can be trained at once.
    """
    config, loader = trainer.config, quick(trainer.train_loader)
    if trainer.owns_loop:
        return f"{type(trainer).__name__} has a train() of its own"
    if trainer.device.type != "cpu":
        return f"members are trained at once on the CPU only, the device is {trainer.device}"
    if config.step not in ("auto", "eager"):
        return f"step = {config.step} is asked for, and at once is a form of its own (step = auto or eager)"
    for key, plain in (("accumulation_steps", 1), ("ema_decay", 0.0), ("recompute_activations", False)):
        if getattr(config, key) != plain:
            return f"{key} = {getattr(config, key)} is for one after the other only"
    if config.precision not in ("fp32", "tf32"):
        return f"precision = {config.precision} rounds other products of matrices so that runs would differ by percents"
    if not (hasattr(loader, "epoch_rows") or getattr(loader, "draws_by_epoch", False)):
        return f"train_loader is a {type(loader).__name__}, whose samples may draw random numbers at any batch"
    if not plain_and_fused(trainer.optimizer):
        return f"{type(trainer.optimizer).__name__} as it is set up is none of plain Adam, AdamW and SGD"
    return _why_slower(trainer, seeds) if faster_only else None


def _why_slower(trainer: Any, seeds: int) -> str | None:
    if trainer.step_flops is None:
        return "nobody knows how much a step computes"
    if trainer.step_flops > SMALL_STEP_FLOPS:
        return f"a step computes {trainer.step_flops / 1e6:.0f} MFLOP, so what surrounds it hardly counts"
    if trainer.config.step == "auto":
        form, reason = choose(trainer)
        if form != "eager":
            return f"step = {form} is faster: {reason}"
    operators, steps = trainer.surveys["train_loader"][0], trainer.config.epochs * len(trainer.train_loader)
    cost, saved = _RECORDING * operators * (seeds + 3), _SAVED * operators * (seeds - 1) * steps
    if saved < cost:
        return f"recording the hooks takes about {cost:.2g} s and saves about {saved:.2g} s of {steps:,} steps"
    return None
