"""Settings of the ranker: section `[SimilarityTransformerTrainer]`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from config.base_trainer_config import BaseTrainerConfig
from constants import PERFORMANCE_PATH, ZOO_DIR


@dataclass(kw_only=True)
class SimilarityTransformerTrainerConfig(BaseTrainerConfig):
    """What `SimilarityTransformerTrainer` reads, beside the settings of every trainer."""

    split: Literal["A", "B", "C", "D", "E", "all", "foreign"] = "A"
    """What is unseen in the test: A tasks, B a domain, C models, D tasks and models, E a family. No test, for use: all
    (new datasets), foreign (another zoo's models)."""
    fold: Annotated[int, Ge(0)] = 0
    """Which part is left out: 0 to 3 of B, C and D, 0 to 4 of E, else 0."""
    validation_part: Annotated[int, Interval(ge=0, le=4)] = 2
    """Which fifth of the training tasks no gradient comes from; early stopping and the best epoch look at it."""
    hybrid: bool = False
    """Also read LogME and centroid scores, for which every model must be run on the new dataset."""
    encoder: str = "data.image_encoder:GradientEncoder"
    """Class that turns images into features for dataset tokens; data.image_encoder:ClipEncoder needs transformers."""
    codes: Path | None = None
    """model_tokens.safetensors of an autoencoder run, whose codes become part of the model tokens; empty for none."""
    loss: Literal["list_mle", "list_net", "pairwise", "lambda"] = "list_net"
    """Ranking loss, see model/ranking_losses.py."""
    members: Annotated[int, Gt(0)] = 4
    """Transformers that are trained side by side; their scores are averaged."""
    width: Annotated[int, Gt(0)] = 32
    """Numbers of a hidden token."""
    layers: Annotated[int, Gt(0)] = 2
    """Layers of attention."""
    heads: Annotated[int, Gt(0)] = 4
    """Heads of each layer; width must be a multiple."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.2
    """Share of token and hidden values that are dropped in training."""
    variants: Annotated[int, Gt(0)] = 32
    """Sub-samples of each training task that lists are drawn from."""
    lists_per_task: Annotated[int, Gt(0)] = 4
    """Training lists of each task an epoch."""
    shuffle_truth: bool = False
    """Train on accuracies in random order: a test of the protocol, in which nothing must be learnt."""
    zoo: Path = ZOO_DIR
    """Folder of the zoo, its images and its descriptions."""
    performance: Path = PERFORMANCE_PATH
    """Table of measured accuracies."""
    epochs: Annotated[int, Gt(0)] = 12
    """Passes over the training tasks."""
    batch_size: Annotated[int, Gt(0)] = 16
    """Lists a batch."""
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    """Step size of AdamW at its highest; warm-up over the first tenth, then half a cosine to 0."""
    weight_decay: Annotated[float, Ge(0)] = 0.05
    """Weight decay of the optimizer."""
