"""Checks of the machine: everything is on the device, and what the full run takes of time, memory and disk."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from commands.check.report import Verdict, failed, listed, ok, warning
from commands.check.subject import Budget, Subject
from commands.probe_steps import endless_windows, steps_an_epoch
from data.memory import free_bytes
from train.checkpointing.run_state import held_bytes
from train.loop.progress import duration
from train.machine import peak_memory
from train.model_summary import readable_bytes

_WARM_UP, _STEPS = 2, 20
_SECONDS = 2.0  # of each measurement
_PATIENCE = 10.0  # seconds that a whole validation may take to be measured whole


def all_on_device(subject: Subject) -> Verdict:
    """Parameters, buffers, optimizer state and resident data are where the config's device is."""
    trainer = subject.trainer
    trainer._step.step(subject.windows[0])
    wrong = [
        f"{kind} {'.'.join(part for part in (prefix, name) if part)} ({tensor.device})"
        for prefix, module in subject.modules.items()
        for kind, tensors in (("parameter", module.named_parameters()), ("buffer", module.named_buffers()))
        for name, tensor in tensors
        if not _same(tensor.device, trainer.device)
    ]
    for parameter, state in trainer.optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.dim() and not _same(value.device, parameter.device):
                wrong.append(f"optimizer state {name} ({value.device})")
    if wrong:
        return failed(f"not on {trainer.device}: {listed(wrong)}")
    batches = _data_place(trainer)
    if trainer.device.type == "cpu" and torch.cuda.is_available():
        return warning(f"the device is the CPU, and there is a CUDA device; {batches}")
    return ok(f"model and optimizer on {trainer.device}; {batches}")


def _same(one: torch.device, other: torch.device) -> bool:
    return one.type == other.type and (one.index or 0) == (other.index or 0)


def _data_place(trainer: Any) -> str:
    loader = trainer.train_loader
    if hasattr(loader, "resident"):
        return "training data there too" if loader.resident else "each training batch is moved when it is asked for"
    return f"batches come from {type(loader).__name__}"


def time_and_memory(subject: Subject) -> Verdict:
    """How long the full run will take, from a few steps and a validation, and how much memory the steps took."""
    trainer, config = subject.trainer, subject.trainer.config
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
    step, steps = _step_seconds(trainer)
    validation, how = _validation_seconds(trainer)
    memory = f"peak memory {readable_bytes(peak_memory(trainer.device))}"
    free = free_bytes(trainer.device)
    memory += " of tensors" if trainer.device.type == "cuda" else " of the process"
    memory += f", {readable_bytes(free)} free" if free is not None else ""
    measured = f"{_span(step)} a step (eager, mean of {steps}), {_span(validation)} a validation ({how})"
    epoch_steps = steps_an_epoch(trainer)
    if epoch_steps is None:
        return ok(f"{measured}; train_loader has no length, so nobody knows how long an epoch is\n{memory}")
    validations = -(-config.epochs // config.validate_every_n_epochs)
    whole = _span(config.epochs * epoch_steps * step + validations * validation)
    return ok(f"at most {whole} for {config.epochs} epochs of {epoch_steps:,} steps\n{measured}\n{memory}")


def _span(seconds: float) -> str:
    return duration(seconds) if seconds >= 1 else f"{1000 * seconds:.2g} ms" if seconds < 0.0995 else f"{seconds:.2f} s"


def _step_seconds(trainer: Any) -> tuple[float, int]:
    """Time optimizer steps with the loading of their data; returns the mean, and of how many."""
    trainer.model.train()
    windows = endless_windows(trainer)
    for _ in range(_WARM_UP):
        trainer._step.step(next(windows))
    begin, done = _now(trainer.device), 0
    for _ in Budget(_STEPS, _SECONDS):
        trainer._step.step(next(windows))
        done += 1
    return (_now(trainer.device) - begin) / done, done


def _validation_seconds(trainer: Any) -> tuple[float, str]:
    """Time a pass over val_loader, or its beginning; returns the seconds of a whole one, and how it was measured."""
    trainer.model.eval()
    loader, done, whole = trainer.val_loader, 0, True
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(0)
    begin = time.perf_counter()
    with torch.no_grad():
        for batch in trainer._step._ahead(loader):
            trainer._forward_batch(batch)
            done += 1
            if time.perf_counter() - begin > _SECONDS and not _soon_done(loader, done, begin):
                whole = False
                break
    took = _now(trainer.device) - begin
    if whole:
        return took, "measured whole"
    try:
        return took * len(loader) / done, f"from {done} of {len(loader)} batches"
    except TypeError:
        return took, f"its first {done} batches only: val_loader has no length"


def _soon_done(loader: Any, done: int, begin: float) -> bool:
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
    trainer = subject.trainer
    size = subject.checkpoint_bytes or held_bytes(trainer)
    model = sum(tensor.nbytes for tensor in trainer.model.state_dict().values())
    held = trainer.config.keep_last_checkpoints + 2  # the best one, and the one that is being written
    needed = held * size + 2 * model
    place = _existing(trainer.config.artifacts_dir)
    free = shutil.disk_usage(place).free
    told = (
        f"up to {readable_bytes(needed)}: {held} checkpoints of {readable_bytes(size)}, 2 models of "
        f"{readable_bytes(model)}; {readable_bytes(free)} free in {trainer.config.artifacts_dir}"
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
