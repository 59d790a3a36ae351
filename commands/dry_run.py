"""What a run would do: the text of `--dry-run`."""

import sys

from constants.counting import counted
from train.base_trainer import BaseTrainer, RunOptions
from train.context import RunContext
from train.model_summary import loader_line, model_lines
from train.schedulers import interval_of
from train.session import machine_for, threads_line

_WHEN = {"validation": "on the validation loss", "epoch": "each epoch", "step": "each optimizer step"}


def command(trainer_class: type[BaseTrainer], _: bool) -> int:
    """Build a trainer and show what its run would do: `--dry-run`."""
    BaseTrainer.options = RunOptions(dry_run=True)
    sys.stdout.write("\n".join(plan_lines(trainer_class().run_context)) + "\n")
    return 0


def plan_lines(run: RunContext) -> list[str]:
    """Describe a trainer that is built but not run.

    Args:
        run: the run of a trainer that is built.

    Returns:
        Lines for a terminal.
    """
    config = run.config
    with machine_for(run):
        threads = threads_line(run)
    description = (type(run.trainer).__doc__ or "").strip().split("\n")[0]
    optimizer = run.optimizer
    group = optimizer.param_groups[0]
    lines = [
        f"{run.name}: {description}",
        *model_lines(run.model),
        f"device: {run.device}, {threads}",
        loader_line("training", run.train_loader),
        loader_line("validation", run.val_loader),
        *(loader_line("test", loader) for loader in [run.loaders.get("test_loader")] if loader is not None),
        f"optimizer: {type(optimizer).__name__}, learning rate {group['lr']:g}, "
        f"weight decay {group.get('weight_decay', 0):g}, "
        + (f"gradient norm at most {config.gradient_clip_value:g}" if config.gradient_clip_value else "no clipping"),
        f"schedule: {type(run.scheduler).__name__}, steps {_WHEN[interval_of(run.scheduler)]}",
        f"length: {counted(config.epochs, 'epoch')}, {_steps(run)}validation {_every(config.validate_every_n_epochs)}, "
        + (f"early stopping after {config.early_stopping_patience} without improvement"
           if config.early_stopping_patience else "no early stopping"),
    ]  # fmt: skip
    for name, loss in run.first_losses.items():
        lines.append(f"first forward pass, {name.removesuffix('_loader')}: loss {float(loss):.6g}")  # synchronisation
    runs = config.artifacts_dir / "models" / run.trainer.model_name / "runs"
    return [*lines, f"a run would write to {runs}", "dry run: nothing was trained or written"]


def _every(epochs: int) -> str:
    return "each epoch" if epochs == 1 else f"every {epochs} epochs"


def _steps(run: RunContext) -> str:
    try:
        steps = -(-len(run.train_loader) // run.config.accumulation_steps)
    except TypeError:
        return ""
    return f"{counted(steps, 'optimizer step')} each ({steps * run.config.epochs:,} in all), "
