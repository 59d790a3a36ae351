"""Settings of the sample trainer, as the trainer author's contract has it: bare fields, plain @dataclass."""

from dataclasses import dataclass

from config.base_trainer_config import BaseTrainerConfig


@dataclass
class FeatureFusionTrainerConfig(BaseTrainerConfig):
    """Sample."""

    hidden_dim: int
    dropout: float
