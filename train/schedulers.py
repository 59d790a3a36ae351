"""Learning-rate schedules, and how often each kind steps."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, OneCycleLR, ReduceLROnPlateau


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, total_steps: int, floor: float = 0.0) -> LambdaLR:
    """Rise linearly for `warmup_steps` optimizer steps, then fall along a cosine until `total_steps`.

    The schedule for transformers (Loshchilov and Hutter, SGDR, 2017, without restarts). It steps with the optimizer.

    Args:
        optimizer: optimizer whose learning rates are the schedule's peak.
        warmup_steps: optimizer steps of the rise.
        total_steps: optimizer steps of the run: batches an epoch x epochs / accumulation_steps.
        floor: learning rate at the end, as a share of the peak.

    Returns:
        A scheduler that `BaseTrainer` steps after every optimizer step.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(f"warmup_steps = {warmup_steps}: must be from 0 to below total_steps = {total_steps}.")

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return with_each_step(LambdaLR(optimizer, factor))


def with_each_step(scheduler: LambdaLR) -> LambdaLR:
    """Let a schedule step after each optimizer step, not after each epoch; returns it."""
    scheduler.interval = "step"  # type: ignore[attr-defined]  # not torch's attribute but what `interval_of` looks at
    return scheduler


def interval_of(scheduler: object) -> str:
    """Say when a scheduler steps.

    Returns:
        `validation` (ReduceLROnPlateau: on the validation loss, never on the training loss), `step` (after each
        optimizer step: OneCycleLR, CyclicLR, and any with an attribute `interval = "step"`), else `epoch`.
    """
    if isinstance(scheduler, ReduceLROnPlateau):
        return "validation"
    default = "step" if isinstance(scheduler, OneCycleLR | CyclicLR) else "epoch"
    return getattr(scheduler, "interval", default)
