"""The gradient's norm: whether clipping is at work, and whether a run is about to diverge."""

from train.callbacks.callback import Callback
from train.trainer_protocol import Trainer


class GradientNorm(Callback):
    """Notes the L2 norm of the whole gradient, before it is clipped, at every reading of the loss.

    Each step keeps the norm on the device, also where nothing is clipped; it is read where the loss is read. The number
    is `gradient_norm` in `readings` of metrics.json, that of the last step before the reading.
    """

    every_step = True  # steps that are compiled whole keep their gradients to themselves

    def on_train_begin(self, trainer: Trainer) -> None:
        """Let each step keep its norm."""
        trainer.keep_gradient_norms()

    def on_log(self, trainer: Trainer, numbers: dict[str, float]) -> None:
        """Add the norm of the last step. A host-device synchronisation, beside the one of the loss."""
        norm = trainer.last_gradient_norm
        if norm is not None:
            numbers["gradient_norm"] = float(norm)
