"""Trains a part of a model only at first: a new head on a pre-trained network, say."""

from collections.abc import Sequence
from typing import Any

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
        self._frozen: dict[str, torch.nn.Parameter] = {}
        self._frozen_before: list[str] = []  # names, of a run that is resumed
        if not isinstance(epochs, int) or epochs < 1 or not self._layers:
            raise ConfigError(f"FreezeLayers: give layers, and epochs, a whole number of 1 or more (it is {epochs!r}).")

    def on_train_begin(self, trainer: Trainer) -> None:
        """Freeze the layers, unless a resumed run is past that."""
        chosen = self._chosen(trainer)
        if trainer.record.progress.epoch >= self._epochs:
            return
        before = self._frozen_before  # a resumed run has them frozen already
        self._frozen = {
            name: parameter for name, parameter in chosen.items() if parameter.requires_grad or name in before
        }
        for parameter in self._frozen.values():
            parameter.requires_grad_(False)
            parameter.grad = None
        if not any(parameter.requires_grad for parameter in trainer.model.parameters()):
            raise ConfigError("FreezeLayers: nothing of the model is left to be trained.")

    def on_epoch_end(self, trainer: Trainer, epoch: int, numbers: dict[str, float]) -> None:
        """Thaw the layers when their time has come."""
        if epoch >= self._epochs:
            for parameter in self._frozen.values():
                parameter.requires_grad_(True)
            self._frozen = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the names of what is frozen here: the author's own frozen parameters are others."""
        return {"frozen": list(self._frozen)} if self._frozen else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._frozen_before = state["frozen"]

    def _chosen(self, trainer: Trainer) -> dict[str, torch.nn.Parameter]:
        """Return the parameters of the layers, by their names."""
        named = dict(trainer.model.named_parameters())
        chosen: dict[str, torch.nn.Parameter] = {}
        for layer in self._layers:
            own = {name: value for name, value in named.items() if name == layer or name.startswith(f"{layer}.")}
            if not own:
                children = trainer.model.named_children()
                there = ", ".join(name for name, child in children if any(True for _ in child.parameters())) or "none"
                raise ConfigError(
                    f"FreezeLayers: the model has no layer '{layer}' with parameters; those with some are {there}."
                )
            chosen |= own
        return chosen
