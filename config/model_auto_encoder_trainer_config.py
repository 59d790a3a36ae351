"""Settings of the autoencoder over network parameters: section `[ModelAutoEncoderTrainer]`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, MinLen

from config.base_trainer_config import BaseTrainerConfig
from constants import ZOO_DIR


@dataclass(kw_only=True)
class ModelAutoEncoderTrainerConfig(BaseTrainerConfig):
    """What `ModelAutoEncoderTrainer` reads, beside the settings of every trainer."""

    zoo: Path = ZOO_DIR
    """Folder of the zoo whose networks are encoded."""
    tokenization: Literal["neuron", "flat"] = "neuron"
    """neuron: a token is a unit's incoming weights. flat: a token is the whole vector, cut at chunk_width."""
    chunk_width: Annotated[int, Gt(0)] = 8192
    """Weights a token, where tokenization = flat."""
    code_dim: Annotated[int, Gt(0)] = 512
    """Numbers of a model token; where tokenization = flat also of each chunk's code."""
    compression: Annotated[float, Ge(1)] = 4.0
    """Weights for each number of a unit's code, where tokenization = neuron."""
    hidden_dims: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (512,)
    """Widths of the encoder's hidden layers; the decoder has them in reverse."""
    activation: Literal["gelu", "relu", "tanh"] = "gelu"
    """Between the layers."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.3
    """Share of hidden values that are dropped in training."""
    loss: Literal["mse", "smooth_l1"] = "mse"
    """Of a weight's reconstruction error, in units of the training weights' deviation."""
    code_l1: Annotated[float, Ge(0)] = 0.0
    """Weight of the mean absolute code in the loss."""
    align: bool = True
    """Write each network as its difference from its family's nearest reference, in that one's order of hidden units."""
    permute: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Share of hidden units that change places in training networks each epoch. Where align = on they are aligned
    again, which undoes it."""
    val_share: Annotated[float, Interval(gt=0, lt=1)] = 0.125
    """Share of the networks that early stopping looks at."""
    test_share: Annotated[float, Interval(gt=0, lt=1)] = 0.25
    """Share of the networks that are reported on."""
    epochs: Annotated[int, Gt(0)] = 40
    """Passes over the training networks."""
    batch_size: Annotated[int, Gt(0)] = 512
    """Tokens a batch."""
    learning_rate: Annotated[float, Gt(0)] = 2e-4
    """Step size of the optimizer at the start."""
