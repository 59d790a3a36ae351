"""Settings of GroundTruthTrainer: section `[GroundTruthTrainer]` of config.ini."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Interval

from config.base_trainer_config import BaseTrainerConfig
from constants import PACKAGE_ROOT, PERFORMANCE_PATH, PROJECT_ROOT, ZOO_DIR


@dataclass(kw_only=True)
class GroundTruthTrainerConfig(BaseTrainerConfig):
    """How the ground truth is measured: every network of the zoo is fine-tuned on every task of the benchmark."""

    epochs: Annotated[int, Gt(0)] = 64
    """Tasks that are measured, one an epoch, from the first of the benchmark on; all it has, if it has fewer."""
    fine_tune_seeds: Annotated[int, Interval(ge=2, le=64)] = 4
    """Fine-tunings of each network on each task, each on a draw of training images of its own."""
    fine_tune_steps: Annotated[int, Gt(0)] = 60
    """Optimizer steps of a fine-tuning."""
    batch_size: Annotated[int, Gt(0)] = 16
    """Images a step of each fine-tuning."""
    learning_rate: Annotated[float, Gt(0)] = 0.03
    """Step size of SGD (Nesterov momentum 0.9) at a fine-tuning's start; it falls along a cosine to 0 at its end."""
    weight_decay: Annotated[float, Ge(0)] = 0.001
    """Weight decay of the optimizer."""
    gradient_clip_value: Annotated[float, Ge(0)] = 0.0
    """Off: the norm would be that of all networks together."""
    early_stopping_patience: Annotated[int, Ge(0)] = 0
    """Off: an epoch is a task of its own."""
    keep_last_checkpoints: Annotated[int, Gt(0)] = 1
    """Newest checkpoints that are kept."""
    zoo: Path = ZOO_DIR
    """Folder of the zoo."""
    images: Path = ZOO_DIR / "images.npz"
    """The image domains that tasks are made of."""
    publish: bool = False
    """When done, also put the table into performance, in place of the one there; needs all tasks."""
    performance: Path = PERFORMANCE_PATH
    """The table that rankers learn from."""

    def __post_init__(self) -> None:
        """Refuse to publish over what was installed.

        Raises:
            ValueError: `publish` is on, in a project of a user's own, and `performance` is Menagerie's.
        """
        super().__post_init__()
        if self.publish and PROJECT_ROOT != PACKAGE_ROOT and self.performance.is_relative_to(PACKAGE_ROOT):
            raise ValueError(
                "publish = on would replace the table of the installed Menagerie: set performance to a place of yours"
            )
