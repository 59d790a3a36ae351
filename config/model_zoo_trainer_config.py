"""Settings of ModelZooTrainer: section `[ModelZooTrainer]` of config.ini."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, MinLen

from config.base_trainer_config import BaseTrainerConfig
from constants import ZOO_DIR

Family = Literal["cnn3", "cnn5", "rescnn", "mlp", "mixer"]


@dataclass(kw_only=True)
class ModelZooTrainerConfig(BaseTrainerConfig):
    """How the networks of the zoo are trained. One network for each image domain and view."""

    epochs: Annotated[int, Gt(1)] = 24
    """Epochs of the networks that train longest; the others get half of it to all of it, undertrained ones 1 or 2."""
    batch_size: Annotated[int, Gt(0)] = 64
    """Images of each network in a batch."""
    images_per_epoch: Annotated[int, Gt(0)] = 1536
    """Images that each network sees in an epoch, however many it has."""
    learning_rate: Annotated[float, Gt(0)] = 4e-3
    """Step size of AdamW at the start of each network's training; it falls along a cosine to 0 at its end."""
    weight_decay: Annotated[float, Ge(0)] = 1.0
    """Decoupled weight decay, strong: what is left of random initial weights is noise to whoever reads a network."""
    gradient_clip_value: Annotated[float, Ge(0)] = 0.0
    """Off: the norm would be that of all networks together."""
    early_stopping_patience: Annotated[int, Ge(0)] = 0
    """Off: every network has a length of its own."""
    families: Annotated[tuple[Family, ...], MinLen(1)] = ("cnn3", "cnn5", "rescnn", "mlp", "mixer")
    """Train the networks of these architectures only; each comes out as it does in the whole zoo."""
    initialisations: Annotated[int, Gt(0)] = 3
    """Initial states that the networks of a family share, as fine-tuned models on a hub share their origin."""
    snapshots: Annotated[int, Interval(ge=1, le=16)] = 4
    """Training checkpoints kept of each network, evenly spaced over its epochs; the last is the finished network."""
    images: Path = ZOO_DIR / "images.npz"
    """The image domains, as `python -m data.build_zoo_images` writes them."""
    publish: bool = False
    """When done, also put the zoo into zoo_dir, in place of the one there."""
    zoo_dir: Path = ZOO_DIR
    """Folder of the zoo that other trainers read."""
