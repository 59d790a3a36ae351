"""What a run would do: the text of `--dry-run`."""

import sys
import warnings

from torch.optim.lr_scheduler import ReduceLROnPlateau

from commands.probe_steps import steps_an_epoch
from constants.counting import counted
from train.base_trainer import BaseTrainer, RunOptions
from train.context import RunContext
from train.model_summary import loader_line, model_lines
from train.session import machine_for, threads_line

_MOST_STEPS = 200_000  # of a schedule that are looked at: about two seconds
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
    peak, shape = schedule_of(run)
    lines = [
        f"{run.name}: {description}",
        *model_lines(run.model),
        f"device: {run.device}, {threads}",
        loader_line("training", run.train_loader),
        loader_line("validation", run.val_loader),
        *(loader_line("test", loader) for loader in [run.loaders.get("test_loader")] if loader is not None),
        f"optimizer: {type(optimizer).__name__}, learning rate {peak:g}, "
        f"weight decay {group.get('weight_decay', 0):g}, "
        + (f"gradient norm at most {config.gradient_clip_value:g}" if config.gradient_clip_value else "no clipping"),
        f"schedule: {type(run.scheduler).__name__}, steps {_WHEN[run.scheduler_interval]}: {shape}",
        f"length: {counted(config.epochs, 'epoch')}, {_steps(run)}validation {_every(config.validate_every_n_epochs)}, "
        + (f"early stopping after {config.early_stopping_patience} without improvement"
           if config.early_stopping_patience else "no early stopping"),
    ]  # fmt: skip
    for name, loss in run.first_losses.items():
        lines.append(
            f"first forward pass, {name.removesuffix('_loader')}: loss {float(loss) + 0.0:.6g}"
        )  # no -0; synchronisation
    runs = config.artifacts_dir / "models" / run.trainer.model_name / "runs"
    return [*lines, f"a run would write to {runs}", "dry run: nothing was trained or written"]


def schedule_of(run: RunContext) -> tuple[float, str]:
    """Go through a run's schedule, which is used up by that: no step of the run may follow.

    Args:
        run: run of a trainer that is built for this alone.

    Returns:
        The highest learning rate of the first parameter group, and in words the first, the highest and the last.
    """
    first = run.learning_rate()
    scheduler = run.scheduler
    if isinstance(scheduler, ReduceLROnPlateau):
        patience = counted(scheduler.patience + 1, "validation")
        return first, f"{first:g}, times {scheduler.factor:g} after {patience} in a row without improvement"
    steps = steps_an_epoch(run)
    unit, planned = "epoch", run.config.epochs
    if run.scheduler_interval == "step":
        if steps is None:
            return first, f"{first:g} at first; train_loader has no length, so how it goes on is not known"
        unit, planned = "step", steps * run.config.epochs
    rates, trouble = _rates(run, min(planned, _MOST_STEPS))
    highest = max(rates)
    if min(rates) == highest and not trouble:
        return highest, f"{highest:g} throughout"
    number = rates.index(highest) + 1
    shape = [f"{first:g} at first"] if number > 1 else []
    shape.append(f"highest {highest:g} in {unit} {number:,}")
    if number < len(rates):
        shape.append(f"{rates[-1]:.3g} in {unit} {len(rates):,}" + (", the last" if len(rates) == planned else ""))
    if trouble:
        shape.append(f"then it fails, before the {counted(planned, unit)} of the run are done: {trouble}")
    return highest, ", ".join(shape)


def _rates(run: RunContext, count: int) -> tuple[list[float], str]:
    """Return the learning rates of a run's first steps, or epochs, and what the schedule raised if it ended early."""
    rates = [run.learning_rate()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it steps without the optimizer
        for _ in range(count):
            try:
                run.scheduler.step()
            except Exception as error:  # whatever a schedule raises that was made for fewer steps
                return rates, f"{type(error).__name__}: {error}"
            rates.append(float(run.optimizer.param_groups[0]["lr"]))
    return rates[:-1], ""  # the last one is for a step that there is not


def _every(epochs: int) -> str:
    return "each epoch" if epochs == 1 else f"every {epochs} epochs"


def _steps(run: RunContext) -> str:
    steps = steps_an_epoch(run)
    if steps is None:
        return ""
    return f"{counted(steps, 'optimizer step')} each ({steps * run.config.epochs:,} in all), "
