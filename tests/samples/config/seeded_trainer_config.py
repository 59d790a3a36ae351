"""Settings of a trainer for groups of seeds."""

from dataclasses import dataclass

from config.base_trainer_config import BaseTrainerConfig


@dataclass
class SeededTrainerConfig(BaseTrainerConfig):
    """What it is made of, and which seed goes wrong."""

    double: bool = False
    """Compute in float64."""
    bad_seed: int = -1
    """The seed whose data has a NaN."""
