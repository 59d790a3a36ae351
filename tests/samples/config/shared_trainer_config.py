"""Settings of a trainer for several processes."""

from dataclasses import dataclass
from typing import Literal

from config.base_trainer_config import BaseTrainerConfig


@dataclass
class SharedTrainerConfig(BaseTrainerConfig):
    """How it reads its data, and what goes wrong in which process."""

    loader: Literal["tensors", "dataloader", "made"] = "tensors"
    """`tensors`: TensorLoader; `dataloader`: torch's, with the global generators; `made`: make_loader."""
    samples: int = 26
    """Of the training data."""
    double: bool = True
    """Compute in float64."""
    counted: bool = True
    """Whether the loss is a mean over marked values, whose number differs from batch to batch."""
    dropout: float = 0.0
    """Of the hidden values."""
    batch_norm: bool = False
    """Whether the model has batch norm."""
    unused: bool = False
    """Whether the model has a layer that no batch uses."""
    event: Literal["none", "kill", "nan", "nan_loss", "stop", "raise"] = "none"
    """What happens: the process is killed, it gets a SIGTERM, its loss function raises or
    adds NaN to the loss, whose gradient stays finite; or a sample is NaN."""
    event_rank: int = 1
    """In which process."""
    event_batch: int = 8
    """At which of its training batches; or which sample."""
