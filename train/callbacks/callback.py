"""The interface of a callback: a class with the methods that it needs, called by the training loop."""

from pathlib import Path
from typing import Any

from train.trainer_protocol import Trainer


class Callback:
    """Does something at certain moments of a run. Derive from this and define the methods that you need.

    A trainer has callbacks by `self.callbacks = [...]` in its `__init__`, any run by the config's `callbacks`. The
    run's own ones (trackers, ...) are called first, then the config's, then the trainer's, in every process of the run.
    Whatever one raises ends the run with an error that names it. See docs/callbacks.md.

    Attributes:
        every_step: whether it must see each optimizer step by itself, so that the run takes the eager form of the step;
            None where it must as soon as it defines `on_step_end`.
    """

    every_step: bool | None = None

    def on_train_begin(self, trainer: Trainer) -> None:
        """Called before the first step of a run, and of each session of a resumed one.

        Args:
            trainer: the trainer that runs, as in all these methods.
        """

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Called before the first step of each epoch; not where a resumed run goes on inside one.

        Args:
            trainer: the trainer that runs.
            epoch: number of the epoch, 1 for the first.
        """

    def on_step_end(self, trainer: Trainer, steps: int) -> None:
        """Called after each call of the optimizer step, when parameters have changed and gradients are still there.

        Args:
            trainer: the trainer that runs; `trainer.record.progress.step` counts the steps of the run.
            steps: optimizer steps since the last call: 1 in the eager form.
        """

    def on_log(self, trainer: Trainer, numbers: dict[str, float]) -> None:
        """Called where the loop reads the running loss, every `log_every_n_steps` steps and at an epoch's end.

        Args:
            trainer: the trainer that runs.
            numbers: `train_loss`, the mean of the epoch so far. What is added here enters `readings` of metrics.json.
        """

    def on_validation_end(self, trainer: Trainer, numbers: dict[str, float]) -> None:
        """Called after each validation, before its numbers enter the history.

        Args:
            trainer: the trainer that runs.
            numbers: `val_loss` and `val_<metric>`. What is added here enters the history too.
        """

    def on_epoch_end(self, trainer: Trainer, epoch: int, numbers: dict[str, float]) -> None:
        """Called when an epoch's numbers have entered the history: after its validation, where it has one.

        Args:
            trainer: the trainer that runs.
            epoch: epochs finished, 1 after the first.
            numbers: the epoch's entries of the history, by name.
        """

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        """Called in the main process when a checkpoint is written and verified.

        Args:
            trainer: the trainer that runs.
            path: the checkpoint's folder.
        """

    def on_failure(self, trainer: Trainer, error: BaseException) -> None:
        """Called when an error ends the run, before `on_train_end`.

        Args:
            trainer: the trainer that ran.
            error: what ended it.
        """

    def on_train_end(self, trainer: Trainer, state: str) -> None:
        """Called when the run ends, whatever ended it.

        Args:
            trainer: the trainer that ran.
            state: finished, early_stopped, pruned, interrupted or failed.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know: numbers, strings, lists, dicts and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Args:
            state: what `state_dict` returned when the checkpoint was made.
        """
