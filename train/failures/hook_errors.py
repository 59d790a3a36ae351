"""Where in a run an error of a trainer's own code came: the epoch, the step, and which samples its batch had."""

import traceback
from types import FrameType
from typing import Any

from data.batch_size import batch_size_of
from train.context import RunContext
from train.error_advice import bad_row
from train.failures.batch_check import listed
from train.loading.loader_faults import samples_of_batches
from train.seeding import preserved_random_states


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


def _place_in_run(run: RunContext, error: Exception) -> list[str]:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    loss = _frame(frames, "wrapper", "train/contract.py")  # what `measured` puts around the loss function
    loss = loss if loss is not None and "batch" in loss.f_locals else None
    epoch = run.record.progress.epoch
    validating = _frame(frames, "validate", "train/base_trainer.py") is not None
    if not validating and (run.owns_loop or _frame(frames, "train", "train/base_trainer.py") is None):
        return []
    name, number = ("val_loader", _evaluated(frames)) if validating else ("train_loader", _trained(run, frames))
    place = f"in the validation after epoch {epoch}" if validating else f"in epoch {epoch + 1}"
    if not validating and loss is not None:
        place += f", step {run.position.steps + 1} (step {run.record.progress.step + 1} of the run)"
    if loss is None or number is None:
        return [f"It came {place}."] if loss is not None else []
    place += f", batch {number + 1}" if validating else ""
    samples = _samples(run, name, number, loss.f_locals.get("batch"))
    row = bad_row(error)
    if samples is not None and row is not None and row < len(samples):
        return [f"It came {place}; row {row} is sample {samples[row]} of {name}."]
    return [f"It came {place}" + (f"; samples {listed(samples)} of {name}." if samples else ".")]


def _frame(frames: list[FrameType], name: str, file: str) -> FrameType | None:
    found = [
        frame for frame in frames
        if frame.f_code.co_name == name and frame.f_code.co_filename.replace("\\", "/").endswith(file)
    ]  # fmt: skip
    return found[-1] if found else None


def _trained(run: RunContext, frames: list[FrameType]) -> int | None:
    """Return the number of the batch in the epoch's pass."""
    step = _frame(frames, "step", "train/steps/eager.py")
    if step is None:
        return None
    microbatches = step.f_locals["step_input"].microbatches
    return run.position.batches + (int(step.f_locals["number"]) if len(microbatches) > 1 else 0)


def _evaluated(frames: list[FrameType]) -> int | None:
    """Return the number of the batch in the validation's pass."""
    names = ("evaluate", "train/steps/eager.py"), ("measure_eagerly", "train/compiled/evaluation.py")
    found = next((frame for name in names if (frame := _frame(frames, *name)) is not None), None)
    return None if found is None else int(found.f_locals["number"]) - 1


def _samples(run: RunContext, name: str, number: int, batch: Any) -> list[Any] | None:
    """Return the indices of a batch's samples; None where they are not known for certain."""
    if not run.process_group.is_single_process:
        return None
    found = samples_of_batches(run, name, [number])
    return found[0] if found and len(found[0]) == batch_size_of(batch) else None
