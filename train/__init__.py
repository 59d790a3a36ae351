"""Trainers: `TRAINER_REGISTRY` names them, `train.base_trainer.BaseTrainer` runs them. This alone imports no torch."""

from pathlib import Path

import constants  # noqa: F401  (first: it tells beautilog where its settings are)
from train.registry import TrainerRegistry

# Every class over BaseTrainer in a file train/*_trainer.py is in the registry by being there. A trainer that lives
# elsewhere joins by one line below:  TRAINER_REGISTRY["NameTrainer"] = "package.module:NameTrainer"
TRAINER_REGISTRY = TrainerRegistry(Path(__file__).parent)


def __getattr__(name: str) -> object:
    """Say where BaseTrainer is: to import it from here would be a circle, and bring torch with it."""
    if name == "BaseTrainer":
        raise ImportError("BaseTrainer is in train.base_trainer: from train.base_trainer import BaseTrainer")
    raise AttributeError(f"module 'train' has no attribute {name!r}")
