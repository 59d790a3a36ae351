"""Steps on trial: what `--check`, `--find-lr` and `--find-batch-size` share, and how a trainer is put back after it.

The steps are the real trainer's, in the eager form: a program that is compiled for a few steps would take longer than
they do, and its rates could not be changed at will.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from data.batches import to_device
from data.data_error import DataError
from train.base_trainer import BaseTrainer, RunOptions
from train.checkpointing.run_state import other_modules
from train.loop.progress import ProgressBar
from train.steps import Window

_WARM_UP = 10  # steps in which a rate that the schedule would raise slowly is reached


def build_for_trial(trainer_class: type, keep_folder: bool = False) -> Any:
    """Build a trainer whose steps are tried.

    Args:
        trainer_class: over BaseTrainer.
        keep_folder: give it a run folder that stays; else one that goes with the process.
    """
    BaseTrainer.options = RunOptions(dry_run=not keep_folder)
    trainer = trainer_class()
    trainer.config.step = "eager"
    trainer.progress_bar = _NoBar(0, "")
    return trainer


class _NoBar(ProgressBar):
    """A bar that nobody sees."""

    def open(self, done: int = 0) -> None: ...

    def advance(self, batches: int = 1) -> None: ...

    def line(self, *_: Any) -> None: ...


@contextmanager
def quiet_log(level: int = logging.INFO) -> Iterator[None]:
    """Keep lines up to a level out of the log: what a run would tell of itself is not what was asked for."""
    before = logging.root.manager.disable
    logging.disable(max(level, before))
    try:
        yield
    finally:
        logging.disable(before)


class Snapshot:
    """All that steps change in a trainer, held in the host's memory: the device's is measured.

    Args:
        trainer: a BaseTrainer. What it holds beside modules, optimizer and scheduler is not known here.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        modules = [trainer.model, *other_modules(trainer).values()]
        self._modules = [(module, _kept(module.state_dict())) for module in modules]
        self._parts = [trainer.optimizer, trainer.scheduler, trainer.early_stopping]
        self._parts += [part for part in (trainer._average, trainer._precision.scaler) if part is not None]
        self._states = [_kept(part.state_dict()) for part in self._parts]
        self._random = trainer._random_sources.states()
        self._guard = trainer._guard.state()
        self._training = trainer.model.training

    def restore(self) -> None:
        """Put the trainer back to where it was."""
        trainer = self._trainer
        for module, state in self._modules:
            module.load_state_dict(state)
            for parameter in module.parameters():
                parameter.grad = None
        for part, state in zip(self._parts, self._states, strict=True):
            part.load_state_dict(_kept(state))  # an optimizer would go on with these very tensors
        trainer._update.zero_grad()
        trainer._guard.set_state(self._guard)
        trainer._guard.missed_steps()  # it forgets the steps that it has seen
        trainer.forget_measurements()
        trainer._random_sources.set_states(self._random)
        trainer.model.train(self._training)


def _kept(value: Any) -> Any:
    """Copy a tree of plain data and tensors to the host (host-device synchronisations)."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _kept(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_kept, value)) if not hasattr(value, "_fields") else value
    return copy.deepcopy(value)


def first_batches(trainer: Any, loader: Any, count: int) -> list[Any]:
    """Read the first batches of a loader's first epoch, onto the trainer's device.

    Raises:
        DataError: it has none.
    """
    batches = []
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(0)
    for batch in loader:
        batches.append(to_device(batch, trainer.device))
        if len(batches) == count:
            break
    if not batches:
        name = "train_loader" if loader is trainer.train_loader else "val_loader"
        raise DataError(f"{type(trainer).__name__}: {name} gave no batch.")
    return batches


def endless_windows(trainer: Any) -> Iterator[Window]:
    """Yield the batches of one optimizer step after another, epoch after epoch."""
    epoch = 0
    while True:
        if hasattr(trainer.train_loader, "set_epoch"):
            trainer.train_loader.set_epoch(epoch)
        window = None
        for window in trainer._step.pieces(trainer.train_loader):
            yield window
        if window is None:
            raise DataError(f"{type(trainer).__name__}: train_loader gave no batch in epoch {epoch + 1}.")
        epoch += 1


def steps_an_epoch(trainer: Any) -> int | None:
    """Return how many optimizer steps an epoch has; None where the loader has no length."""
    try:
        return -(-len(trainer.train_loader) // trainer.config.accumulation_steps)
    except TypeError:
        return None


def step_loss(trainer: Any, window: Window) -> float:
    """Do one optimizer step; return its loss, of before the step. The schedule stays where it is.

    Reading the loss is a host-device synchronisation.
    """
    trainer.forget_measurements()
    trainer._step.step(window)
    return float(trainer._meter.read_one("loss"))


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


class Ramp:
    """Takes a schedule's place for a few steps: at its highest rates, reached in ten steps where it begins low.

    Args:
        optimizer: of the trainer, as it begins.
        share: of the rates.
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
