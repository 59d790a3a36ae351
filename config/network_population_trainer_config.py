"""Settings of NetworkPopulationTrainer: section `[NetworkPopulationTrainer]` of config.ini."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt

from config.base_trainer_config import BaseTrainerConfig
from constants import ARTIFACTS_DIR, ZOO_DIR


@dataclass(kw_only=True)
class NetworkPopulationTrainerConfig(BaseTrainerConfig):
    """How many small networks are trained in how many ways, for `ModelAutoEncoderTrainer` to learn from."""

    networks: Annotated[int, Ge(20)] = 3000
    """Networks that are trained. A smaller population is the beginning of a larger one."""
    cohort: Annotated[int, Gt(0)] = 100
    """Networks of one family that are trained at once; an epoch is one such cohort."""
    fewest_steps: Annotated[int, Gt(0)] = 40
    """Fewest optimizer steps of a network."""
    most_steps: Annotated[int, Gt(0)] = 640
    """Most optimizer steps of a network."""
    batch_size: Annotated[int, Gt(0)] = 32
    """Images a step of each network."""
    lowest_rate: Annotated[float, Gt(0)] = 0.002
    """Smallest learning rate of a network (SGD, Nesterov momentum 0.9, falling along a cosine)."""
    learning_rate: Annotated[float, Gt(0)] = 0.2
    """Largest learning rate of a network."""
    gradient_clip_value: Annotated[float, Ge(0)] = 0.0
    """Off: the norm would be that of all networks together. Each network's own gradient is clipped."""
    early_stopping_patience: Annotated[int, Ge(0)] = 0
    """Off: an epoch is a cohort of its own."""
    keep_last_checkpoints: Annotated[int, Gt(0)] = 1
    """Newest checkpoints that are kept."""
    images: Path = ZOO_DIR / "images.npz"
    """The image domains that networks are trained on."""
    publish: bool = True
    """When done, put the population into population, in place of the one there."""
    population: Path = ARTIFACTS_DIR / "population"
    """Folder of the population that other trainers read."""

    def __post_init__(self) -> None:
        """Refuse ranges that are none.

        Raises:
            ValueError: a least value is above the most.
        """
        super().__post_init__()
        for low, high in (("fewest_steps", "most_steps"), ("lowest_rate", "learning_rate")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} = {getattr(self, low)} is above {high} = {getattr(self, high)}")
