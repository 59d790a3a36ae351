"""Settings of the sample trainer with faults that a run would not tell."""

from dataclasses import dataclass

from config.base_trainer_config import BaseTrainerConfig


@dataclass
class CarelessTrainerConfig(BaseTrainerConfig):
    """Sample."""

    faults: list[str]
    """What is wrong: leak, cut, forgotten, climb, train_loss, never_stops, hidden_state, no_metrics."""
