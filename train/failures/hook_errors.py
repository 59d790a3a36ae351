"""Where in a run an error of a trainer's own code came: the epoch, the step, and which samples its batch had."""

import traceback
from types import FrameType
from typing import Any

import torch

from data.batch_size import batch_size_of
from data.batches import to_device
from train.context import RunContext
from train.error_advice import bad_row
from train.error_location import innermost, path_of
from train.failures.batch_check import listed
from train.loading.loader_faults import return_to_start, samples_of_batches
from train.loop.meters import EpochMeter
from train.seeding import preserved_random_states

_BASE, _COMPILED = "train/base_trainer.py", "train/compiled/"


def note_place_in_run(run: RunContext, error: BaseException) -> None:
    """Add to an error in which step, or validation, it came and of which samples, as far as that is known.

    Args:
        run: run that the error ends.
        error: error as it was caught, with its traceback.
    """
    if not isinstance(error, Exception):
        return
    try:
        with preserved_random_states():
            for line in _place_in_run(run, error):
                error.add_note(line)
    except Exception:  # a loader of anybody's, after an error: what matters is the error
        run.folder.log_only(traceback.format_exc())


def repeated_eagerly(run: RunContext, error: BaseException) -> Exception | None:
    """Put the batches of a compiled step through the loss function, so that an error of a sample names the user's line.

    What compiled code says of a label out of range names a line that a compiler has written.

    Args:
        run: run that the error ends.
        error: error as it was caught, with its traceback.

    Returns:
        The error that the loss function itself raises, with its place in the run; None where it raises none, or where
        the error did not come out of compiled code.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not isinstance(error, Exception) or not any(_COMPILED in path_of(frame) for frame in frames):
        return None
    if _loss_frame(frames) is not None:  # it was in the user's code anyway
        return None
    validating = innermost(frames, "validate", _BASE) is not None
    name, first = ("val_loader", 0) if validating else ("train_loader", run.position.batches)
    try:
        with preserved_random_states(), run.measuring_with(EpochMeter()), torch.no_grad():
            return _first_error(run, name, first)
    except Exception:  # a loader of anybody's, after an error: what matters is the error
        run.folder.log_only(traceback.format_exc())
        return None


def _first_error(run: RunContext, name: str, first: int) -> Exception | None:
    """Go through a pass from a batch on, until the loss function raises something."""
    if not return_to_start(run, name):
        return None
    for number, batch in enumerate(run.loaders[name]):
        if number < first:
            continue
        try:
            run.loss_function(to_device(batch, run.device))
        except Exception as again:
            for line in _place_of_batch(run, again, name, number, batch):
                again.add_note(line)
            return again
    return None


def _place_in_run(run: RunContext, error: Exception) -> list[str]:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    loss = _loss_frame(frames)
    validating = innermost(frames, "validate", _BASE) is not None
    if loss is None or (not validating and (run.owns_loop or innermost(frames, "train", _BASE) is None)):
        return []
    name, number = ("val_loader", _evaluated(frames)) if validating else ("train_loader", _trained(run, frames))
    return _place_of_batch(run, error, name, number, loss.f_locals["batch"])


def _place_of_batch(run: RunContext, error: Exception, name: str, number: int | None, batch: Any) -> list[str]:
    """Say where in the run a batch is, and which samples it has or which one is bad.

    Args:
        run: run that the error ends.
        error: error that came with the batch.
        name: name of the loader: train_loader or val_loader.
        number: number of the batch in its pass, from 0; None where it is not known.
        batch: the batch itself.
    """
    progress, position = run.record.progress, run.position
    if name == "val_loader":
        place = f"in the validation after epoch {progress.epoch}" + ("" if number is None else f", batch {number + 1}")
    else:
        ahead = 0 if number is None else (number - position.batches) // run.config.accumulation_steps
        step = position.steps + ahead
        place = f"in epoch {progress.epoch + 1}, step {step + 1} (step {progress.step + ahead + 1} of the run)"
    samples = None if number is None else _samples(run, name, number, batch)
    row = bad_row(error)
    if samples is not None and row is not None and row < len(samples):
        return [f"It came {place}; row {row} is sample {samples[row]} of {name}."]
    return [f"It came {place}" + (f"; samples {listed(samples)} of {name}." if samples else ".")]


def _loss_frame(frames: list[FrameType]) -> FrameType | None:
    """Return the call that `measured` puts around the loss function; None where the error came from elsewhere."""
    found = innermost(frames, "wrapper", "train/contract.py")
    return found if found is not None and "batch" in found.f_locals else None


def _trained(run: RunContext, frames: list[FrameType]) -> int | None:
    """Return the number of the batch in the epoch's pass."""
    step = innermost(frames, "step", "train/steps/eager.py")
    if step is None:
        return None
    microbatches = step.f_locals["step_input"].microbatches
    return run.position.batches + (int(step.f_locals["number"]) if len(microbatches) > 1 else 0)


def _evaluated(frames: list[FrameType]) -> int | None:
    """Return the number of the batch in the validation's pass."""
    names = ("evaluate", "train/steps/eager.py"), ("measure_eagerly", "train/compiled/evaluation.py")
    found = next((frame for name in names if (frame := innermost(frames, *name)) is not None), None)
    return None if found is None else int(found.f_locals["number"]) - 1


def _samples(run: RunContext, name: str, number: int, batch: Any) -> list[Any] | None:
    """Return the indices of a batch's samples; None where they are not known for certain."""
    if not run.process_group.is_single_process:
        return None
    found = samples_of_batches(run, name, [number])
    return found[0] if found and len(found[0]) == batch_size_of(batch) else None
