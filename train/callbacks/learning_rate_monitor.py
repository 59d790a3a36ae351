"""The learning rate at each reading of the loss: what a schedule by step really did."""

from train.callbacks.callback import Callback
from train.trainer_protocol import Trainer


class LearningRateMonitor(Callback):
    """Notes the learning rate of each parameter group at every reading of the loss, for `readings` of metrics.json.

    The first group's is `learning_rate`, the others' are `learning_rate_2`, `learning_rate_3`, ...
    """

    def on_log(self, trainer: Trainer, numbers: dict[str, float]) -> None:
        """Add the rates."""
        for number, group in enumerate(trainer.optimizer.param_groups, 1):
            # A rate that is a tensor on a device is a host-device synchronisation, beside the one of the loss.
            numbers["learning_rate" if number == 1 else f"learning_rate_{number}"] = float(group["lr"])
