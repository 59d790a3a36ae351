"""All trackers of a run behind one door, which keeps them from harming it."""

import importlib
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from beautilog import logger

from config import BaseTrainerConfig, ConfigError
from constants.counting import counted
from train.callbacks.callback import Callback
from train.checkpointing.saver import Pace
from train.process_group import process_group
from train.trackers.tracker import RunFacts, Tracker
from train.trainer_protocol import Trainer

# By the config key that turns it on: where a tracker's class is. It is made with the key's value.
TRACKERS = {
    "tensorboard": "train.trackers.tensorboard:TensorBoardTracker",
    "mlflow": "train.trackers.mlflow:MlflowTracker",
    "wandb": "train.trackers.wandb:WandbTracker",
}
_OFF = (False, None, "", "off")


@dataclass
class _Channel:
    """A tracker, and what it has not been sent yet."""

    name: str
    tracker: Tracker
    pace: Pace
    has: int | None = None  # the last epoch that it had when it started; None before that
    waiting: dict[int, dict[str, float]] = field(default_factory=dict)
    warned: bool = False


class Trackers(Callback):
    """The trackers of one run; none by default.

    Numbers are sent when they come, unless that took more than a share of the run's time: then they wait for more, and
    for the run's end at the latest. A tracker that fails is warned of once and asked again later, with what waits.

    Args:
        share: share of the run's time that each tracker may take, as `saving_share` has it.
    """

    def __init__(self, share: float = 1.0) -> None:
        self._share = share
        self._channels: list[_Channel] = []
        self._facts: RunFacts | None = None

    @classmethod
    def of(cls, config: BaseTrainerConfig) -> "Trackers":
        """Make those that a config asks for.

        Raises:
            ConfigError: a package is not installed, or a value means nothing to the tracker.
        """
        trackers = cls(config.saving_share)
        for key, target in TRACKERS.items():
            value = getattr(config, key, None)
            if value in _OFF:
                continue
            module, _, name = target.partition(":")
            try:
                trackers.add(getattr(importlib.import_module(module), name)(value), key)
            except ImportError as error:
                raise ConfigError(
                    f"{key} = {value if isinstance(value, str) else 'on'} needs a package that can't be imported "
                    f"({error}): pip install {key}, or set {key} = off."
                ) from error
        return trackers

    def __len__(self) -> int:
        return len(self._channels)

    def add(self, tracker: Tracker, name: str | None = None) -> None:
        """Add a tracker before training starts; a trainer may do so at the end of its `__init__`.

        Args:
            tracker: tracker to add.
            name: name of the tracker in warnings; None takes the class name.
        """
        self._channels.append(_Channel(name or type(tracker).__name__, tracker, Pace(self._share)))

    def on_train_begin(self, trainer: Trainer) -> None:
        """Tell them which run begins, or goes on; of several processes the main one does."""
        if not process_group().is_main_process:
            self._channels.clear()
        if not self._channels:
            return
        settings = {key: _plain(value) for key, value in asdict(trainer.config).items()}
        folder, progress = trainer.run_folder, trainer.record.progress
        self._facts = RunFacts(folder.id, trainer.model_name, folder.path, settings, progress.epoch)
        rows = trainer.record.rows()  # of which each is sent what it lacks
        if progress.step and progress.epoch in rows:
            rows[progress.epoch]["optimizer_step"] = progress.step
        for channel in self._channels:
            channel.has, channel.waiting = None, {epoch: dict(numbers) for epoch, numbers in rows.items()}
            self._send(channel)

    def on_epoch_end(self, trainer: Trainer, epoch: int, numbers: dict[str, float]) -> None:
        """Send what has entered the history, now or later."""
        step = trainer.record.progress.step  # 0 where nobody counts them
        if step and epoch == trainer.record.progress.epoch:
            numbers = numbers | {"optimizer_step": step}
        for channel in self._channels:  # a loop of the trainer's own may tell of an epoch twice
            channel.waiting.setdefault(epoch, {}).update(numbers)
            if self._facts is not None and channel.pace.due:
                self._send(channel)

    def on_train_end(self, trainer: Trainer, state: str) -> None:
        """Send what waits and close."""
        if self._facts is None:
            return
        content = trainer.record.content(trainer.results)
        best = {f"best_{name}": value for name, value in (content["best"] or {}).items()}
        summary = {key: _plain(value) for key, value in (best | content["summary"]).items() if value is not None}
        pictures = sorted((trainer.run_folder.path / "plots").glob("*.png"))
        for channel in self._channels:
            self._send(channel)
            try:
                channel.tracker.finish(state, summary, pictures)
            except Exception as error:  # whatever a package of somebody else's raises
                self._warn(channel, error)
            if channel.waiting:
                logger.warning(
                    f"{channel.name} lacks {counted(len(channel.waiting), 'epoch')} of run {trainer.run_folder.id}"
                )
        self._facts = None

    def _send(self, channel: _Channel) -> None:
        if self._facts is None:
            return
        with channel.pace.spending():
            try:
                if channel.has is None:
                    channel.has = channel.tracker.start(self._facts)
                for epoch in list(channel.waiting):
                    if epoch > channel.has:
                        channel.tracker.log(epoch, channel.waiting[epoch])
                    del channel.waiting[epoch]
            except Exception as error:  # whatever a package of somebody else's raises
                self._warn(channel, error)

    def _warn(self, channel: _Channel, error: Exception) -> None:
        if not channel.warned:
            channel.warned = True
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            logger.warning(f"{channel.name} failed, training goes on and will try again: {reason}")


def _plain(value: Any) -> Any:
    """Return a setting or a result as every tracker takes it."""
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)
