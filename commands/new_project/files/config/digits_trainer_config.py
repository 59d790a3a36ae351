"""Settings of DigitsTrainer: section `[DigitsTrainer]` of config.ini."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Interval

from config.base_trainer_config import BaseTrainerConfig


@dataclass(kw_only=True)
class DigitsTrainerConfig(BaseTrainerConfig):
    """What DigitsTrainer reads, beside the settings of every trainer."""

    hidden_dim: Annotated[int, Gt(0)] = 64
    """Width of the hidden layer."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of hidden values that are dropped in training."""
