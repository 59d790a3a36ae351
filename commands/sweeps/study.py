"""Optuna's part of a sweep: which settings to try next, and which trials to end early.

What a trial tries follows from the sweep's seed, the trial's number and the results of those before it, so a sweep that
was interrupted goes on to the same trials as one that was not.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from commands.sweeps.spec import Dimension, SweepSpec
from config import ConfigError
from constants.counting import counted
from storage.file_lock import FolderLock
from storage.files import output_errors

_LOCK_SECONDS = 60  # that a process waits for others at the database
_FEWEST_FOR_IMPORTANCE = 10  # complete trials; fewer say nothing
_MOST_ATTEMPTS = 3  # at a trial that ends its process each time


class TrialStudy:
    """A sweep's trials, in study.db in its folder. Several processes may have it open.

    Args:
        spec: content of the sweep file.
        folder: folder of the sweep, artifacts/sweeps/<model>/<name>.
        settings: all resolved settings that no trial changes and that its numbers follow from.
        epochs: number of epochs of a run, for the pruner.

    Raises:
        ConfigError: the study in the folder is of another search space, metric or settings.
    """

    def __init__(self, spec: SweepSpec, folder: Path, settings: Mapping[str, str], epochs: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.spec, self.folder = spec, folder
        self._space = {key: _distribution(dimension) for key, dimension in spec.space.items()}
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(folder)
        self._claims: dict[int, FolderLock] = {}
        with self._alone():
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{folder.resolve() / 'study.db'}", engine_kwargs={"connect_args": {"timeout": _LOCK_SECONDS}}
            )
            self.study = self._opened(storage, epochs)
            if self._differences(settings) and self.measured() == 0:  # such as after a typing error
                optuna.delete_study(study_name=spec.name, storage=storage)
                self.study = self._opened(storage, epochs)
            self._refuse_change(settings)

    def _opened(self, storage: optuna.storages.RDBStorage, epochs: int) -> Study:
        return optuna.create_study(
            storage=storage, study_name=self.spec.name, load_if_exists=True, direction=self.spec.direction,
            sampler=_sampler(self.spec), pruner=_pruner(self.spec, epochs),
        )  # fmt: skip

    def next_trial(self) -> Trial | None:
        """Return the trial to work on: one that a killed process left, else a new one; None when all are done."""
        with self._alone():
            for left in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if self._claim(left.number):
                    attempts = left.user_attrs.get("attempts", 1) + 1
                    if attempts > _MOST_ATTEMPTS:
                        self._end(
                            Trial(self.study, left._trial_id),
                            error=f"ended its process {counted(attempts - 1, 'time')}",
                        )
                        continue
                    return self._take(left._trial_id, attempts)
            if len(self.study.get_trials(deepcopy=False)) >= self.spec.trials:
                return None
            trial = self.study.ask(fixed_distributions=self._space)
            self._claim(trial.number)
            trial.set_user_attr("attempts", 1)
            return trial

    def tell(self, trial: Trial, value: float | None = None, error: str | None = None, epochs: int = 0) -> None:
        """Say how a trial ended: with a value, or with an error, or else pruned.

        Args:
            trial: trial that has ended.
            value: best value of the sweep's metric; None for a failed or a pruned trial.
            error: error that ended the trial; None where there was none.
            epochs: number of epochs that the trial was trained.
        """
        with self._alone():
            self._end(trial, value, error, epochs)

    def release(self, trial: Trial) -> None:
        """Let other processes go on with a trial that has not ended."""
        with self._alone():
            self._unclaim(trial.number)

    def measured(self) -> int:
        """Count the trials that have a value, or may get one."""
        return sum("error" not in trial.user_attrs for trial in self.trials())

    def trials(self) -> list[FrozenTrial]:
        """Return all trials as they are now."""
        return self.study.get_trials(deepcopy=False)

    def importance(self) -> dict[str, float] | None:
        """Return which share of the differences each key explains (Optuna's PED-ANOVA), None for too few trials."""
        if sum(trial.state == TrialState.COMPLETE for trial in self.trials()) < _FEWEST_FOR_IMPORTANCE:
            return None
        try:
            return {key: float(share) for key, share in optuna.importance.get_param_importances(self.study).items()}
        except (ValueError, RuntimeError, ZeroDivisionError):
            return None

    def _end(self, trial: Trial, value: float | None = None, error: str | None = None, epochs: int = 0) -> None:
        trial.set_user_attr("epochs", epochs)
        if error is not None:
            trial.set_user_attr("error", error)
        # A failed trial is a pruned one to Optuna, which else would forget it, and try settings like these again.
        self.study.tell(trial, value, TrialState.PRUNED if value is None else TrialState.COMPLETE)
        self._unclaim(trial.number)

    def _take(self, trial_id: int, attempts: int) -> Trial:
        # Optuna has no public way to go on with a trial of another process; its heartbeats only start it again.
        trial = Trial(self.study, trial_id)
        for key, distribution in self._space.items():  # those that it has not been given yet, if it was killed then
            trial._suggest(key, distribution)
        trial.set_user_attr("attempts", attempts)
        return trial

    def _claim(self, number: int) -> bool:
        """Take a trial for this process, unless a living one has it."""
        path = self.folder / "running" / str(number)
        path.mkdir(parents=True, exist_ok=True)
        lock = self._claims.get(number) or FolderLock(path)
        if number in self._claims or not lock.take():
            return False
        self._claims[number] = lock
        return True

    def _unclaim(self, number: int) -> None:
        claim = self._claims.pop(number, None)
        if claim is not None:
            claim.release()
            (self.folder / "running" / str(number)).rmdir()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Surround what only one process may do at a time."""
        self._lock.take(wait=True)
        try:
            yield
        finally:
            self._lock.release()

    def _refuse_change(self, settings: Mapping[str, str]) -> None:
        if not self.study.user_attrs:
            for key, value in self._described(settings).items():
                self.study.set_user_attr(key, value)
        differences = self._differences(settings)
        if differences:
            raise ConfigError(
                [
                    f"sweep '{self.spec.name}' in {self.folder} is another one; its trials can't be compared with new "
                    "ones:",
                    *[f"  {line}" for line in differences],
                    "set them back, or give this sweep a name of its own (`name: ...` in its file)",
                ]
            )

    def _described(self, settings: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        space = {key: json.loads(distribution_to_json(value)) for key, value in self._space.items()}
        return {"metric": {self.spec.metric: self.spec.direction}, "space": space, "setting": dict(settings)}

    def _differences(self, settings: Mapping[str, str]) -> list[str]:
        """Say what differs between the study and what is asked; settings that only one of them has do not count."""
        known = self.study.user_attrs
        return [
            f"{part} {key}: {_words(old.get(key))} then, {_words(new.get(key))} now"
            for part, new in self._described(settings).items()
            for old in [known.get(part, new)]
            for key in sorted(old.keys() & new.keys() if part == "setting" else old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]


class _SeededByTrial(BaseSampler):
    """A sampler that is made anew for each trial, with a seed from the sweep's seed and the trial's number."""

    def __init__(self, spec: SweepSpec) -> None:
        self._spec = spec
        self._inner: BaseSampler = self._made(0)

    def _made(self, number: int) -> BaseSampler:
        seed = (self._spec.seed * 1_000_003 + number) % 2**32
        return RandomSampler(seed) if self._spec.sampler == "random" else TPESampler(seed=seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._inner = self._made(trial.number)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Any:
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        return self._inner.sample_independent(study, trial, name, distribution)


class _Grid(BaseSampler):
    """Trial by trial through all combinations, the last key changing fastest."""

    def __init__(self, spec: SweepSpec) -> None:
        self._values = {key: dimension.grid() or [] for key, dimension in spec.space.items()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Any:
        return {}

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        rest = trial.number
        for key in reversed(self._values):
            rest, place = divmod(rest, len(self._values[key]))
            if key == name:
                return self._values[key][place]
        raise KeyError(name)


def _sampler(spec: SweepSpec) -> BaseSampler:
    return _Grid(spec) if spec.sampler == "grid" else _SeededByTrial(spec)


def _pruner(spec: SweepSpec, epochs: int) -> optuna.pruners.BasePruner:
    first = spec.prune_after_epochs or max(1, epochs // 10)
    if spec.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=first)
    if spec.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=first, max_resource=epochs, reduction_factor=3)
    return optuna.pruners.NopPruner()


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.kind == "choices":
        return CategoricalDistribution(dimension.choices)
    log = dimension.kind == "log"
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=log, step=int(dimension.step or 1))
    return FloatDistribution(float(dimension.low), float(dimension.high), log=log, step=dimension.step)


def _words(value: Any) -> str:
    if not isinstance(value, dict):
        return "not there" if value is None else str(value)
    attributes = value["attributes"]
    if "choices" in attributes:
        return f"[{', '.join(map(str, attributes['choices']))}]"
    step = f", step: {attributes['step']:g}" if attributes.get("step") and not attributes["log"] else ""
    kind = "log" if attributes["log"] else "range"
    return f"{{{kind}: [{attributes['low']:g}, {attributes['high']:g}]{step}}}"
