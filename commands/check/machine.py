"""Checks of the machine: everything is on the device, and what the full run takes of time, memory and disk."""

import os
import shutil
import time
from pathlib import Path

import torch

from commands.check.report import Verdict, failed, listed, ok, warning
from commands.check.subject import Budget, Subject
from commands.probe_steps import eager_step, endless_step_inputs, steps_an_epoch, take_step
from constants.counting import counted
from constants.time_spans import duration
from data.epochs import set_epoch
from data.loaders import Loader
from data.memory import free_bytes
from train.checkpointing.run_state import size_of_state
from train.context import RunContext
from train.machine import peak_memory
from train.model_summary import readable_bytes

_WARM_UP, _STEPS = 2, 20
_SECONDS = 2.0  # of each measurement
_PATIENCE = 10.0  # seconds that a whole validation may take to be measured whole


def all_on_device(subject: Subject) -> Verdict:
    """Parameters, buffers, optimizer state and resident data are where the config's device is."""
    run = subject.run
    take_step(run, subject.step_inputs[0])
    wrong = [
        f"{kind} {'.'.join(part for part in (prefix, name) if part)} ({tensor.device})"
        for prefix, module in subject.modules.items()
        for kind, tensors in (("parameter", module.named_parameters()), ("buffer", module.named_buffers()))
        for name, tensor in tensors
        if not _same(tensor.device, run.device)
    ]
    for parameter, state in run.optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.dim() and not _same(value.device, parameter.device):
                wrong.append(f"optimizer state {name} ({value.device})")
    if wrong:
        return failed(f"not on {run.device}: {listed(wrong)}")
    batches = _data_place(run)
    if run.device.type == "cpu" and torch.cuda.is_available():
        return warning(f"the device is the CPU, and there is a CUDA device; {batches}")
    return ok(f"model and optimizer on {run.device}; {batches}")


def _same(one: torch.device, other: torch.device) -> bool:
    return one.type == other.type and (one.index or 0) == (other.index or 0)


def _data_place(run: RunContext) -> str:
    loader = run.train_loader
    if hasattr(loader, "resident"):
        return "training data there too" if loader.resident else "each training batch is moved when it is asked for"
    return f"batches come from {type(loader).__name__}"


def time_and_memory(subject: Subject) -> Verdict:
    """How long the full run will take, from a few steps and a validation, and how much memory the steps took."""
    run, config = subject.run, subject.run.config
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    step, steps = _step_seconds(run)
    validation, how = _validation_seconds(run)
    memory = f"peak memory {readable_bytes(peak_memory(run.device))}"
    free = free_bytes(run.device)
    memory += " of tensors" if run.device.type == "cuda" else " of the process"
    memory += f", {readable_bytes(free)} free" if free is not None else ""
    measured = f"{duration(step)} a step (eager, mean of {steps}), {duration(validation)} a validation ({how})"
    epoch_steps = steps_an_epoch(run)
    if epoch_steps is None:
        return ok(f"{measured}; train_loader has no length, so nobody knows how long an epoch is\n{memory}")
    validations = -(-config.epochs // config.validate_every_n_epochs)
    whole = duration(config.epochs * epoch_steps * step + validations * validation)
    return ok(
        f"at most {whole} for {counted(config.epochs, 'epoch')} of {counted(epoch_steps, 'step')}\n{measured}\n{memory}"
    )


def _step_seconds(run: RunContext) -> tuple[float, int]:
    """Time optimizer steps with the loading of their data; returns the mean, and of how many."""
    run.model.train()
    step_inputs = endless_step_inputs(run)
    for _ in range(_WARM_UP):
        take_step(run, next(step_inputs))
    begin, done = _now(run.device), 0
    for _ in Budget(_STEPS, _SECONDS):
        take_step(run, next(step_inputs))
        done += 1
    return (_now(run.device) - begin) / done, done


def _validation_seconds(run: RunContext) -> tuple[float, str]:
    """Time a pass over val_loader, or its beginning; returns the seconds of a whole one, and how it was measured."""
    run.model.eval()
    loader, done, whole = run.val_loader, 0, True
    set_epoch(loader, 0)
    begin = time.perf_counter()
    with torch.no_grad():
        for batch in eager_step(run).ahead(loader):
            run.loss_function(batch)
            done += 1
            if time.perf_counter() - begin > _SECONDS and not _soon_done(loader, done, begin):
                whole = False
                break
    took = _now(run.device) - begin
    if whole:
        return took, "measured whole"
    try:
        return took * len(loader) / done, f"from {done} of {counted(len(loader), 'batch')}"
    except TypeError:
        return took, f"its first {counted(done, 'batch')} only: val_loader has no length"


def _soon_done(loader: Loader, done: int, begin: float) -> bool:
    try:
        return (time.perf_counter() - begin) * len(loader) / done < _PATIENCE
    except TypeError:
        return False


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)  # host-device synchronisation: the steps are done, not only begun
    return time.perf_counter()


def disk_space(subject: Subject) -> Verdict:
    """The checkpoints that a run keeps at a time, and its models, fit on the disk of `artifacts_dir`."""
    run = subject.run
    size = subject.checkpoint_bytes or size_of_state(run.model)
    model = sum(getattr(value, "nbytes", 0) for value in run.model.state_dict().values())
    held = run.config.keep_last_checkpoints + 2  # the best one, and the one that is being written
    needed = held * size + 2 * model
    place = _existing(run.config.artifacts_dir)
    free = shutil.disk_usage(place).free
    told = (
        f"up to {readable_bytes(needed)}: {counted(held, 'checkpoint')} of {readable_bytes(size)}, 2 models of "
        f"{readable_bytes(model)}; {readable_bytes(free)} free in {run.config.artifacts_dir}"
    )
    if not os.access(place, os.W_OK):
        return failed(f"{place} can't be written; {told}")
    if needed > free:
        return failed(told)
    return warning(f"{told}: more than half of it") if needed > free / 2 else ok(told)


def _existing(path: Path) -> Path:
    """Return the nearest folder above a path that exists."""
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path
