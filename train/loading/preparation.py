"""What the config asks of a trainer's parts, done before they are used."""

from typing import Any

from beautilog import logger

from config import ConfigError
from data.shares import take_share
from data.tensor_loader import TensorLoader
from model.recompute import recompute_activations
from train.loading.worker_signals import tend_workers


def prepare(trainer: Any) -> None:
    """Ready the loaders for this run, let layers forget their activations, refuse settings that have no meaning here.

    Args:
        trainer: a BaseTrainer whose model is on its device.

    Raises:
        ConfigError: a setting that this trainer or model can't follow.
    """
    config, name, world = trainer.config, type(trainer).__name__, trainer._process_group
    if trainer.owns_loop:
        base_only = {"ema_decay": config.ema_decay, "precision": config.precision if config.precision == "fp16" else 0}
        asked = [f"{key} = {value}" for key, value in base_only.items() if value]
        if asked:
            raise ConfigError(
                [f"{', '.join(asked)}: {name} has a train() of its own; only the base class's has these."]
            )
    if trainer.owns_loop and not world.is_single_process:
        raise ConfigError(
            f"{name} has a train() of its own, which {world.world_size} processes can't share. Start it without torchrun."
        )
    for place in ("train_loader", "val_loader"):
        loader = getattr(trainer, place)
        tend_workers(loader)
        _end_workers_with_the_epoch(loader)
        if not world.is_single_process:
            take_share(f"{name}.{place}", loader, world.rank, world.world_size, trainer._draws)
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


def _end_workers_with_the_epoch(loader: Any) -> None:
    """Let a DataLoader start its workers anew in each epoch, unless what they draw follows from the epoch.

    The generators of workers that live on are known to nobody else, so a resumed run could not go on with them; and
    such a loader draws from the global generator in a process's first epoch only.
    """
    if getattr(loader, "persistent_workers", False) and not getattr(loader, "draws_by_epoch", False):
        object.__setattr__(loader, "persistent_workers", False)  # a DataLoader refuses a plain assignment
        logger.warning(
            "persistent_workers = True is turned off, since a run could not be resumed exactly. With "
            "data.loaders.make_loader workers live on: all they draw follows from (seed, epoch)."
        )
