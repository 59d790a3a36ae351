"""Ends a run after some of its epochs, so that somebody may look at it: it saves, and `--resume` goes on."""

from config import ConfigError
from train.callbacks.callback import Callback
from train.trainer_protocol import Trainer


class StopAfterEpoch(Callback):
    """Stops the run when it has done so many epochs: schedules and the length of the run stay those of all of them.

    The run saves a checkpoint and leaves with exit code 143, as SIGTERM has it; `--resume callbacks=` goes on to its
    end, to the same bits as a run that was never stopped. Resumed with this callback, it ends after a step.

    Args:
        epochs: epochs after which to stop; where it is as many as the run has, or more, nothing is stopped.

    Raises:
        ConfigError: `epochs` is no whole number above 0.
    """

    def __init__(self, epochs: int) -> None:
        if not isinstance(epochs, int) or epochs < 1:
            raise ConfigError(f"StopAfterEpoch: epochs = {epochs} must be a whole number above 0.")
        self._epochs = epochs

    def on_train_begin(self, trainer: Trainer) -> None:
        """Ask a resumed run that has come as far to stop."""
        self._stop(trainer)

    def on_epoch_end(self, trainer: Trainer, epoch: int, numbers: dict[str, float]) -> None:
        """Ask the run to stop where this was the epoch."""
        self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        if self._epochs <= trainer.record.progress.epoch < trainer.config.epochs:
            trainer.stop_request.ask(f"StopAfterEpoch: {self._epochs} of {trainer.config.epochs} epochs are done")
