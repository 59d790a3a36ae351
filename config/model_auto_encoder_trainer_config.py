"""Settings of the autoencoder over network parameters: section `[ModelAutoEncoderTrainer]`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, MinLen

from config.base_trainer_config import BaseTrainerConfig
from constants import ARTIFACTS_DIR, ZOO_DIR


@dataclass(kw_only=True)
class ModelAutoEncoderTrainerConfig(BaseTrainerConfig):
    """What `ModelAutoEncoderTrainer` reads, beside the settings of every trainer."""

    objective: Literal["reconstruction", "properties"] = "reconstruction"
    """What is learnt. reconstruction: an autoencoder of the zoo's weights. properties: of a population of small
    networks, tokens that tell accuracy within a task, generalisation gap, domain and outputs (docs/model_tokens.md)."""
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
    directions: Annotated[int, Ge(0)] = 10
    """Directions in which whole networks of a family differ most, each a number of a network's code, where
    tokenization = neuron."""
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
    population: Path = ARTIFACTS_DIR / "population"
    """Folder of the population, where objective = properties; it is trained first where it is missing or stale."""
    networks: Annotated[int, Ge(100)] = 3000
    """Networks of the population that are used, where objective = properties."""
    split: Annotated[int, Interval(ge=0, lt=5)] = 0
    """Which fifth of the population's tasks and initial states is the test, where objective = properties."""
    networks_per_batch: Annotated[int, Gt(1)] = 64
    """Networks a batch, where objective = properties."""
    unit_dim: Annotated[int, Gt(0)] = 16
    """Width of the token of a hidden unit, where objective = properties."""
    token_dim: Annotated[int, Gt(0)] = 64
    """Numbers of a network's token, where objective = properties; a multiple of 4."""
    val_share: Annotated[float, Interval(gt=0, lt=1)] = 0.125
    """Share of the networks that early stopping looks at."""
    test_share: Annotated[float, Interval(gt=0, lt=1)] = 0.25
    """Share of the networks that are reported on."""
    epochs: Annotated[int, Gt(0)] = 40
    """Passes over the training networks."""
    batch_size: Annotated[int, Gt(0)] = 512
    """Tokens a batch."""
    learning_rate: Annotated[float, Gt(0)] = 2e-3
    """Step size of the optimizer at the start, or after the warm-up where objective = properties."""

    def __post_init__(self) -> None:
        """Refuse a token that can't be split between the transformer's heads.

        Raises:
            ValueError: `token_dim` is no multiple of 4.
        """
        super().__post_init__()
        if self.token_dim % 4:
            raise ValueError(f"token_dim = {self.token_dim} must be a multiple of 4")
