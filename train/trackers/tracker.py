"""The interface of a tracker: three methods."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunFacts:
    """What a tracker is told of a run when it starts.

    Attributes:
        id: the run's name, unique for its model on this machine.
        model: the model's name, as the folder in artifacts/models has it.
        folder: the run's folder; a tracker may keep files there.
        settings: the resolved settings: bool, int, float or str.
        epoch: epochs that the run has finished before; above 0 where it is resumed.
    """

    id: str
    model: str
    folder: Path
    settings: dict[str, Any]
    epoch: int


class Tracker(ABC):
    """Takes a run's numbers to somewhere. Whatever its methods raise is a warning; training goes on."""

    @abstractmethod
    def start(self, run: RunFacts) -> int:
        """Begin, or go on with the same run where it is resumed.

        Args:
            run: names, folder and settings of the run.

        Returns:
            The last epoch whose numbers this tracker has, 0 for none; it is sent those of later ones.
        """

    @abstractmethod
    def log(self, epoch: int, numbers: dict[str, float]) -> None:
        """Take the numbers of an epoch. Each epoch comes once, in order.

        Args:
            epoch: epochs finished, 1 after the first.
            numbers: numbers that entered the history (train_loss, val_loss, learning_rate, ...), and `optimizer_step`,
                the number of optimizer steps by then, where that is known. A loss may be NaN.
        """

    @abstractmethod
    def finish(self, state: str, summary: dict[str, Any], pictures: list[Path]) -> None:
        """Close what is open. A run that is resumed later starts again.

        Args:
            state: finished, early_stopped, pruned, interrupted or failed.
            summary: best_epoch, best_metric (the name of what was monitored), best_value, best_val_loss, epochs, steps,
                seconds, and the trainer's results: numbers and texts.
            pictures: PNG files of the run's plots.
        """
