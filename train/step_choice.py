"""Which form of the step a run gets."""

import shutil
from typing import Any

from beautilog import logger

from config import ConfigError
from data.tensor_rows import quick
from train.machine import SMALL_STEP_FLOPS
from train.steps.eager import EagerStep
from train.steps.update import Update

# What `auto` counts with, on a CPU. Not measured on the spot: a choice by the clock would differ between a run and its
# resumption, and with it the last bits of the results.
_SAVED_PER_OPERATOR = 12e-6  # seconds: forward and backward of an operator of a small model, without torch's dispatch
_COMPILING = 12.0  # seconds, plus for each operator:
_COMPILING_EACH = 0.15
_WORTHWHILE = 2.0  # how many times its cost it must save


def build_step(trainer: Any, form: str | None = None) -> Any:
    """Make the step that the config's `step` asks for.

    Args:
        trainer: a BaseTrainer with its optimizer and loaders, its samples tried.
        form: another one than the config's: that of the run that is resumed.

    Raises:
        ConfigError: a form that this device doesn't have.
    """
    eager = EagerStep(
        trainer._forward_batch,
        trainer._update,
        lambda: trainer._loss_count,
        trainer.config.accumulation_steps,
        lambda: trainer._step_scheduler("step"),
        trainer._average,
        trainer.device,
        trainer.obey_in_validation,
    )
    form = form or trainer.config.step
    if not trainer._process_group.is_single_process:
        from train.distributed.build import build_distributed_step

        return build_distributed_step(trainer, form)
    if trainer.owns_loop:  # which steps by itself
        if form not in ("auto", "eager"):
            logger.warning(f"step = {form} has no effect: {type(trainer).__name__} has a train() of its own")
        return eager
    if form == "auto":
        form, reason = choose(trainer)
        logger.info(f"step = {form} (auto): {reason}")
    if form == "graph" and trainer.device.type != "cuda":
        raise ConfigError([f"step = graph replays CUDA graphs; the device is {trainer.device}. Use auto or epoch."])
    if form == "eager":
        return eager
    if form == "graph":
        from train.compiled.graph import GraphStep

        return GraphStep(trainer, eager, trainer.config.log_every_n_steps)
    if form == "compiled":
        from train.compiled.fast import CompiledStep

        return CompiledStep(trainer, eager)
    from train.compiled.epoch import EpochStep

    return EpochStep(trainer, eager, trainer.config.log_every_n_steps)


def build_update(trainer: Any) -> Update:
    """Make what updates a trainer's parameters."""
    clip, guard = trainer.config.gradient_clip_value, trainer._guard
    if trainer._sharded is not None:
        from train.distributed.sharding import ShardedUpdate

        return ShardedUpdate(trainer.optimizer, clip, guard)
    return Update(trainer.optimizer, clip, trainer._precision.scaler, guard)


def choose(trainer: Any) -> tuple[str, str]:
    """Choose a form for `step = auto`.

    Args:
        trainer: as for `build_step`.

    Returns:
        The form, and why.
    """
    if trainer.device.type != "cpu":
        return "eager", f"on {trainer.device.type}, step = compiled or graph are worth a try for models of small layers"
    if "train_loader" not in trainer.surveys or not hasattr(quick(trainer.train_loader), "epoch_rows"):
        kind = type(trainer.train_loader).__name__
        return "eager", f"train_loader is a {kind}; compiled epochs need the data at hand, as a TensorLoader has it"
    if trainer.step_flops > SMALL_STEP_FLOPS:
        return "eager", f"a step computes {trainer.step_flops / 1e6:.0f} MFLOP, so what surrounds it hardly counts"
    operators = trainer.surveys["train_loader"][0]
    steps = trainer.config.epochs * -(-len(trainer.train_loader) // trainer.config.accumulation_steps)
    saved = steps * operators * trainer.config.accumulation_steps * _SAVED_PER_OPERATOR
    cost = _COMPILING + _COMPILING_EACH * operators
    sums = f"compiling takes about {cost:.0f} s and saves about {saved:.2g} s of {steps:,} steps"
    if saved < _WORTHWHILE * cost:
        return "eager", sums
    if not any(map(shutil.which, ("g++", "clang++", "c++", "cl"))):
        return "eager", f"{sums}, but there is no C++ compiler (Debian: apt install g++)"
    return "epoch", sums
