"""Trainers: `TRAINER_REGISTRY` names them, `train.base_trainer.BaseTrainer` runs them. This alone imports no torch."""

from pathlib import Path

from constants import add_own_modules  # first: it tells beautilog where its settings are
from train.registry import TrainerRegistry

add_own_modules(__path__, __name__)

# Every class over BaseTrainer in a file train/*_trainer.py is in the registry by being there. A trainer that lives
# elsewhere joins by one line below:  TRAINER_REGISTRY["NameTrainer"] = "package.module:NameTrainer"
TRAINER_REGISTRY = TrainerRegistry(*map(Path, __path__))


def __getattr__(name: str) -> object:
    """Say where BaseTrainer is: to import it from here would be a circle, and bring torch with it."""
    if name == "BaseTrainer":
        raise ImportError("BaseTrainer is in train.base_trainer: from train.base_trainer import BaseTrainer")
    raise AttributeError(f"module 'train' has no attribute {name!r}")
