"""The learning rates of all parameter groups at each reading of the loss."""

from train.callbacks.callback import Callback
from train.trainer_protocol import Trainer


class LearningRateMonitor(Callback):
    """Notes the learning rate of each further parameter group at every reading of the loss, as its step used it.

    The first group's is there anyway, as `learning_rate`; the others' are `learning_rate_2`, `learning_rate_3`, ...
    """

    def on_log(self, trainer: Trainer, numbers: dict[str, float]) -> None:
        """Add the rates."""
        # A rate that is a tensor on a device is a host-device synchronisation, beside the one of the loss.
        for number, rate in enumerate(trainer.record.learning_rates(trainer.optimizer), 1):
            numbers["learning_rate" if number == 1 else f"learning_rate_{number}"] = rate
