"""Which form of the step a run gets."""

from typing import Any

from train.steps.eager import EagerStep


def build_step(trainer: Any) -> Any:
    """Make the step that the config's `step` asks for.

    Args:
        trainer: a BaseTrainer with its optimizer and loaders.
    """
    eager = EagerStep(
        trainer._forward_batch,
        trainer._update,
        lambda: trainer._loss_count,
        trainer.config.accumulation_steps,
        lambda: trainer._step_scheduler("step"),
    )
    form = trainer.config.step
    if form == "compiled":
        from train.steps.fast import CompiledStep

        return CompiledStep(trainer, eager)
    if form == "epoch":
        from train.steps.epoch import EpochStep

        return EpochStep(trainer, eager, trainer.config.log_every_n_steps)
    return eager
