"""Probe steps: what `--check`, `--find-lr` and `--find-batch-size` share, and how a run is put back after them.

The steps are the real trainer's, in the eager form: a program that is compiled for a few steps would take longer than
they do, and its rates could not be changed at will.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from data.batches import to_device
from data.data_error import DataError
from data.epochs import set_epoch
from data.loaders import Loader, length_of
from train.base_trainer import BaseTrainer
from train.callbacks import Callbacks
from train.context import RunContext, RunOptions
from train.loop.progress import ProgressBar
from train.snapshot import Snapshot
from train.steps.eager import EagerStep, StepInput

_WARM_UP = 10  # steps in which a rate that the schedule would raise slowly is reached


def build_for_probing(trainer_class: type[BaseTrainer], keep_folder: bool = False) -> RunContext:
    """Build a trainer whose steps are tried, and return its run.

    Args:
        trainer_class: class of the trainer.
        keep_folder: whether the run's folder stays; else it goes with the process.
    """
    BaseTrainer.options = RunOptions(dry_run=not keep_folder)
    trainer = trainer_class()
    trainer.config.step = "eager"
    trainer.progress_bar = _NoBar(0, "")
    trainer.run_context.callbacks = Callbacks()  # which shall not see steps that nobody meant
    return trainer.run_context


class _NoBar(ProgressBar):
    """A bar that nobody sees."""

    def open(self, done: int = 0) -> None: ...

    def advance(self, batches: int = 1) -> None: ...

    def line(self, text: Callable[[], str], last: bool) -> None: ...


@contextmanager
def quiet_log(level: int = logging.INFO) -> Iterator[None]:
    """Keep lines up to a level out of the log: what a run would tell of itself is not what was asked for."""
    before = logging.root.manager.disable
    logging.disable(max(level, before))
    try:
        yield
    finally:
        logging.disable(before)


class ProbeSnapshot:
    """All that steps change in a run, held in the host's memory: the device's is measured.

    Args:
        run: run whose state is held. What its trainer holds beside the stateful parts, and no callback's `state_dict`
            gives, is not known here.
    """

    def __init__(self, run: RunContext) -> None:
        self._run, self._training = run, run.model.training
        self._parts = Snapshot(run.stateful_parts(), on_host=True)

    def restore(self) -> None:
        """Put the run back to where it was."""
        run = self._run
        self._parts.restore()
        for module in (run.model, *run.other_modules().values()):
            for parameter in module.parameters():
                parameter.grad = None
        run.update.zero_grad()
        run.guard.missed_steps()  # it forgets the steps that it has seen
        run.forget_measurements()
        run.model.train(self._training)


def eager_step(run: RunContext) -> EagerStep:
    """Return the run's step, which is eager where it is probed.

    Args:
        run: run that `build_for_probing` has built, with the eager step.
    """
    if not isinstance(run.step, EagerStep):
        raise TypeError(f"steps are probed in the eager form, not as {run.step.name}")
    return run.step


def take_step(run: RunContext, step_input: StepInput) -> None:
    """Do one optimizer step; the schedule stays where it is.

    Args:
        run: run that `build_for_probing` has built, with the eager step.
        step_input: batches of the step.
    """
    eager_step(run).step(step_input)


def first_batches(run: RunContext, loader: Loader, count: int) -> list[Any]:
    """Read the first batches of a loader's first epoch, onto the trainer's device.

    Raises:
        DataError: it has none.
    """
    batches = []
    set_epoch(loader, 0)
    for batch in loader:
        batches.append(to_device(batch, run.device))
        if len(batches) == count:
            break
    if not batches:
        name = "train_loader" if loader is run.train_loader else "val_loader"
        raise DataError(f"{run.name}: {name} gave no batch.")
    return batches


def endless_step_inputs(run: RunContext) -> Iterator[StepInput]:
    """Yield the batches of one optimizer step after another, epoch after epoch."""
    epoch = 0
    while True:
        set_epoch(run.train_loader, epoch)
        step_input = None
        for step_input in run.step.step_inputs(run.train_loader):
            yield step_input
        if step_input is None:
            raise DataError(f"{run.name}: train_loader gave no batch in epoch {epoch + 1}.")
        epoch += 1


def steps_an_epoch(run: RunContext) -> int | None:
    """Return how many optimizer steps an epoch has; None where the loader has no length."""
    batches = length_of(run.train_loader)
    return None if batches is None else -(-batches // run.config.accumulation_steps)


def step_loss(run: RunContext, step_input: StepInput) -> float:
    """Do one optimizer step; return its loss, of before the step. The schedule stays where it is.

    Reading the loss is a host-device synchronisation.
    """
    run.forget_measurements()
    take_step(run, step_input)
    return running_loss(run)


def running_loss(run: RunContext) -> float:
    """Return the mean loss of what was measured last. Reading it is a host-device synchronisation.

    Args:
        run: run that has put a batch through its loss function since `forget_measurements`.
    """
    loss = run.meter.read_one("loss")
    return math.nan if loss is None else loss


def peak_rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return the highest learning rate of each parameter group, where a schedule begins below it."""
    return [
        max(float(group["lr"]), float(group.get("initial_lr", 0.0)), float(group.get("max_lr", 0.0)))
        for group in optimizer.param_groups
    ]


def set_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    """Set the learning rate of each parameter group."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class WarmUp:
    """Takes a schedule's place for a few steps: at its highest rates, reached in ten steps where it begins low.

    Args:
        optimizer: optimizer of the run, with the learning rates that it begins with.
        share: share of the schedule's highest rates that is reached.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, share: float = 1.0) -> None:
        self._optimizer = optimizer
        self.rates = [rate * share for rate in peak_rates(optimizer)]
        self._rises = [float(group["lr"]) < 0.99 * peak for group, peak in zip(
            optimizer.param_groups, peak_rates(optimizer), strict=True)]  # fmt: skip

    def set(self, step: int) -> None:
        """Set the rates of a step, counted from 0."""
        low = min(1.0, (step + 1) / _WARM_UP)
        rates = [rate * (low if rises else 1.0) for rate, rises in zip(self.rates, self._rises, strict=True)]
        set_rates(self._optimizer, rates)
