"""Checks of what a run leaves: metrics.json, and checkpoints that it can go on from."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from commands.check.report import Verdict, failed, listed, ok, skipped, warning
from commands.check.subject import Subject
from commands.probe_steps import build_for_probing, quiet_log, take_step
from storage.checkpoint_store import Checkpoint
from train.checkpointing.run_state import capture, restore
from train.context import RunContext
from train.model_summary import readable_bytes

_TOP = ("schema_version", "trainer", "run_id", "state", "best", "summary", "history")
_ROUNDING = 1e-5  # relative: kernels of a GPU may add in any order


def metrics_appear(subject: Subject) -> Verdict:
    """One short epoch of the trainer's own `train()` leaves metrics.json with the expected entries."""
    if not subject.rehearsal.ended:
        return skipped("the trainer's own train() did not end after one epoch")
    path = subject.run.file("metrics.json")
    if not path.exists():
        return failed("a short run left none: train() must call save_metrics()")
    content = json.loads(path.read_text(encoding="utf-8"))
    history = content.get("history", {})
    missing = [name for name in _TOP if name not in content]
    missing += [f"history.{name}" for name in ("train_loss", "val_loss") if not history.get(name)]
    if missing:
        return failed(f"after a short run it lacks {listed(missing)}")
    strange = [name for name, values in history.items() if not all(map(_is_number, values))]
    if strange:
        return warning(f"values that are no finite numbers: {listed(strange)}")
    names = [name for name in history if name != "val_epoch"]
    return ok(f"after a short epoch: {', '.join(names)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def checkpoint_round_trip(subject: Subject) -> Verdict:
    """A checkpoint, loaded into a trainer that is built anew, is what was saved, and the next step is the same."""
    run = subject.run
    for step_input in subject.step_inputs[:2]:
        take_step(run, step_input)
    run.forget_measurements()
    if not _save(run):
        return skipped("the trainer's own save_checkpoint writes nothing into checkpoints/")
    subject.checkpoint_bytes = max(_size(path) for path in run.checkpoints.folder.iterdir())
    saved = capture(run, held=True)
    take_step(run, subject.step_inputs[0])
    goes_on = capture(run, held=True)
    try:
        other = build_for_probing(subject.trainer_class)
    except torch.OutOfMemoryError:
        return skipped(f"{run.device} has no room for a second run, which would load the checkpoint")
    other.checkpoints = run.checkpoints
    newest = other.checkpoints.load_newest()
    if newest is None:
        return failed("it is written, and then it is not there")
    with quiet_log(logging.WARNING):  # that a loop of its own begins again is no news here
        restore(other, *newest)
    loaded = capture(other, held=True)
    other.model.train()
    take_step(other, subject.step_inputs[0])
    resumed = capture(other, held=True)
    wrong = differences(plain_parts(saved), plain_parts(loaded))
    if wrong:
        return failed(f"differs after loading: {listed(list(wrong))}")
    size = f"{readable_bytes(subject.checkpoint_bytes)}, weights, optimizer and random states are equal"
    return _next_step(differences(plain_parts(goes_on), plain_parts(resumed)), size, run.device)


def _save(run: RunContext) -> bool:
    """Save a checkpoint as at the end of a run, where one is due in any case; say whether one was written."""
    before, epochs, epoch = run.saver.written, run.config.epochs, max(1, run.record.progress.epoch)
    run.config.epochs = epoch
    try:
        run.trainer.save_checkpoint(epoch, True)
        run.saver.flush()
    finally:
        run.config.epochs = epochs
    return run.saver.written > before


def _next_step(wrong: dict[str, float], size: str, device: torch.device) -> Verdict:
    if not wrong:
        return ok(f"{size}, and so is the next step")
    worst = max(wrong.values())
    if device.type != "cpu" and worst < _ROUNDING:
        return ok(f"{size}, the next step differs by {worst:.1g} (kernels of {device.type} add in any order)")
    return failed(
        f"{size}, but the next step differs: {listed(list(wrong))}\n"
        "the trainer has a state that is not saved: keep it in a plain attribute of the trainer, in a buffer of the "
        "model, or give it to get_extra_state and set_extra_state"
    )


def plain_parts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what of a checkpoint says where training is, without the loop's own books.

    Args:
        checkpoint: state of a run, as `capture` gives it.
    """
    of_the_loop = ("record", "position", "step", "meter", "callbacks", "processes", "author")
    return {"weights": checkpoint.weights} | {
        name: part for name, part in checkpoint.state.items() if name not in of_the_loop
    }


def differences(one: Any, other: Any, name: str = "") -> dict[str, float]:
    """Compare two trees of plain data and tensors, bit by bit.

    Args:
        one: first tree.
        other: second tree.
        name: name of the trees in their parent, before the names of the leaves; empty at the top.

    Returns:
        Size of the difference by the name of each leaf that differs: relative to the largest value, infinite where that
            makes no sense.
    """
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return {name: math.inf}
        one, other = one.cpu(), other.cpu()  # host-device synchronisations
        if torch.equal(_bytes(one), _bytes(other)):  # a NaN equals itself here
            return {}
        if not one.is_floating_point():
            return {name: math.inf}
        return {name: float((one - other).abs().max() / one.abs().max().clamp(min=1e-12))}
    if isinstance(one, dict) and isinstance(other, dict):
        found = {f"{name}.{key}".lstrip("."): math.inf for key in one.keys() ^ other.keys()}
        for key in one.keys() & other.keys():
            found |= differences(one[key], other[key], f"{name}.{key}".lstrip("."))
        return dict(sorted(found.items()))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return {name: math.inf}
        return {
            key: value
            for number, pair in enumerate(zip(one, other, strict=True))
            for key, value in differences(*pair, f"{name}[{number}]").items()
        }
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return {} if one.dtype == other.dtype and one.tobytes() == other.tobytes() else {name: math.inf}
    return {} if one == other or (one != one and other != other) else {name: math.inf}


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
