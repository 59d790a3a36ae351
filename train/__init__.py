"""Trainers: `TRAINER_REGISTRY` names them, `BaseTrainer` runs them. Importing this does not import torch."""

from pathlib import Path
from typing import Any

import constants  # noqa: F401  (first: it tells beautilog where its settings are)
from train.registry import TrainerRegistry

# Every class over BaseTrainer in a file train/*_trainer.py is in the registry by being there. A trainer that lives
# elsewhere joins by one line below:  TRAINER_REGISTRY["NameTrainer"] = "package.module:NameTrainer"
TRAINER_REGISTRY = TrainerRegistry(Path(__file__).parent)


def __getattr__(name: str) -> Any:
    """Make `from train import BaseTrainer` work, and import torch only then."""
    if name == "BaseTrainer":
        from train.base_trainer import BaseTrainer

        return BaseTrainer
    raise AttributeError(f"module 'train' has no attribute {name!r}")
