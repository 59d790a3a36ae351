"""A run's whole state, into a checkpoint and back."""

from pathlib import Path
from typing import Any

import torch
from beautilog import logger

from constants.counting import counted
from data.batches import to_device
from storage.checkpoint_store import Checkpoint
from storage.errors import ResumeError
from storage.plain_state import require_plain
from storage.weights_file import require_dense
from train.callbacks import CallbackError
from train.checkpointing.monitor_change import state_for_monitor
from train.checkpointing.process_state import gathered, own_part_of
from train.checkpointing.schedule_check import ScheduleCheck
from train.context import RunContext
from train.copies import copied
from train.errors import TrainerContractError
from train.weights import plain_state_dict, plain_weights


def capture(run: RunContext, held: bool = False) -> Checkpoint:
    """Take all but the record that a resumed run needs to give the same bits as one that was never interrupted.

    Copying weights from a device is a host-device synchronisation.

    Args:
        run: run whose state is taken.
        held: whether to copy everything, since training goes on before it is written.
    """
    saved = {entry.name: entry.part for entry in run.stateful_parts() if entry.saved and entry.name != "weights"}
    state: dict[str, Any] = {name: part.state_dict() for name, part in saved.items() if not _is_module(name)}
    modules = {_attribute(name): part.state_dict() for name, part in saved.items() if _is_module(name)}
    state |= {"modules": modules} if modules else {}
    state = {name: part for name, part in state.items() if part or name not in _LEFT_OUT_EMPTY}
    if not run.position.steps and run.author is not None and run.random_sources.data is not None:
        run.author.tell_iterators()
        run.random_sources.data.tell_iterators()
    state["step"] = run.step.state_dict()
    state["meter"] = run.meter.state_dict() if run.position.steps else None
    if run.position.validating:  # it is done anew
        state["random"] = run.position.start
    own = {"random": state["random"], "start": state["position"]["start"], "meter": state["meter"]}
    state |= gathered(own | ({"author": state["author"]} if "author" in state else {}))
    if run.sharded is not None:  # it is written at once, by all processes
        run.process_group.broadcast(run.model, buffers_only=True)
        return Checkpoint(plain_state_dict(run.model), state, sharded=True)
    if not run.process_group.is_main_process:  # it has given its part to the one that writes
        return Checkpoint({}, {})
    return Checkpoint(plain_weights(run.model), copied(state) if held else state)


_BESIDE = ("modules.", "objects.")  # what a trainer has beside its model and its optimizer
_LEFT_OUT_EMPTY = ("author", "buffer_shapes", "extra", "groups", "trainable")


def _is_module(name: str) -> bool:
    return name.startswith("modules.")


def _attribute(name: str) -> str:
    return name.removeprefix("modules.")


def _restore_parts(run: RunContext, state: dict[str, Any], path: Path) -> None:
    parts = [entry for entry in run.stateful_parts() if entry.saved and entry.name != "random"]
    for entry in parts:
        if entry.name in state:
            entry.part.load_state_dict(state[entry.name])
        elif not entry.optional:
            raise KeyError(entry.name)
        elif entry.name.startswith(_BESIDE):
            logger.warning(
                f"{path} has no state of self.{_shown(entry.name)}, which goes on as __init__ made it: an older "
                "version of this program has written it, or the trainer has it only since then"
            )
    for name in sorted(state.keys() - {entry.name for entry in parts}):
        if name.startswith(_BESIDE):
            logger.warning(
                f"{path} has a state of self.{_shown(name)}, which __init__ does not make any more: it is left out"
            )


def _shown(name: str) -> str:
    return name.partition(".")[2]


def require_saveable(run: RunContext) -> None:
    """Find out before the first step what of a run's state a checkpoint can't hold.

    All is captured, packed and unpacked as it will be, but no tensor is copied.

    Args:
        run: run of a trainer that is built.

    Raises:
        TrainerContractError: a part that can't be saved; the text names what is in it.
    """
    for entry in run.stateful_parts():
        if not entry.saved:
            continue
        own = {"weights": "self.model", "extra": "get_extra_state()", "random": "the loaders' objects"}
        what = own.get(entry.name, f"self.{_shown(entry.name) if entry.name.startswith(_BESIDE) else entry.name}")
        try:
            state = entry.part.state_dict()
            if entry.name == "weights":
                require_dense(state, root=what)
            require_plain(state, root=what)
        except TypeError as error:
            raise TrainerContractError(
                f"{run.name}: a checkpoint can't hold the state of {what}: {error}\nKeep plain data there, or leave it "
                "out of its state_dict; the trainer's get_extra_state and set_extra_state can keep what matters of it."
            ) from error
    if run.author is not None and run.random_sources.data is not None:
        run.author.tell_iterators(at_once=True)
        run.random_sources.data.tell_iterators(at_once=True)


def size_of_state(model: torch.nn.Module) -> int:
    """Return how many bytes a captured state takes, roughly: an optimizer keeps as much as what it updates takes.

    Args:
        model: model whose state is captured.
    """
    weights = sum(parameter.nbytes for parameter in model.parameters())
    return 3 * weights + sum(buffer.nbytes for buffer in model.buffers())


def restore(run: RunContext, checkpoint: Checkpoint, path: Path) -> None:
    """Bring a run to one of its checkpoints.

    Args:
        run: run that has not trained yet.
        checkpoint: checkpoint to go on from.
        path: folder that the checkpoint was read from, for errors.

    Raises:
        ResumeError: it belongs to another model or optimizer.
    """
    if run.sharded is not None:
        checkpoint = run.sharded.placed(checkpoint)
    state, record = checkpoint.state, run.record
    try:
        own = own_part_of(state, run.process_group, run.config.seed)
        state = state_for_monitor(state, record, run.early_stopping)
        state = state | {"weights": checkpoint.weights, "position": {**state["position"], "start": own["start"]}}
        state |= {"author": own["author"]} if "author" in own else {}
        state |= {f"modules.{name}": module for name, module in state.pop("modules", {}).items()}
        schedule = ScheduleCheck(run, state["scheduler"], state["record"]["progress"]["epoch"])
        _restore_parts(run, state, path)
        record.load_state_dict(state["record"])
        run.resume_step(state["step"])
        if own["meter"] is not None:
            run.meter.load_state_dict(to_device(own["meter"], run.device))
    except CallbackError:  # which names the callback
        raise
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ResumeError(
            f"{path} does not fit {run.name} as it is now: {error}\nThe model's or optimizer's settings "
            f"have changed since, or its code: leave them as the run has them ({run.folder.path / 'config.ini'} holds "
            "its settings, which go on by themselves), or start a new run without --resume."
        ) from error
    schedule.tell()
    run.random_sources.load_state_dict(own["random"])  # last: nothing of the above may draw from them
    inside = f" and {counted(run.position.steps, 'step')}" if run.position.steps else ""
    inside = ", before its validation" if run.position.validating else inside
    logger.info(f"resumed run {run.folder.id} after epoch {record.progress.epoch}{inside} from {path}")
