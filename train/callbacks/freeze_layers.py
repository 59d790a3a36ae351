"""Trains a part of a model only at first: a new head on a pre-trained network, say."""

from collections.abc import Sequence

import torch

from config import ConfigError
from train.callbacks.callback import Callback
from train.trainer_protocol import Trainer


class FreezeLayers(Callback):
    """Keeps layers as they are for the first epochs, and trains them from then on.

    Frozen parameters get no gradient, so that neither the optimizer nor weight decay changes them. Their batch norm
    statistics go on moving, as the model's own mode says.

    Args:
        layers: names of modules or parameters of the model, such as `encoder` or `encoder.0.weight`; one, or several.
        epochs: how many first epochs they are frozen for. What you have frozen yourself stays frozen after them.

    Raises:
        ConfigError: an argument means nothing.
    """

    every_step = True  # a compiled step has all parameters in it

    def __init__(self, layers: str | Sequence[str], epochs: int) -> None:
        self._layers = [layers] if isinstance(layers, str) else list(layers)
        self._epochs = epochs
        self._frozen: list[torch.nn.Parameter] = []
        if not isinstance(epochs, int) or epochs < 1 or not self._layers:
            raise ConfigError(f"FreezeLayers: give layers, and epochs, a whole number of 1 or more (it is {epochs!r}).")

    def on_train_begin(self, trainer: Trainer) -> None:
        """Freeze the layers, unless a resumed run is past that."""
        chosen = self._chosen(trainer)
        if trainer.record.progress.epoch >= self._epochs:
            return
        self._frozen = [parameter for parameter in chosen if parameter.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
            parameter.grad = None
        if not any(parameter.requires_grad for parameter in trainer.model.parameters()):
            raise ConfigError("FreezeLayers: nothing of the model is left to be trained.")

    def on_epoch_end(self, trainer: Trainer, epoch: int, numbers: dict[str, float]) -> None:
        """Thaw the layers when their time has come."""
        if epoch >= self._epochs:
            for parameter in self._frozen:
                parameter.requires_grad_(True)
            self._frozen = []

    def _chosen(self, trainer: Trainer) -> list[torch.nn.Parameter]:
        """Return the parameters of the layers, by their names."""
        named = dict(trainer.model.named_parameters())
        chosen: list[torch.nn.Parameter] = []
        for layer in self._layers:
            own = [parameter for name, parameter in named.items() if name == layer or name.startswith(f"{layer}.")]
            if not own:
                children = trainer.model.named_children()
                there = ", ".join(name for name, child in children if any(True for _ in child.parameters())) or "none"
                raise ConfigError(
                    f"FreezeLayers: the model has no layer '{layer}' with parameters; those with some are {there}."
                )
            chosen += own
        return chosen
