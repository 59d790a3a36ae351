"""Settings of LoopedTrainer."""

from dataclasses import dataclass
from typing import Literal

from config.base_trainer_config import BaseTrainerConfig


@dataclass(kw_only=True)
class LoopedTrainerConfig(BaseTrainerConfig):
    """What LoopedTrainer reads, beside the settings of every trainer."""

    form: Literal["short", "full", "break", "plain", "plain_saving", "super"] = "short"
    """How its own train() is written."""
    stop_at: str = "never"
    """Training batch of this process, or `after` (in after_training), at which it sends itself a signal."""
    stop_signal: str = "SIGTERM"
    """Signal that it sends itself."""
    fault: Literal["none", "nan", "zeroed", "unsaved"] = "none"
    """What is wrong with it."""
