"""Saved sweeps: the trials.json of a sweep, and its table. Nothing here knows Optuna or a live trainer."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constants import command
from constants.counting import counted
from storage.run_table import state_of
from storage.saved_run import RunDamagedError, RunNotFoundError
from storage.text_table import aligned

SCHEMA_VERSION = 1  # of trials.json
_WIDTH = 24  # columns that a value of a setting may take


@dataclass(frozen=True)
class SweepTrial:
    """A trial of a sweep.

    Attributes:
        number: number of the trial, from 1.
        state: state of the trial: complete, pruned, failed or running.
        value: best value of the sweep's metric over the trial's epochs; None where it was never measured.
        epochs: number of epochs that the trial was trained.
        run: id of the trial's run, None where it had not begun.
        params: values of the searched settings, by key.
        error: error that ended a failed trial; None of others.
    """

    number: int
    state: str
    value: float | None
    epochs: int
    run: str | None
    params: dict[str, Any]
    error: str | None


@dataclass(frozen=True)
class Sweep:
    """A sweep as trials.json has it.

    Attributes:
        path: folder of the sweep.
        trainer: class name of the trainer.
        name: name of the sweep.
        metric: name of the history number that trials are compared by, such as `val_loss`.
        direction: direction in which the metric is better: minimize or maximize.
        planned: number of trials that the sweep is to have.
        space: search space by key: `kind` (choices, range, log) and `choices`, or `low` and `high`.
        importance: share of the differences that each key explains; None where that could not be said.
        trials: all trials, in the order of their numbers.
    """

    path: Path
    trainer: str
    name: str
    metric: str
    direction: str
    planned: int
    space: dict[str, dict[str, Any]]
    importance: dict[str, float] | None
    trials: list[SweepTrial]

    @property
    def ranked(self) -> list[SweepTrial]:
        """All trials, the best first: complete ones by value, then pruned ones by value, then the others."""
        sign = -1 if self.direction == "maximize" else 1
        order = ("complete", "pruned", "running", "failed")
        return sorted(
            self.trials,
            key=lambda trial: (order.index(trial.state), trial.value is None, sign * (trial.value or 0), trial.number),
        )

    @property
    def best(self) -> SweepTrial | None:
        """The best complete trial."""
        first = self.ranked[:1]
        return first[0] if first and first[0].state == "complete" else None

    @property
    def done(self) -> bool:
        """Whether there are as many trials as planned, and none goes on."""
        return len(self.trials) >= self.planned and all(trial.state != "running" for trial in self.trials)


def load_sweep(path: Path) -> Sweep:
    """Read a sweep.

    Args:
        path: folder of the sweep, artifacts/sweeps/<model>/<name>, or trials.json in it.

    Raises:
        RunNotFoundError: there is no sweep.
        RunDamagedError: trials.json can't be read.
    """
    folder = path.parent if path.name == "trials.json" else path
    file = folder / "trials.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA_VERSION:
            raise RunDamagedError(
                f"{file} has schema version {content['schema_version']}, this program reads {SCHEMA_VERSION}."
            )
        return Sweep(
            path=folder,
            name=content["sweep"],
            trials=[SweepTrial(**trial) for trial in content["trials"]],
            **{key: content[key] for key in ("trainer", "metric", "direction", "planned", "space", "importance")},
        )
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunNotFoundError(f"there is no sweep in {folder}: it has no trials.json") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDamagedError.of(file, error) from error


def sweep_lines(sweep: Sweep) -> list[str]:
    """Write a sweep as a table, the best trial first, and say how far it is."""
    keys = list(sweep.space)
    head = ["trial", sweep.metric, *keys, "epochs", "state", "run"]
    rows = [
        [
            str(trial.number),
            "" if trial.value is None else f"{trial.value:.6g}",
            *(value_words(trial.params.get(key, ""))[:_WIDTH] for key in keys),
            str(trial.epochs),
            _state_now(sweep, trial),
            trial.run or "",
        ]
        for trial in sweep.ranked
    ]
    lines = aligned([head, *rows], left=(len(head) - 2, len(head) - 1))  # state and run are words
    counts = {state: sum(trial.state == state for trial in sweep.trials) for state in ("complete", "pruned", "failed")}
    ended = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    ended = f" ({ended})" if ended else ""
    finished = "finished" if sweep.done else f"not finished: `{command('train')} {sweep.trainer} --sweep FILE` goes on"
    lines += ["", f"sweep {sweep.name}: {len(sweep.trials)} of {counted(sweep.planned, 'trial')}{ended}, {finished}"]
    if sweep.importance:
        ranked = sorted(sweep.importance.items(), key=lambda item: -item[1])
        lines.append("importance: " + ", ".join(f"{key} {share:.2f}" for key, share in ranked))
    errors: dict[str, list[str]] = {}
    for trial in sweep.trials:
        if trial.error:
            errors.setdefault(trial.error, []).append(str(trial.number))
    return lines + [f"trial {' and '.join(numbers)} failed: {error}" for error, numbers in errors.items()]


def _state_now(sweep: Sweep, trial: SweepTrial) -> str:
    """Say how a trial is, as `plot.py --runs` does: trials.json can't tell whether anybody is at work on it."""
    claim = sweep.path / "running" / str(trial.number - 1)  # held while a process has it, gone where it was stopped
    if trial.state != "running":
        return trial.state
    return state_of(claim, "running") if claim.is_dir() else "interrupted"


def value_words(value: Any) -> str:
    """Write a value of a setting, numbers with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
