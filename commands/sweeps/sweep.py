"""The sweep itself: one trial after another, each a run of its own in this process.

Trials share the process, since a start costs seconds and a trial of a small model takes no longer; a run gives the same
bits either way, as each trainer is built from its seed.
"""

import math
import time
from pathlib import Path
from typing import Any

from beautilog import logger
from optuna.trial import Trial

from commands.sweeps.report import report, save_trials
from commands.sweeps.spec import SweepSpec, read_spec
from commands.sweeps.study import TrialStudy
from config import BaseTrainerConfig, ConfigError, ConfigParser
from config.config_values import value_text
from constants.settings import CHANGE_NO_NUMBER
from storage.errors import OutputError
from storage.segments import SWEEP
from train import TRAINER_REGISTRY
from train.base_trainer import BaseTrainer
from train.callbacks import Callback
from train.context import RunOptions
from train.errors import TrainingError
from train.loop.stop_signals import Pruned, StopRequest
from train.machine import release_memory, usable_device
from train.trackers import Trackers
from train.trainer_protocol import Trainer

_FAILURES = 3  # in a row, without any trial that went well: then it is the trainer, not the settings


def run_sweep(trainer_class: type[BaseTrainer], path: Path) -> int:
    """Run a sweep's trials until there are as many as its file says; go on where an earlier process stopped.

    Args:
        trainer_class: class of the runs' trainer.
        path: path of the sweep file.

    Returns:
        The exit code: 0 done, 4 no trial came to its end.
    """
    section = TRAINER_REGISTRY.section_of(trainer_class)
    spec = read_spec(path, section)
    shared = spec.settings | ConfigParser.overrides()
    config = config_with(shared, section)
    usable_device(config.device)  # what no trial can do without is told before trials are spent on it
    Trackers.of(config)
    settings = _settings_of(config, spec)
    model = trainer_class.__name__.removesuffix("Trainer") or trainer_class.__name__
    folder = config.artifacts_dir / "sweeps" / model / spec.name
    study = TrialStudy(spec, folder, settings, config.epochs)
    runs = config.artifacts_dir / "models" / model / "runs"
    sweep = _Sweep(trainer_class, section, study, shared, runs)
    stop = StopRequest()
    with stop.listening():
        sweep.run(stop)
    return report(study, trainer_class.__name__, runs, lambda trial: config_with(shared | texts(trial), section))


class _NoMetricError(ConfigError):
    """A sweep's metric that its runs don't have."""


