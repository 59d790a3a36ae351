"""The numbers of a run: history, best epoch, progress, and the metrics.json made of them."""

import contextlib
import difflib
import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from config import ConfigError
from constants.time_spans import duration
from storage.files import jsonable
from storage.monitor import Monitor
from train.loop.meters import EpochMeter
from train.loop.step_losses import StepLosses

_NO_METRICS = ("val_epoch", "epoch", "learning_rate")  # of a history
OF_A_HISTORY = frozenset({*_NO_METRICS, "train_loss", "val_loss"})  # lists that the program itself writes
TAKEN_METRICS = frozenset({"loss", "epoch"})  # with train_ or val_ before it, each would be one of the program's lists


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: epochs finished.
        step: optimizer steps done.
        seconds: time in the run's earlier sessions.
        best_epoch: the epoch of the best value of what is monitored, None before the first.
        best_value: best value of what is monitored, None before the first.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_epoch: int | None = None
    best_value: float | None = None


class RunRecord:
    """What was measured in a run.

    Args:
        monitor: what the run is judged by.

    Attributes:
        history: lists by name. An epoch adds to train_loss, learning_rate and train_<metric>; a validation adds to
            val_loss, val_<metric> and val_epoch.
        progress: counters of the run, its best value and its time.
        monitor: what the run is judged by.
        step_losses: the training loss by step.
        in_line: function that says of a number, by its name and its value, whether the line of an epoch tells it; those
            that the run is judged by always are, and metrics.json has all.
    """

    def __init__(self, monitor: Monitor | None = None) -> None:
        self.monitor = monitor or Monitor()
        self.history: dict[str, list[Any]] = defaultdict(list)
        self.step_losses = StepLosses()
        self.in_line: Callable[[str, float], bool] = lambda name, value: True
        self.progress = Progress()
        self._pending: dict[str, Any] = {}  # measured, not yet in the history
        self._lengths: dict[str, int] = {}  # of the history's lists after the last flush
        self._rates: list[float | torch.Tensor] = []  # that the last step used, where something has noted them
        self._reported: dict[str, int] = {}  # of the history's lists after the last new_rows
        self._started = time.monotonic()
        self.epochs_before = 0  # this session
        self._steps_before = 0  # this session, those of an epoch that was begun included

    def start_clock(self) -> None:
        """Count the session's time from here."""
        self._started, self.epochs_before = time.monotonic(), self.progress.epoch
        self._steps_before = self.progress.step

    def seconds(self) -> float:
        """Return the run's time so far, all sessions together."""
        return self.progress.seconds + time.monotonic() - self._started

    def note_rates(self, optimizer: Optimizer) -> None:
        """Note the learning rates that a step uses, before a schedule sets those of the next one (no synchronisation).

        Args:
            optimizer: optimizer of the step.
        """
        rates = [group["lr"] for group in optimizer.param_groups]
        self._rates = [rate.clone() if isinstance(rate, torch.Tensor) else rate for rate in rates]

    def learning_rates(self, optimizer: Optimizer) -> list[float]:
        """Return the learning rates that the last step used, by parameter group.

        A rate that is a tensor on a device is a host-device synchronisation.

        Args:
            optimizer: optimizer of the steps, whose rates of now are those of the last step where none were noted.
        """
        return [float(rate) for rate in self._rates or [group["lr"] for group in optimizer.param_groups]]

    def measure(self, split: str, meter: EpochMeter, learning_rate: float) -> dict[str, float]:
        """Take the averages of an epoch or a validation. Reading them is a host-device synchronisation.

        Args:
            split: `train` for an epoch, `val` for a validation.
            meter: meter that holds the averages.
            learning_rate: learning rate that the last step used; enters the history with an epoch.

        Returns:
            The averages by the names of the history's lists.
        """
        numbers = {f"{split}_{name}": value for name, value in meter.read().items()}
        self.note(numbers | ({"learning_rate": learning_rate} if split == "train" else {}))
        return numbers

    def note(self, numbers: dict[str, float]) -> None:
        """Let numbers enter the history with the next flush.

        Args:
            numbers: numbers by the names of the history's lists.
        """
        self._pending |= numbers

    def pending(self, name: str) -> float | None:
        """Return a number that was measured since the last flush."""
        return self._pending.get(name)

    def flush(self, epoch: int | None = None) -> None:
        """Enter what is pending into the history, except what the trainer has appended itself.

        Args:
            epoch: epochs finished; None counts the entries of train_loss (a trainer with a loop of its own).
        """
        for name, value in self._pending.items():
            if len(self.history[name]) == self._lengths.get(name, 0):
                self.history[name].append(value)
        if epoch is None:
            epoch = self.progress.epoch = len(self.history["train_loss"])
        if len(self.history["val_loss"]) > len(self.history["val_epoch"]):
            self.history["val_epoch"].append(epoch)
        self._pending = {}
        self._lengths = {name: len(values) for name, values in self.history.items()}

    def rows(self) -> dict[int, dict[str, float]]:
        """Return the whole history by epoch, each with its numbers by name."""
        return self._rows_from({})

    def new_rows(self) -> dict[int, dict[str, float]]:
        """Return what has entered the history in this process since the last call, by epoch."""
        rows = self._rows_from(self._reported)
        self._reported = {name: len(values) for name, values in self.history.items()}
        return rows

    def _rows_from(self, lengths: dict[str, int]) -> dict[int, dict[str, float]]:
        rows: dict[int, dict[str, float]] = defaultdict(dict)
        for name, values in self.history.items():
            if name not in ("val_epoch", "epoch"):
                for index in range(lengths.get(name, 0), len(values)):
                    with contextlib.suppress(TypeError, ValueError):  # a trainer may put other things in its history
                        rows[self._epoch_of(name, index)][name] = float(values[index])
        return dict(sorted(rows.items()))

    def _epoch_of(self, name: str, index: int) -> int:
        """Return the epoch of an entry; a loop of the trainer's own may write a list `epoch`."""
        epochs = self.history.get("val_epoch" if name.startswith("val_") else "epoch", [])
        return int(epochs[index]) if index < len(epochs) else index + 1

    def monitored(self, val_loss: float) -> float:
        """Return what the run is judged by, after a validation.

        Args:
            val_loss: what `validate` returned; it counts where that is monitored, whatever the history says.

        Raises:
            ConfigError: nothing measures it.
        """
        name = self.monitor.name
        if name == "val_loss":
            return float(val_loss)
        value = self._pending.get(name, next(reversed(self.history.get(name, [])), None))
        if value is None:
            known = dict.fromkeys([*(key for key, values in self.history.items() if values), *self._pending])
            raise ConfigError([not_measured(name, [key for key in known if key not in _NO_METRICS])])
        return float(value)

    def note_best(self, value: float, epoch: int) -> bool:
        """Note a value of what is monitored; return whether it is the best so far."""
        progress = self.progress
        if self.monitor.is_better(value, progress.best_value):
            progress.best_value, progress.best_epoch = float(value), epoch
            return True
        return False

    def content(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Return what metrics.json says of the numbers.

        Args:
            summary: further entries of the summary, by name.
        """
        progress, seconds = self.progress, self.seconds()
        monitor = {"monitor": self.monitor.name, "monitor_mode": self.monitor.mode}
        totals = {
            "epochs": progress.epoch,
            "steps": progress.step,
            "seconds": round(seconds, 3),
            "steps_per_second": round(progress.step / seconds, 3) if seconds else None,
        }
        readings = self.step_losses.content()
        content = {"best": self._best(), "summary": totals | summary, "history": dict(self.history)}
        return monitor | content | {"readings": readings}

    def _best(self) -> dict[str, Any] | None:
        """Return the best epoch: what is monitored, and the validation loss, which is the same by default."""
        name, progress = self.monitor.name, self.progress
        if progress.best_epoch is None:
            return None
        best = {"epoch": progress.best_epoch, "metric": name, "value": progress.best_value}
        return best | {"val_loss": progress.best_value if name == "val_loss" else self._at("val_loss", progress)}

    def _at(self, name: str, progress: Progress) -> float | None:
        """Return a validation's number at the best epoch, None where there is none."""
        pairs = zip(self.history.get("val_epoch", []), self.history.get(name, []), strict=False)
        return next((value for epoch, value in pairs if epoch == progress.best_epoch), None)

    def epoch_line(self, epochs: int) -> str:
        """Say how the last epoch went, and how long the rest will take at most."""
        progress = self.progress
        validated = self.history["val_epoch"][-1:] == [progress.epoch]
        known = [name for name, values in self.history.items() if values and name != "val_epoch"]
        first = [name for name in dict.fromkeys(("train_loss", "val_loss", self.monitor.name)) if name in known]
        shown = [
            f"{name} {_shown(float(self.history[name][-1]), name in first)}"
            for name in first + [name for name in known if name not in first]
            if (validated or not name.startswith("val_"))
            and (name in first or self.in_line(name, float(self.history[name][-1])))
        ]
        best = " (best)" if validated and progress.best_epoch == progress.epoch else ""
        done = max(1.0, progress.epoch - self.epochs_before)
        if steps := progress.step - self._steps_before:  # an epoch that was gone on with is not a whole one
            done = progress.epoch * steps / progress.step
        each = (time.monotonic() - self._started) / done
        left = duration(each * max(0, epochs - progress.epoch))
        return f"epoch {progress.epoch}/{epochs}: {', '.join(shown)}{best}; up to {left} left"

    def best_line(self) -> str:
        """Say which epoch was best."""
        name, progress = self.monitor.name, self.progress
        if progress.best_epoch is None or progress.best_value is None:
            return f"{name} was never a number" if self.history.get("val_epoch") else "never validated"
        shown = "validation loss" if name == "val_loss" else name
        return f"best {shown} {progress.best_value:.6g} at epoch {progress.best_epoch}"

    def frozen(self) -> Callable[[], dict[str, Any]]:
        """Return a function that gives plain data for a checkpoint of this moment, whenever it is called.

        The history only grows, so its lengths are all that must be kept of it now.
        """
        progress = {**asdict(self.progress), "seconds": self.seconds()}
        monitor = asdict(self.monitor)
        lengths, known = dict(self._lengths), {name: len(values) for name, values in self.history.items()}
        pending, readings = dict(self._pending), self.step_losses.frozen()
        rates = [float(rate) for rate in self._rates]  # a synchronisation where they are tensors on a device

        def state() -> dict[str, Any]:
            history = {name: list(self.history[name][:length]) for name, length in known.items()}
            return {
                "progress": progress,
                "monitor": monitor,
                "history": jsonable(history),
                "lengths": lengths,
                "pending": pending,
                "readings": readings(),
                "rates": rates,
            }

        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `frozen` gave. The history stays the object that the trainer knows."""
        self.progress = progress_from(state["progress"])
        self.history.clear()
        self.history.update(state["history"])
        self._lengths, self._pending = dict(state["lengths"]), dict(state["pending"])
        self.step_losses.load_state_dict(state.get("readings", {}))
        self._rates = list(state.get("rates", []))  # which checkpoints of before do not have
        self._reported = {name: len(values) for name, values in self.history.items()}


def _shown(value: float, judged: bool) -> str:
    """Write a number; where it is none, `-`: nothing was measured. What a run is judged by is shown as it is."""
    return "-" if math.isnan(value) and not judged else f"{value:.4g}"


def progress_from(state: dict[str, Any]) -> Progress:
    """Read a checkpoint's counters; older ones have `best_val_loss`, infinite where there was none."""
    state = dict(state)
    if "best_val_loss" in state:
        before = state.pop("best_val_loss")
        state["best_value"] = before if state["best_epoch"] is not None else None
    return Progress(**state)


def not_measured(name: str, known: Iterable[str]) -> str:
    """Say that what is to be monitored is nothing that the run measures, and what there is.

    Args:
        name: value of the setting `monitor`.
        known: names that are measured.
    """
    known = list(known)
    close = intended(name, known)
    hint = f"; did you mean {close}?" if close else ""
    return f"monitor = {name} is measured by nothing in this run; there are {', '.join(known)}{hint}"


def intended(name: str, known: Iterable[str]) -> str | None:
    """Return what somebody meant by a name that nothing measures, where that is plain: `acuracy` is `val_accuracy`.

    Args:
        name: the name.
        known: names that are measured.
    """
    bare = {key: re.sub(r"^(train|val)_", "", key) for key in known}
    wanted = re.sub(r"^(train|val)_", "", name)
    order = sorted(bare, key=lambda key: not key.startswith("train_" if name.startswith("train_") else "val_"))
    close = difflib.get_close_matches(wanted, list(bare.values()), n=1, cutoff=0.75)
    return next((key for key in order if bare[key] == close[0]), None) if close else None
