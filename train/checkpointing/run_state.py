"""A trainer's whole state, into a checkpoint and back."""

from pathlib import Path
from typing import Any

import torch
from beautilog import logger

from storage.checkpoint_store import Checkpoint
from storage.errors import ResumeError
from train.checkpointing.process_state import gathered, own_part_of
from train.checkpointing.weights import plain_weights


def capture(trainer: Any, held: bool = False) -> Checkpoint:
    """Take all but the record that a resumed run needs to give the same bits as one that was never interrupted.

    Copying weights from a device is a host-device synchronisation.

    Args:
        trainer: a BaseTrainer.
        held: copy everything, since training goes on before it is written.
    """
    state = {
        "early_stopping": trainer.early_stopping.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.scheduler.state_dict(),
        "random": trainer._position.start if trainer._position.validating else trainer._random_sources.states(),
        "step": trainer._step.state_dict(),
        "position": trainer._position.state_dict(),
        "meter": trainer._meter.state_dict() if trainer._position.steps else None,
    }
    state |= gathered({"random": state["random"], "start": state["position"]["start"], "meter": state["meter"]})
    others = other_modules(trainer)
    if others:
        state["modules"] = {name: module.state_dict() for name, module in others.items()}
    if trainer._precision.scaler is not None:
        state["scaler"] = trainer._precision.scaler.state_dict()
    if trainer._average is not None:
        state["average"] = trainer._average.state_dict()
    if trainer._sharded is not None:  # it is written at once, by all processes
        trainer._process_group.broadcast(trainer.model, buffers_only=True)
        return Checkpoint(trainer.model.state_dict(), state, sharded=True)
    if not trainer._process_group.is_main_process:  # it has given its part to the one that writes
        return Checkpoint({}, {})
    return Checkpoint(plain_weights(trainer.model), _copied(state) if held else state)


def other_modules(trainer: Any) -> dict[str, torch.nn.Module]:
    """Return the modules with a state that a trainer has beside its model, such as a loss with parameters, by name."""
    inside = {id(module) for module in trainer.model.modules()}
    return {
        name: value
        for name, value in trainer.__dict__.items()
        if isinstance(value, torch.nn.Module)
        and id(value) not in inside
        and name != "_sharded"  # which holds the model
        and value.state_dict()
    }


def held_bytes(trainer: Any) -> int:
    """Return how much memory a copied state takes, roughly: what the optimizer keeps is as large as what it updates."""
    weights = sum(parameter.nbytes for parameter in trainer.model.parameters())
    return 3 * weights + sum(buffer.nbytes for buffer in trainer.model.buffers())


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def restore(trainer: Any, checkpoint: Checkpoint, path: Path) -> None:
    """Bring a trainer to a checkpoint of its run.

    Args:
        trainer: a BaseTrainer that has not trained yet.
        checkpoint: what to go on from.
        path: where it was read.

    Raises:
        ResumeError: it belongs to another model or optimizer.
    """
    if trainer._sharded is not None:
        checkpoint = trainer._sharded.placed(checkpoint)
    state = checkpoint.state
    try:
        trainer.model.load_state_dict(checkpoint.weights)
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.scheduler.load_state_dict(state["scheduler"])
        trainer.early_stopping.load_state_dict(state["early_stopping"])
        trainer.record.load_state_dict(state["record"])
        for name, module in other_modules(trainer).items():
            module.load_state_dict(state["modules"][name])
        if trainer._precision.scaler is not None and "scaler" in state:
            trainer._precision.scaler.load_state_dict(state["scaler"])
        if trainer._average is not None:
            trainer._average.load_state_dict(state["average"])
        trainer.resume_step(state["step"])
        own = own_part_of(state, trainer)
        trainer._position.load_state_dict({**state["position"], "start": own["start"]})
        if own["meter"] is not None:
            trainer._meter.load_state_dict(own["meter"], trainer.device)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ResumeError(
            f"{path} does not fit {type(trainer).__name__} as it is now: {error}\nThe model's or optimizer's settings "
            f"have changed since; {trainer.run_folder.path / 'config.ini'} holds those of the run (--config reads it)."
        ) from error
    trainer._random_sources.set_states(own["random"])
    inside = f" and {trainer._position.steps} steps" if trainer._position.steps else ""
    inside = ", before its validation" if trainer._position.validating else inside
    where = f"after epoch {trainer.record.progress.epoch}{inside}"
    logger.info(f"resumed run {trainer.run_folder.id} {where} from {path}")
    if trainer.owns_loop:
        logger.warning(f"{type(trainer).__name__} has a train() of its own, which begins again at its first epoch")
