"""Settings of the sample trainer that breaks in one chosen way."""

from dataclasses import dataclass
from typing import Literal

from config.base_trainer_config import BaseTrainerConfig

Fault = Literal[
    "none", "wrong_shape", "vector_loss", "float_loss", "no_gradient", "empty_train", "empty_val", "drops_all",
    "bad_item", "missing_file", "nan_loss", "bug_in_loss", "no_parts", "no_super", "step_scheduler", "val_nan",
    "interrupt",
]  # fmt: skip


@dataclass
class FaultyTrainerConfig(BaseTrainerConfig):
    """Sample."""

    fault: Fault = "none"
    """What is wrong."""
