"""Settings of a trainer whose numbers go wrong."""

from dataclasses import dataclass
from typing import Literal

from config.base_trainer_config import BaseTrainerConfig


@dataclass
class UnstableTrainerConfig(BaseTrainerConfig):
    """What goes wrong, and when."""

    trouble: Literal["none", "layer", "sample", "validation", "loss"] = "layer"
    """`layer`: the logarithm of a negative number in it; `sample`: a NaN in the data; `validation`: a NaN in its data;
    `loss`: the root of a negative number."""
    loader: Literal["tensors", "dataloader"] = "dataloader"
    """`tensors`: TensorLoader; `dataloader`: torch's."""
    layers: int = 3
    """Of the model."""
    width: int = 6
    """Of each layer."""
