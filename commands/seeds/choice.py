"""Whether the members of a group can be trained at once, and whether that is faster."""

from constants.counting import counted
from data.loaders import length_of
from data.tensor_rows import quick
from train.callbacks.loss_spikes import LossSpikes
from train.context import RunContext
from train.machine import SMALL_STEP_FLOPS
from train.step_choice import choose
from train.steps.update import plain_and_fused
from train.trackers import Trackers

# What is counted with, on a CPU. Not measured on the spot: the clock would decide about the results' last bits.
_STACKED = ("weights", "modules.", "optimizer", "random", "guard")  # what steps change and SharedSteps does at once
_RECORDING = 0.010  # seconds for each operator of the hook: of each member, and three times of all together
_SAVED = 20e-6  # seconds for each operator and step of each member but one


def why_sequential(run: RunContext, seeds: int, faster_only: bool = True) -> str | None:
    """Say why members have to be trained, or are trained faster, one after the other.

    What shows only when the loss function is recorded (`StackedLoss`) is found later.

    Args:
        run: run of the first member.
        seeds: number of members.
        faster_only: whether it is a reason that training at once would be slower.

    Returns:
        The reason; None where they can be trained at once.
    """
    config, loader = run.config, quick(run.train_loader)
    if run.owns_loop:
        return f"{run.name} has a train() of its own"
    if run.device.type != "cpu":
        return f"members are trained at once on the CPU only, the device is {run.device}"
    if config.step not in ("auto", "eager"):
        return f"step = {config.step} is asked for, and at once is a form of its own (step = auto or eager)"
    for key, plain in (("accumulation_steps", 1), ("ema_decay", 0.0), ("recompute_activations", False)):
        if getattr(config, key) != plain:
            return f"{key} = {getattr(config, key)} is for one after the other only"
    others = [callback for callback in run.callbacks.all if not isinstance(callback, LossSpikes | Trackers)]
    if others:
        return f"the callback {type(others[0]).__name__} may do anything at any step"
    for entry in run.stateful_parts():
        if entry.by_step and not entry.name.startswith(_STACKED):
            return f"each step changes the state of '{entry.name}', which is for one after the other only"
    if config.precision not in ("fp32", "tf32"):
        return f"precision = {config.precision} rounds other products of matrices so that runs would differ by percents"
    if not (hasattr(loader, "epoch_rows") or getattr(loader, "draws_by_epoch", False)):
        return f"train_loader is a {type(loader).__name__}, whose samples may draw random numbers at any batch"
    if not plain_and_fused(run.optimizer):
        return f"{type(run.optimizer).__name__} as it is set up is none of plain Adam, AdamW and SGD"
    return _why_slower(run, seeds) if faster_only else None


def _why_slower(run: RunContext, seeds: int) -> str | None:
    if run.step_flops is None:
        return "nobody knows how much a step computes"
    if run.step_flops > SMALL_STEP_FLOPS:
        return f"a step computes {run.step_flops / 1e6:.0f} MFLOP, so what surrounds it hardly counts"
    if run.config.step == "auto":
        form, reason = choose(run)
        if form != "eager":
            return f"step = {form} is faster: {reason}"
    batches = length_of(run.train_loader)
    if batches is None:
        return "train_loader has no length"
    operators, steps = run.flop_counts["train_loader"][0], run.config.epochs * batches
    cost, saved = _RECORDING * operators * (seeds + 3), _SAVED * operators * (seeds - 1) * steps
    if saved < cost:
        worth = f"{saved:.2g} s of {counted(steps, 'step')}"
        return f"recording the loss functions takes about {cost:.2g} s and saves about {worth}"
    return None
