"""What the config asks of a trainer's parts, done before they are used."""

from beautilog import logger

from config import ConfigError
from data.loaders import Loader
from data.sharding import SharedRNG, shard_loader
from data.tensor_loader import TensorLoader
from model.recompute import recompute_activations
from train.errors import TrainerContractError
from train.loading.worker_signals import tend_workers
from train.process_group import process_group
from train.trainer_protocol import Trainer, loaders_of


def prepare(trainer: Trainer, shared_rng: SharedRNG | None) -> None:
    """Ready the loaders for this run, let layers forget their activations, refuse settings that have no meaning here.

    Args:
        trainer: trainer whose model is on its device.
        shared_rng: random numbers that several processes draw their order from; None for one process.

    Raises:
        ConfigError: a setting that this trainer or model can't follow.
    """
    config, name, group = trainer.config, type(trainer).__name__, process_group()
    if trainer.owns_loop:
        base_only = {"ema_decay": config.ema_decay, "precision": config.precision if config.precision == "fp16" else 0}
        asked = [f"{key} = {value}" for key, value in base_only.items() if value]
        if asked:
            raise ConfigError(
                [f"{', '.join(asked)}: {name} has a train() of its own; only the base class's has these."]
            )
    if trainer.owns_loop and shared_rng is not None:
        raise ConfigError(
            f"{name} has a train() of its own, which {group.world_size} processes can't share. "
            "Start it without torchrun."
        )
    for place, loader in loaders_of(trainer).items():
        if place in ("test_loader", "predict_loader") and not hasattr(loader, "__iter__"):
            raise TrainerContractError(
                f"{name}: self.{place} is a {type(loader).__name__}; it must be a loader, such as a DataLoader or a "
                "TensorLoader."
            )
        tend_workers(loader)
        _end_workers_with_the_epoch(loader)
        if shared_rng is not None and place in ("train_loader", "val_loader"):  # the others are read by one process
            shard_loader(f"{name}.{place}", loader, group.rank, group.world_size, shared_rng)
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


def _end_workers_with_the_epoch(loader: Loader) -> None:
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
