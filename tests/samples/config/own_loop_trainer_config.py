"""Settings of the sample trainer with a loop of its own."""

from dataclasses import dataclass

from config.base_trainer_config import BaseTrainerConfig


@dataclass
class OwnLoopTrainerConfig(BaseTrainerConfig):
    """Sample."""

    hidden_dim: int
