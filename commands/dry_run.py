"""What a run would do: the text of `--dry-run`."""

import sys
from typing import Any

from train.base_trainer import BaseTrainer, RunOptions
from train.model_summary import loader_line, model_lines
from train.schedulers import interval_of

_WHEN = {"validation": "on the validation loss", "epoch": "each epoch", "step": "each optimizer step"}


def command(trainer_class: type, _: bool) -> int:
    """Build a trainer and show what its run would do: `--dry-run`."""
    BaseTrainer.options = RunOptions(dry_run=True)
    sys.stdout.write("\n".join(plan_lines(trainer_class())) + "\n")
    return 0


def plan_lines(trainer: Any) -> list[str]:
    """Describe a trainer that is built but not run.

    Args:
        trainer: a BaseTrainer.

    Returns:
        Lines for a terminal.
    """
    config = trainer.config
    description = (type(trainer).__doc__ or "").strip().split("\n")[0]
    optimizer = trainer.optimizer
    group = optimizer.param_groups[0]
    lines = [
        f"{type(trainer).__name__}: {description}",
        *model_lines(trainer.model),
        f"device: {trainer.device}",
        loader_line("training", trainer.train_loader),
        loader_line("validation", trainer.val_loader),
        f"optimizer: {type(optimizer).__name__}, learning rate {group['lr']:g}, "
        f"weight decay {group.get('weight_decay', 0):g}, "
        + (f"gradient norm at most {config.gradient_clip_value:g}" if config.gradient_clip_value else "no clipping"),
        f"schedule: {type(trainer.scheduler).__name__}, steps {_WHEN[interval_of(trainer.scheduler)]}",
        f"length: {config.epochs} epochs, {_steps(trainer)}validation {_every(config.validate_every_n_epochs)}, "
        + (f"early stopping after {config.early_stopping_patience} without improvement"
           if config.early_stopping_patience else "no early stopping"),
    ]  # fmt: skip
    for name, loss in trainer.first_losses.items():
        lines.append(f"first forward pass, {name.removesuffix('_loader')}: loss {float(loss):.6g}")  # synchronisation
    runs = config.artifacts_dir / "models" / trainer.model_name / "runs"
    return [*lines, f"a run would write to {runs}", "dry run: nothing was trained or written"]


def _every(epochs: int) -> str:
    return "each epoch" if epochs == 1 else f"every {epochs} epochs"


def _steps(trainer: Any) -> str:
    try:
        steps = -(-len(trainer.train_loader) // trainer.config.accumulation_steps)
    except TypeError:
        return ""
    return f"{steps:,} optimizer steps each ({steps * trainer.config.epochs:,} in all), "
