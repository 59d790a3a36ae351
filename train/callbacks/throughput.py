"""How fast a run trains, and how much memory it takes."""

import time
from pathlib import Path

from train.callbacks.callback import Callback
from train.machine import peak_memory
from train.trainer_protocol import Trainer


class Throughput(Callback):
    """Notes steps and samples a second and the peak memory at every reading of the loss: `readings` of metrics.json.

    Time is counted from one reading to the next, without validations and checkpoints at an epoch's end. A step counts
    `batch_size` x `accumulation_steps` samples, also an epoch's last one, which may be shorter. Memory is, on CUDA, the
    most megabytes that tensors have taken, elsewhere that of the whole process.
    """

    every_step = False

    def __init__(self) -> None:
        self._since: float | None = None
        self._steps = 0

    def on_train_begin(self, trainer: Trainer) -> None:
        """Begin to count."""
        self._since, self._steps = time.perf_counter(), trainer.record.progress.step

    def on_log(self, trainer: Trainer, numbers: dict[str, float]) -> None:
        """Add what was reached since the last reading. The loss has been read, so the device has done all of it."""
        now, steps = time.perf_counter(), trainer.record.progress.step
        if self._since is not None and now > self._since and steps > self._steps:
            rate = (steps - self._steps) / (now - self._since)
            numbers["steps_per_second"] = rate
            numbers["samples_per_second"] = rate * trainer.config.batch_size * trainer.config.accumulation_steps
        numbers["peak_memory_mb"] = peak_memory(trainer.device) / 1e6
        self._since, self._steps = now, steps

    def on_epoch_end(self, trainer: Trainer, epoch: int, numbers: dict[str, float]) -> None:
        """Count anew: what lies between two epochs is no training."""
        self.on_train_begin(trainer)

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        """Count anew: writing is no training."""
        self.on_train_begin(trainer)
