"""Trains a part of a model only at first: a new head on a pre-trained network, say."""

from collections.abc import Sequence

from config import ConfigError
from train.callbacks.callback import Callback
from train.trainer_protocol import Trainer


class FreezeLayers(Callback):
    """Keeps layers as they are for the first epochs, and trains them from then on.

    Frozen parameters get no gradient, so that neither the optimizer nor weight decay changes them. Their batch norm
    statistics go on moving, as the model's own mode says.

    Args:
        layers: names of modules or parameters of the model, such as `encoder` or `encoder.0.weight`; one, or several.
        epochs: how many first epochs they are frozen for.

    Raises:
        ConfigError: an argument means nothing.
    """

    every_step = True  # a compiled step has all parameters in it

    def __init__(self, layers: str | Sequence[str], epochs: int) -> None:
        self._layers = [layers] if isinstance(layers, str) else list(layers)
        self._epochs = epochs
        if epochs < 1 or not self._layers:
            raise ConfigError(f"FreezeLayers: give layers, and epochs of 1 or more (it is {epochs}).")

    def on_train_begin(self, trainer: Trainer) -> None:
        """Freeze the layers, unless a resumed run is past that."""
        self._set(trainer, trainable=trainer.record.progress.epoch >= self._epochs)

    def on_epoch_end(self, trainer: Trainer, epoch: int, numbers: dict[str, float]) -> None:
        """Thaw the layers when their time has come."""
        if epoch == self._epochs:
            self._set(trainer, trainable=True)

    def _set(self, trainer: Trainer, trainable: bool) -> None:
        named = dict(trainer.model.named_parameters())
        for layer in self._layers:
            own = [parameter for name, parameter in named.items() if name == layer or name.startswith(f"{layer}.")]
            if not own:
                there = ", ".join(name for name, _ in trainer.model.named_children()) or "none"
                raise ConfigError(f"FreezeLayers: the model has no layer '{layer}'; its layers are {there}.")
            for parameter in own:
                parameter.requires_grad_(trainable)
                if not trainable:
                    parameter.grad = None
        if not any(parameter.requires_grad for parameter in named.values()):
            raise ConfigError("FreezeLayers: nothing of the model is left to be trained.")
