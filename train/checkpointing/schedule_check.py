"""What a resumed run's schedule does when its settings say another length than it began with, told before it trains."""

import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

from beautilog import logger
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from storage.errors import ResumeError
from train.context import RunContext
from train.copies import copied

# Counters of a scheduler; anything else that is a number and called so is a length of its schedule.
_COUNTERS = frozenset({"last_epoch", "_step_count", "T_cur", "T_i", "num_bad_epochs", "cooldown_counter"})
_LENGTH = re.compile(r"total|max_(?:steps|epochs|iters)|^T_|steps|epochs|iters|milestones|step_size|period|length|warm")
_MOST_STEPS = 200_000  # of a schedule that are gone through


def lengths_of(state: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the lengths in a scheduler's state, by name; those of schedulers inside by their number and name.

    Args:
        state: `state_dict` of a scheduler.
        prefix: what the names begin with.
    """
    found: dict[str, Any] = {}
    for name, value in state.items():
        if name == "_schedulers" and isinstance(value, list | tuple):
            for number, inner in enumerate(value):
                found |= lengths_of(inner, f"{prefix}{number}.")
        elif name not in _COUNTERS and _LENGTH.search(name):
            if isinstance(value, Mapping):  # milestones and how often each counts
                value = sorted(value)
            if isinstance(value, int | float | list | tuple) and not isinstance(value, bool):
                found[f"{prefix}{name.lstrip('_')}"] = list(value) if isinstance(value, tuple) else value
    return found


class ScheduleCheck:
    """Compares the schedule that the settings make with that of the run.

    Args:
        run: run that is resumed, before its scheduler's state is put back.
        state: `state_dict` of the run's scheduler.
        epochs: epochs that are done.
    """

    def __init__(self, run: RunContext, state: Mapping[str, Any], epochs: int) -> None:
        self._run, self._epochs = run, epochs
        new, old = lengths_of(run.scheduler.state_dict()), lengths_of(state)
        self._changed = [
            f"{name} {old[name]}, not {new[name]}" for name in new if name in old and old[name] != new[name]
        ]

    def tell(self) -> None:
        """Warn of a schedule that goes on otherwise than the settings say; call it when all states are put back.

        Raises:
            ResumeError: the schedule ends before the run does.
        """
        run, scheduler = self._run, self._run.scheduler
        if isinstance(scheduler, ReduceLROnPlateau) or self._epochs >= run.config.epochs:
            return
        jump = self._jump()
        if not self._changed and jump is None:
            return
        rates = self._rates()
        course = ""
        if rates:
            course = f" and ends with {rates[-1]:.3g} in epoch {run.config.epochs}"
            course += f" (between {min(rates):.3g} and {max(rates):.3g} on the way)"
        kind = type(scheduler).__name__
        if jump is not None:
            told = f"follows the settings of now: the learning rate jumps from {jump[0]:.3g} to {jump[1]:.3g}{course}"
        else:
            told = f"keeps the length that the run began with ({'; '.join(self._changed)}): the learning rate goes on "
            told += f"with {float(run.optimizer.param_groups[0]['lr']):.3g}{course}"
        logger.warning(f"the schedule ({kind}) {told}. A new run has a schedule of the new length")

    def _jump(self) -> tuple[float, float] | None:
        """Return the rate as it was left and as a schedule that is a function gives it now, where they differ."""
        scheduler = self._run.scheduler
        if type(scheduler) is not LambdaLR:  # others go on from the rate that there was
            return None
        before = float(scheduler._last_lr[0])
        peak, factor, step = float(scheduler.base_lrs[0]), scheduler.lr_lambdas[0], scheduler.last_epoch
        same = math.isclose(before, peak * float(factor(step)), rel_tol=1e-6)
        return None if same else (before, peak * float(factor(step + 1)))

    def _rates(self) -> list[float] | None:
        """Go through the rest of the schedule and return the rates of its steps; None where they can't be counted.

        Raises:
            ResumeError: the schedule has not so many steps.
        """
        run, scheduler = self._run, self._run.scheduler
        left = run.config.epochs - self._epochs
        if run.scheduler_interval == "step":
            try:
                each = -(-len(run.train_loader) // run.config.accumulation_steps)
            except TypeError:
                return None
            left = left * each - run.position.steps
        if left > _MOST_STEPS:
            return None
        state, groups = copied(scheduler.state_dict()), run.optimizer.param_groups
        kept = copied([{name: value for name, value in group.items() if name != "params"} for group in groups])
        rates = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the optimizer has not stepped before
                for _ in range(left):
                    rates.append(float(groups[0]["lr"]))  # which the next step, or epoch, is done with
                    scheduler.step()
        except ValueError as error:
            raise ResumeError(
                f"run {run.folder.id} can't be gone on with to epoch {run.config.epochs}: its schedule "
                f"({type(scheduler).__name__}) has {max(0, len(rates) - 1)} steps left after epoch {self._epochs}, "
                f"the epochs need {left} ({error}).\nA schedule of this kind can't be made longer on the way: set "
                "epochs back to what the run began with, or start a new run."
            ) from error
        finally:
            scheduler.load_state_dict(state)
            for group, before in zip(groups, kept, strict=True):
                group.update(before)
        return rates
