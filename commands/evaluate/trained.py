"""The trainer of a saved run with the run's best weights in its model, and a pass over one of its loaders."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError

from commands.evaluate.request import EvaluationRequest
from commands.probe_steps import quiet_log
from constants.counting import counted
from data.batch_indices import batch_indices
from data.epochs import set_epoch
from data.loaders import Loader, length_of, prefetch
from storage.errors import ResumeError
from storage.saved_run import Run, load_run, read_environment
from storage.weights_file import decode_weights
from train.base_trainer import BaseTrainer
from train.callbacks import Callbacks
from train.checkpointing.provenance import fingerprint, loaders_of
from train.context import RunContext, RunOptions
from train.error_advice import bad_row
from train.errors import TrainerContractError
from train.loading.loader_faults import explain_loader_fault, require_whole_pass
from train.loop.progress import ProgressBar
from train.session import machine_for
from train.weights import load_weights


@dataclass(frozen=True)
class TrainedRun:
    """A saved run, ready to be evaluated.

    Attributes:
        run: run of the trainer, with the best weights in its model, which is in evaluation mode.
        saved: the run as its metrics.json tells it.
        digest: SHA-256 of model.safetensors.
        notes: lines for the terminal about the run and what of it is other now.
    """

    run: RunContext
    saved: Run
    digest: str
    notes: list[str]


def load_trained(trainer_class: type[BaseTrainer], request: EvaluationRequest) -> TrainedRun:
    """Build a run's trainer and put its best weights into the model.

    Args:
        trainer_class: class of the run's trainer; `ConfigParser` has the run's settings already.
        request: run that is asked for.

    Raises:
        ResumeError: the weights are damaged or don't fit the model.
    """
    BaseTrainer.options = RunOptions(dry_run=True, evaluated=request.run)
    with quiet_log(logging.INFO):
        run = trainer_class().run_context
    run.callbacks = Callbacks()
    run.average = None  # what is loaded is the average already, where the run has one
    saved, notes = load_run(request.run), []
    digest = _load_weights(run, request)
    if run.other_modules():
        notes += _load_other_modules(run, saved)
    notes += _other_data(run, request)
    run.model.eval()
    at = "" if saved.best_epoch is None else f" of epoch {saved.best_epoch}"
    at += "" if saved.best_value is None else f" ({saved.monitor.name} {saved.best_value:.6g})"
    head = [f"{run.name} run {request.run.name}: weights{at}, device {run.device}"]
    if saved.state == "running":
        head.append("the run has not ended: these are its best weights so far")
    if request.changed:
        head.append(f"settings that differ from the run's: {', '.join(request.changed)}")
    return TrainedRun(run, saved, digest, head + notes)


def _load_weights(run: RunContext, request: EvaluationRequest) -> str:
    file = request.run / "model.safetensors"
    content = file.read_bytes()
    try:
        load_weights(run.model, decode_weights(content))
    except SafetensorError as error:
        raise ResumeError(f"{file} is damaged: {error}. Train again, or take another run.") from error
    except RuntimeError as error:  # torch's words have a line for each tensor
        reasons = "\n".join(f"  {line.strip()}" for line in str(error).splitlines()[1:6])
        why = "by the settings given here" if request.changed else "in its code, or by a setting that the code reads"
        raise ResumeError(
            f"the weights of run {request.run.name} do not fit {run.name}'s model, which has changed since, {why}:\n"
            f"{reasons}"
        ) from error
    return hashlib.sha256(content).hexdigest()


def _other_data(run: RunContext, request: EvaluationRequest) -> list[str]:
    """Say where the data that the run was trained and validated with is not what it was: a test may have been in it."""
    known = read_environment(request.run).get("data", {})
    now = {name: fingerprint(loader) for name, loader in loaders_of(run).items()}
    return [
        f"warning: the {name} data is not what the run had; samples of the test may have been among it"
        for name, found in now.items()
        if known.get(name) and found and known[name] != found
    ]


def _load_other_modules(run: RunContext, saved: Run) -> list[str]:
    """Load modules beside the model, such as a loss with parameters: the best epoch's checkpoint has them."""
    names = ", ".join(f"self.{name}" for name in run.other_modules())
    store = run.checkpoints
    path = None if saved.best_epoch is None else store.path_of(saved.best_epoch)
    if path is None or not path.is_dir():
        return [f"warning: {names} as a new run has it: model.safetensors holds the model alone, and the best epoch's "
                "checkpoint is not there"]  # fmt: skip
    known = store.load(path).state.get("modules", {})
    for name, module in run.other_modules().items():
        if name in known:
            load_weights(module, known[name])
        module.eval()
    return []


def batches_of(run: RunContext, name: str, loader: Loader) -> Iterator[Any]:
    """Go through a loader's batches in its first order, on the model's device, without gradients.

    An error that arises with a batch, in the loader or where it is used, is told with the batch's place and samples.

    Args:
        run: run whose loader it is.
        name: name of the loader: test_loader, predict_loader or val_loader.
        loader: the loader itself.
    """
    set_epoch(loader, 0)
    number, bar = 0, ProgressBar(length_of(loader) or 0, name)
    try:
        with machine_for(run), torch.no_grad():
            for batch in prefetch(loader, run.device):
                yield batch
                number += 1
                bar.advance()
    finally:
        bar.close()
    require_whole_pass(run, name, number)


@contextmanager
def place_told(run: RunContext, name: str, loader: Loader, number: int) -> Iterator[None]:
    """Let an error of a block say which batch, and where it is known which sample, it came with.

    Args:
        run: run whose loader it is.
        name: name of the loader.
        loader: the loader itself.
        number: number of the batch, from 0.
    """
    try:
        yield
    except TrainerContractError:
        raise
    except Exception as error:
        error.add_note(f"It came with batch {number + 1} of {name}{_sample(run, loader, number, bad_row(error))}.")
        raise


def _sample(run: RunContext, loader: Loader, number: int, row: int | None) -> str:
    if row is None:
        return ""
    set_epoch(loader, 0)
    found = batch_indices(loader, number, 1)
    return f"; row {row} is sample {found[0][row]}" if found and row < len(found[0]) else ""


@contextmanager
def faults_explained(run: RunContext) -> Iterator[None]:
    """Let a block's error of a loader name the loader and the sample."""
    try:
        yield
    except Exception as error:
        told = explain_loader_fault(run, error)
        if told is None:
            raise
        raise told from error


def loader_list(run: RunContext) -> str:
    """Name a run's loaders with their numbers of samples, or of batches: `train_loader (1,400 samples)`."""
    return ", ".join(f"{name} ({_size(loader)})" for name, loader in run.loaders.items())


def _size(loader: Loader) -> str:
    dataset = getattr(loader, "dataset", None)
    length, what = (length_of(loader), "batch") if dataset is None else (length_of(dataset), "sample")
    return "of unknown length" if length is None else counted(length, what)