class _Sweep:
    """What the trials of a sweep share."""

    def __init__(
        self, trainer_class: type[BaseTrainer], section: str, study: TrialStudy, shared: dict[str, str], runs: Path
    ) -> None:
        self._trainer_class, self._section, self._study, self._spec = trainer_class, section, study, study.spec
        self._settings, self._runs = {"plot_at_end": "off"} | shared, runs
        self._failures = 0 if study.measured() == 0 else -1  # since then it is known that it can be done
        minutes = self._spec.timeout_minutes
        self._end = time.monotonic() + 60 * minutes if minutes else math.inf

    def run(self, stop: StopRequest) -> None:
        """Run trials until there are enough, the time is over, or somebody wants it to stop."""
        while True:
            stop.obey()
            if time.monotonic() >= self._end:
                logger.info(f"timeout_minutes = {self._spec.timeout_minutes:g} is over; the same command goes on")
                return
            trial = self._study.next_trial()
            if trial is None:
                return
            try:
                self._run_trial(trial, stop)
            finally:
                stop.pruned = False
                self._study.release(trial)
                save_trials(self._study, self._trainer_class.__name__)
                BaseTrainer.options = RunOptions()
            release_memory()

    def _run_trial(self, trial: Trial, stop: StopRequest) -> None:
        shown = ", ".join(f"{key} = {_short(trial.params[key])}" for key in self._spec.space)
        logger.info(f"trial {trial.number + 1} of {self._spec.trials}: {shown}")
        run = trial.user_attrs.get("run")
        resume = run if run and (self._runs / run).is_dir() else None
        trainer = None
        try:
            with ConfigParser.overridden(self._settings | texts(trial.params), self._section):
                BaseTrainer.options = RunOptions(
                    resume=resume, publish=False, callbacks=[PruneTrial(trial, self._spec)], part_of=SWEEP
                )
                trainer = self._trainer_class()
                trial.set_user_attr("run", trainer.run_folder.id)
                trainer.run_context.stop_request = stop
                with trainer.session():
                    stop.obey()
                    trainer.train()
        except Pruned:
            epochs = 0 if trainer is None else trainer.record.progress.epoch
            logger.info(f"trial {trial.number + 1} is pruned after epoch {epochs}")
            self._study.tell(trial, epochs=epochs)
        except KeyboardInterrupt:
            trial.set_user_attr("attempts", 0)  # it was not the trial that ended the process
            raise
        except OutputError:  # the next trial would fail as well; this one goes on when there is space again
            trial.set_user_attr("attempts", 0)
            raise
        except _NoMetricError as error:
            self._study.tell(trial, error=str(error))
            raise
        except Exception as error:  # settings that diverge, don't fit each other, or the memory
            self._fail(trial, trainer, error)
        else:
            self._finish(trial, trainer)

    def _finish(self, trial: Trial, trainer: BaseTrainer) -> None:
        metric = self._spec.metric
        values = [float(value) for value in trainer.history[metric] if math.isfinite(value)]
        if not values:
            return self._fail(trial, trainer, TrainingError(f"{metric} was never a finite number"))
        best = (max if self._spec.direction == "maximize" else min)(values)
        self._failures = -1  # it can be done
        self._study.tell(trial, best, epochs=trainer.record.progress.epoch)
        logger.info(f"trial {trial.number + 1}: {metric} {best:.6g}")

    def _fail(self, trial: Trial, trainer: BaseTrainer | None, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        logger.warning(f"trial {trial.number + 1} failed and the sweep goes on: {reason}")
        self._study.tell(trial, error=reason, epochs=trainer.record.progress.epoch if trainer is not None else 0)
        if self._failures >= 0:
            self._failures += 1
        if self._failures >= _FAILURES:
            logger.error(f"the first {_FAILURES} trials have all failed: the sweep stops")
            raise error


class PruneTrial(Callback):
    """Gives Optuna the metric of each epoch, and ends the run where Optuna wants no more of it.

    Args:
        trial: trial that the run is of.
        spec: content of the sweep file.
    """

    def __init__(self, trial: Trial, spec: SweepSpec) -> None:
        self._trial, self._spec = trial, spec
        self._reported = max(trial.storage.get_trial(trial._trial_id).intermediate_values, default=0)

    def on_epoch_end(self, trainer: Trainer, epoch: int, numbers: dict[str, float]) -> None:
        """Report an epoch; its numbers may have been reported before, if the run was resumed."""
        history = trainer.record.history
        if "val_loss" in numbers and self._spec.metric not in history:
            there = ", ".join(name for name, values in history.items() if values and name != "val_epoch")
            raise _NoMetricError(f"metric: the runs have no '{self._spec.metric}' in their history; they have {there}")
        value = numbers.get(self._spec.metric)
        if self._spec.pruner == "none" or value is None or epoch <= self._reported:
            return
        self._trial.report(value, epoch)
        if epoch < trainer.config.epochs and self._trial.should_prune():
            trainer.stop_request.pruned = True


def texts(params: dict[str, Any]) -> dict[str, str]:
    """Return a trial's values as ini text; choices are that already."""
    return {key: value if isinstance(value, str) else value_text(value) for key, value in params.items()}


def config_with(settings: dict[str, str], section: str) -> BaseTrainerConfig:
    """Return the resolved settings of a section with some of them set.

    Args:
        settings: value as ini text of each key to set.
        section: section of config.ini.
    """
    with ConfigParser.overridden(settings, section):
        return ConfigParser.get(ConfigParser.sections()[section])


def _settings_of(config: BaseTrainerConfig, spec: SweepSpec) -> dict[str, str]:
    """Return the settings that make trials comparable, as text."""
    searched = CHANGE_NO_NUMBER | spec.space.keys()
    return {key: value_text(value) for key, value in vars(config).items() if key not in searched}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
