"""What the config asks of a trainer's parts, done before they are used."""

from typing import Any

from config import ConfigError
from data.tensor_loader import TensorLoader
from model.recompute import recompute_activations


def prepare(trainer: Any) -> None:
    """Place the loaders' data, let layers forget their activations, and refuse settings that have no meaning here.

    Args:
        trainer: a BaseTrainer whose model is on its device.

    Raises:
        ConfigError: a setting that this trainer or model can't follow.
    """
    config, name = trainer.config, type(trainer).__name__
    if trainer.owns_loop:
        base_only = {"ema_decay": config.ema_decay, "precision": config.precision if config.precision == "fp16" else 0}
        asked = [f"{key} = {value}" for key, value in base_only.items() if value]
        if asked:
            raise ConfigError(
                [f"{', '.join(asked)}: {name} has a train() of its own; only the base class's has these."]
            )
    for loader in (trainer.train_loader, trainer.val_loader):
        if isinstance(loader, TensorLoader):
            loader.memory_share = config.memory_share
            loader.to(trainer.device)
    if config.recompute_activations:
        layers = getattr(trainer.model, "recomputable_layers", None)
        if layers is None:
            raise ConfigError(
                [
                    f"recompute_activations = on: {type(trainer.model).__name__} has no recomputable_layers(), which "
                    "returns the modules whose activations may be computed again."
                ]
            )
        recompute_activations(layers())
