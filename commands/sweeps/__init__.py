"""Sweeps: many runs of one trainer with settings that Optuna chooses, `python train.py NAME --sweep sweep.yaml`."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from commands.sweeps.spec import read_spec
from config import ConfigError

if TYPE_CHECKING:  # which imports torch
    from train.base_trainer import BaseTrainer


def check(path: str, section: str) -> None:
    """Check a sweep file and that Optuna is there, before torch is imported.

    Raises:
        ConfigError: all that is wrong at once.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError("--sweep needs Optuna, which is not installed: pip install optuna")
    read_spec(Path(path), section)


def command(trainer_class: "type[BaseTrainer]", path: str) -> int:
    """Run a sweep, or go on with it: `--sweep`."""
    from commands.sweeps.sweep import run_sweep

    return run_sweep(trainer_class, Path(path))
