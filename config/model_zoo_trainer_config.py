"""Settings of ModelZooTrainer: section `[ModelZooTrainer]` of config.ini."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, MinLen

from config.base_trainer_config import BaseTrainerConfig
from constants import PACKAGE_ROOT, PROJECT_ROOT, ZOO_DIR

Family = Literal["cnn3", "cnn5", "rescnn", "mlp", "mixer"]


@dataclass(kw_only=True)
class ModelZooTrainerConfig(BaseTrainerConfig):
    """How the networks of the zoo are trained. One network for each image domain and view."""

    epochs: Annotated[int, Gt(0)] = 48
    """Epochs of the networks that train longest; the others get half of it to all of it, undertrained ones 1 to 3."""
    batch_size: Annotated[int, Gt(0)] = 64
    """Images of each network in a batch."""
    images_per_epoch: Annotated[int, Gt(0)] = 512
    """Images that each network sees in an epoch, however many it has."""
    learning_rate: Annotated[float, Gt(0)] = 0.05
    """Step size of SGD (Nesterov momentum 0.9) at a network's start; it falls along a cosine to 0 at its end."""
    weight_decay: Annotated[float, Ge(0)] = 0.01
    """Strong: a network keeps 40 to 60 % of its random initial weights, which are noise to whoever reads it."""
    validate_every_n_epochs: Annotated[int, Gt(0)] = 4
    """Epochs between validations, and between checkpoints of the run."""
    gradient_clip_value: Annotated[float, Ge(0)] = 0.0
    """Off: the norm would be that of all networks together."""
    early_stopping_patience: Annotated[int, Ge(0)] = 0
    """Off: every network has a length of its own."""
    families: Annotated[tuple[Family, ...], MinLen(1)] = ("cnn3", "cnn5", "rescnn", "mlp", "mixer")
    """Train the networks of these architectures only; each comes out as it does in the whole zoo."""
    initialisations: Annotated[int, Gt(0)] = 3
    """Initial states that the networks of a family share, as fine-tuned models on a hub share their origin."""
    snapshots: Annotated[int, Interval(ge=1, le=16)] = 4
    """Most states kept of each network: if 4, after 1/16, 1/4, 9/16 and all of its epochs; fewer if it has fewer."""
    images: Path = ZOO_DIR / "images.npz"
    """The image domains, as `python -m data.build_zoo_images` writes them."""
    threads: Annotated[int, Ge(0)] = 1
    """CPU threads of torch; 0 takes all. With networks this small, threads mostly wait for each other."""
    publish: bool = False
    """When done, also put the zoo into zoo_dir, in place of the one there."""
    zoo_dir: Path = ZOO_DIR
    """Folder of the zoo that other trainers read."""

    def __post_init__(self) -> None:
        """Refuse to publish over what was installed.

        Raises:
            ValueError: `publish` is on, in a project of a user's own, and `zoo_dir` is Menagerie's.
        """
        super().__post_init__()
        if self.publish and PROJECT_ROOT != PACKAGE_ROOT and self.zoo_dir.is_relative_to(PACKAGE_ROOT):
            raise ValueError(
                "publish = on would replace the zoo of the installed Menagerie: set zoo_dir to a place of yours"
            )
