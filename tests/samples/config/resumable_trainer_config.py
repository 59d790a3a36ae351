"""Settings of a trainer that sends itself a signal."""

from dataclasses import dataclass
from typing import Literal

from config.base_trainer_config import BaseTrainerConfig


@dataclass
class ResumableTrainerConfig(BaseTrainerConfig):
    """How it loads and schedules, and when it is interrupted."""

    loader: Literal["tensors", "dataloader", "made", "own"] = "dataloader"
    """`tensors`: TensorLoader; `dataloader`: torch's, with noise in its dataset; `made`: make_loader, the same;
    `own`: torch's with a generator of its own."""
    schedule: Literal["plateau", "cosine"] = "plateau"
    """Of the learning rate."""
    stop_at: str = ""
    """Training batches, counted in the process, and phases (`val`) at which it sends itself the signal."""
    stop_signal: str = "SIGTERM"
    """Which."""
