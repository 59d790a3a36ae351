"""Which form of the step a run gets."""

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from beautilog import logger
from torch.optim import Optimizer

from config import ConfigError
from constants.counting import counted
from data.tensor_rows import quick
from train.context import RunContext
from train.machine import SMALL_STEP_FLOPS
from train.process_group import process_group
from train.steps.eager import EagerStep, Step
from train.steps.guard import Guard
from train.steps.update import Update
from train.trainer_protocol import Trainer

if TYPE_CHECKING:  # takes half a second, which runs of one process never need
    from train.distributed.sharding import ShardedLoss

# What `auto` counts with, on a CPU. Not measured on the spot: a choice by the clock would differ between a run and its
# resumption, and with it the last bits of the results.
_SAVED_PER_OPERATOR = 12e-6  # seconds: forward and backward of an operator of a small model, without torch's dispatch
_COMPILING = 12.0  # seconds, plus for each operator:
_COMPILING_EACH = 0.15
_WORTHWHILE = 2.0  # how many times its cost it must save


def build_step(run: RunContext, form: str | None = None) -> Step:
    """Make the step that the config's `step` asks for.

    Args:
        run: run whose samples have been tried.
        form: name of the form of the run that is resumed; None takes the config's `step`.

    Raises:
        ConfigError: a form that this device doesn't have.
    """
    form = form or run.config.step
    if not run.process_group.is_single_process:
        return _distributed_step(run, form)
    eager = EagerStep(**_eager_options(run))
    if run.owns_loop:  # which steps by itself
        if form not in ("auto", "eager"):
            logger.warning(f"step = {form} has no effect: {run.name} has a train() of its own")
        return eager
    watcher = run.callbacks.every_step()
    if form == "auto":
        form, reason = choose(run) if watcher is None else ("eager", f"callback {watcher} must see each step")
        logger.info(f"step = {form} (auto): {reason}")
    elif form != "eager" and watcher is not None:
        logger.warning(f"step = {form} is not used: callback {watcher} must see each step, so it is eager")
        form = "eager"
    if form == "graph" and run.device.type != "cuda":
        raise ConfigError([f"step = graph replays CUDA graphs; the device is {run.device}. Use auto or epoch."])
    if form == "eager":
        return eager
    return _fast_step(run, form, eager)


def _fast_step(run: RunContext, form: str, eager: EagerStep) -> Step:
    """Make a compiled form; importing the compiler takes a while, which eager runs never need."""
    if form == "graph":
        from train.compiled.graph import GraphStep

        return GraphStep(run, eager, run.config.log_every_n_steps)
    if form == "compiled":
        from train.compiled.fast import CompiledStep

        return CompiledStep(run, eager)
    from train.compiled.epoch import EpochStep

    return EpochStep(run, eager, run.config.log_every_n_steps)


def _distributed_step(run: RunContext, form: str) -> Step:
    """Make the step of several processes."""
    from train.distributed.step import DistributedStep, ShardedStep

    count = run.process_group.world_size
    if form == "auto":
        logger.info(f"step = eager (auto): {count} processes train together, and compiled forms are for one")
    elif form != "eager":
        logger.warning(f"step = {form} is for one process; {count} train together, so it is eager")
    kind = DistributedStep if run.sharded is None else ShardedStep
    return kind(run, **_eager_options(run))


def _eager_options(run: RunContext) -> dict[str, Any]:
    return {
        "loss_function": run.loss_function,
        "update": run.update,
        "count": lambda: run.loss_count,
        "accumulation_steps": run.config.accumulation_steps,
        "after_update": lambda: run.step_scheduler("step"),
        "average": run.average,
        "device": run.device,
        "after_batch": run.obey_in_validation,
    }


def build_update(
    optimizer: Optimizer, clip: float, scaler: torch.amp.GradScaler | None, guard: Guard, sharded: bool
) -> Update:
    """Make what updates a trainer's parameters.

    Args:
        optimizer: optimizer of the trainer.
        clip: largest L2 norm of the whole gradient; 0 doesn't clip.
        scaler: scaler of the loss, for fp16; None for other precisions.
        guard: guard that judges each step.
        sharded: whether the parameters are spread over the processes.
    """
    if sharded:
        from train.distributed.sharding import ShardedUpdate  # takes half a second

        return ShardedUpdate(optimizer, clip, guard)
    return Update(optimizer, clip, scaler, guard)


def shard_if_asked(trainer: Trainer, loss_function: Callable[[Any], torch.Tensor]) -> "ShardedLoss | None":
    """Spread a trainer's weights over the processes where its config asks for it.

    Args:
        trainer: trainer whose model is on its device, before its first step.
        loss_function: function that maps a batch to its loss.

    Returns:
        The loss function to be called instead; None where the config doesn't ask for it, or with one process.
    """
    if process_group().is_single_process or trainer.config.strategy != "fsdp2":
        return None
    from train.distributed.sharding import shard  # takes half a second

    return shard(trainer, loss_function)


def choose(run: RunContext) -> tuple[str, str]:
    """Choose a form for `step = auto`.

    Args:
        run: run whose samples have been tried.

    Returns:
        The form, and why.
    """
    if run.device.type != "cpu":
        return "eager", f"on {run.device.type}, step = compiled or graph are worth a try for models of small layers"
    if "train_loader" not in run.flop_counts or not hasattr(quick(run.train_loader), "epoch_rows"):
        kind = type(run.train_loader).__name__
        return "eager", f"train_loader is a {kind}; compiled epochs need the data at hand, as a TensorLoader has it"
    flops = run.step_flops
    if flops is not None and flops > SMALL_STEP_FLOPS:
        return "eager", f"a step computes {flops / 1e6:.0f} MFLOP, so what surrounds it hardly counts"
    operators = run.flop_counts["train_loader"][0]
    steps = run.config.epochs * -(-len(run.train_loader) // run.config.accumulation_steps)
    saved = steps * operators * run.config.accumulation_steps * _SAVED_PER_OPERATOR
    cost = _COMPILING + _COMPILING_EACH * operators
    sums = f"compiling takes about {cost:.0f} s and saves about {saved:.2g} s of {counted(steps, 'step')}"
    if saved < _WORTHWHILE * cost:
        return "eager", sums
    if not any(map(shutil.which, ("g++", "clang++", "c++", "cl"))):
        return "eager", f"{sums}, but there is no C++ compiler (Debian: apt install g++)"
    return "epoch", sums
