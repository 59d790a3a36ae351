"""Checks of what steers a run: the scheduler and early stopping."""

import math
import warnings

from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from commands.check.report import Verdict, failed, ok, skipped, warning
from commands.check.subject import Subject
from commands.probe_steps import peak_rates, steps_an_epoch
from constants.counting import counted
from train.context import RunContext
from train.schedulers import interval_of

_MOST_CALLS = 10_000  # that are tried; a patience beyond that is none
_WHEN = {"epoch": "each epoch", "step": "each optimizer step"}


def scheduler_steps(subject: Subject) -> Verdict:
    """It belongs to the optimizer and steps when it should: ReduceLROnPlateau on validation losses only."""
    run, scheduler = subject.run, subject.run.scheduler
    name = type(scheduler).__name__
    if getattr(scheduler, "optimizer", run.optimizer) is not run.optimizer:
        return failed(f"{name} belongs to another optimizer than the trainer's")
    heard = subject.rehearsal
    if not heard.ended:
        return skipped("the trainer's own train() did not end after one epoch")
    if isinstance(scheduler, ReduceLROnPlateau):
        return _plateau(subject, scheduler)
    planned = run.config.epochs * (steps_an_epoch(run) or 0)
    if isinstance(scheduler, OneCycleLR) and planned > scheduler.total_steps:
        return failed(
            f"{name} is for {counted(scheduler.total_steps, 'step')}, the run has {planned:,}: it would fail there"
        )
    if not heard.scheduler_steps:
        return warning(f"{name} was never stepped in a short run of the trainer's own train()")
    times = len(heard.scheduler_steps)
    when = _WHEN.get(interval_of(scheduler), "as the trainer's train() has it")
    return ok(f"{name}, {when}: {counted(times, 'time')} in a short run")


def _plateau(subject: Subject, scheduler: ReduceLROnPlateau) -> Verdict:
    run, heard = subject.run, subject.rehearsal
    strange = [value for value in heard.scheduler_steps if value not in heard.val_losses]
    if strange:
        return _strange(subject, strange[0])
    if not heard.scheduler_steps:
        return warning("ReduceLROnPlateau was never stepped in a short run of the trainer's own train()")
    patience = scheduler.patience
    if patience > _MOST_CALLS:
        return ok(f"ReduceLROnPlateau steps on the validation loss; patience {patience:,} never ends")
    subject.restore()
    start = peak_rates(run.optimizer)
    falls = _validations_until_the_rate_falls(scheduler, patience)
    if falls is None or falls != patience + 1:
        told = "does not fall" if falls is None else f"falls after {falls}"
        return failed(f"ReduceLROnPlateau has patience {patience}, but the learning rate {told}")
    rate = float(run.optimizer.param_groups[0]["lr"])
    bad = counted(falls, "bad one")
    told = f"ReduceLROnPlateau steps on the validation loss; rate {start[0]:g} to {rate:g} after {bad}"
    config = run.config
    validations = -(-config.epochs // config.validate_every_n_epochs)
    if 0 < config.early_stopping_patience <= patience:
        return warning(f"{told}; early stopping ends the run before that, after {config.early_stopping_patience}")
    if validations <= patience + 1:
        return warning(f"{told}; the run has {counted(validations, 'validation')}, so it never falls")
    return ok(told)


def _strange(subject: Subject, value: float | None) -> Verdict:
    """Judge what ReduceLROnPlateau was given that is no validation loss."""
    if value is None:
        return failed("ReduceLROnPlateau was stepped without a loss")
    heard = subject.rehearsal
    of_training = [float(loss) for loss in subject.run.record.history["train_loss"]] + heard.train_losses
    if heard.train_losses:
        of_training += [sum(heard.train_losses), sum(heard.train_losses) / len(heard.train_losses)]
    validation = ", ".join(f"{loss:.6g}" for loss in heard.val_losses) or "not measured by validate()"
    told = f"ReduceLROnPlateau was stepped on {value:.6g}"
    if any(math.isclose(value, loss, rel_tol=1e-4) for loss in of_training):
        return failed(f"{told}, a training loss; the validation loss is {validation}")
    return warning(f"{told}; the validation loss is {validation}")


def _validations_until_the_rate_falls(scheduler: ReduceLROnPlateau, patience: int) -> int | None:
    """Give the scheduler a loss and then worse ones; return how many it takes, None if it never does."""
    group = scheduler.optimizer.param_groups[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimizer step came before
        scheduler.step(1.0)
        worse = 2.0 if scheduler.mode == "min" else 0.5
        before = float(group["lr"])
        for bad in range(1, patience + 3):
            scheduler.step(worse)
            if float(group["lr"]) < before:
                return bad
    return None


def early_stopping_stops(subject: Subject) -> Verdict:
    """With a loss that never improves, `check_early_stopping` asks for the end after `patience` validations."""
    run, patience = subject.run, subject.run.config.early_stopping_patience
    asked, ended = subject.rehearsal.asked_to_stop, subject.rehearsal.ended
    subject.restore()
    run.trainer.check_early_stopping(1.0)
    if not patience:
        stopped = _stops_after(run, 20)
        return failed(f"it is off, but stops after {stopped}") if stopped else ok("off (early_stopping_patience = 0)")
    if patience > _MOST_CALLS:
        return skipped(f"early_stopping_patience = {patience:,} is too many to try")
    stopped = _stops_after(run, patience + 1)
    if stopped != patience:
        told = f"stops after {stopped}" if stopped else f"does not stop after {patience + 1}"
        return failed(f"early_stopping_patience = {patience}, but the run {told} validations without improvement")
    if ended and not asked:
        return warning("the trainer's own train() never calls check_early_stopping")
    return ok(f"stops after {counted(patience, 'validation')} without improvement, not before")


def _stops_after(run: RunContext, most: int) -> int | None:
    return next((number for number in range(1, most + 1) if run.trainer.check_early_stopping(1.0)), None)
