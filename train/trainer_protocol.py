"""A trainer, as callbacks and the parts of a run see it, so that they need not know the class that runs them."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from config import BaseTrainerConfig
from data.loaders import Loader
from storage.run_folder import RunFolder
from train.checkpointing.author_state import modules_beside
from train.loop.progress import ProgressBar
from train.loop.record import RunRecord
from train.loop.stop_signals import StopRequest


def other_modules(trainer: "Trainer") -> dict[str, torch.nn.Module]:
    """Return the modules with a state that a trainer has beside its model, such as a loss with parameters.

    Args:
        trainer: trainer whose attributes are looked through, and the lists, dicts and objects of its own in these.

    Returns:
        The modules by their path on the trainer: `critic`, `networks.critic`.
    """
    return modules_beside(trainer, trainer.model)


def loaders_of(trainer: "Trainer") -> dict[str, Loader]:
    """Return a trainer's loaders by attribute: train and val, and where its author has made them test and predict.

    Args:
        trainer: trainer whose `__init__` has made its loaders.
    """
    loaders: dict[str, Loader] = {"train_loader": trainer.train_loader, "val_loader": trainer.val_loader}
    loaders |= {"test_loader": trainer.test_loader} if trainer.test_loader is not None else {}
    return loaders | ({"predict_loader": trainer.predict_loader} if trainer.predict_loader is not None else {})


class Trainer(Protocol):
    """What every trainer has: its author's parts, the run's numbers, and the verbs. `BaseTrainer` is one.

    Attributes:
        config: resolved settings of the run.
        model: the network that is trained.
        train_loader: loader of training batches.
        val_loader: loader of validation batches.
        test_loader: loader of the batches that `--test` measures; None where the author has made none.
        predict_loader: loader of the batches that `--predict` writes about; None where it is test_loader's.
        optimizer: optimizer of the model's parameters.
        scheduler: schedule of the learning rate.
        record: numbers of the run so far: `record.progress.epoch`, `record.progress.step`, `record.history`.
        results: entries that a trainer adds to the summary of metrics.json, by name.
        progress_bar: bar that a person sees while the run goes on.
    """

    config: BaseTrainerConfig
    model: torch.nn.Module
    train_loader: Loader
    val_loader: Loader
    test_loader: Loader | None
    predict_loader: Loader | None
    optimizer: Optimizer
    scheduler: LRScheduler
    record: RunRecord
    results: dict[str, Any]
    progress_bar: ProgressBar

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        ...

    @property
    def run_folder(self) -> RunFolder:
        """The run's folder."""
        ...

    @property
    def stop_request(self) -> StopRequest:
        """Asks the run to stop: `trainer.stop_request.ask("reason")` lets it finish the step, save and leave."""
        ...

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes the run's files; of several processes one does."""
        ...

    @property
    def model_name(self) -> str:
        """The name of the model's folder in artifacts."""
        ...

    @property
    def owns_loop(self) -> bool:
        """Whether the trainer has a `train()` of its own."""
        ...

    @property
    def counts_own_samples(self) -> bool:
        """Whether the trainer has a `count_samples` of its own."""
        ...

    @property
    def saves_plain_weights(self) -> bool:
        """Whether `save_model` is the base class's."""
        ...

    def count_samples(self, batch: Any) -> int:
        """Return how many samples a batch has."""
        ...

    def keep_gradient_norms(self) -> None:
        """Let each optimizer step keep its gradient's norm, for `last_gradient_norm`."""
        ...

    @property
    def last_gradient_norm(self) -> torch.Tensor | None:
        """L2 norm of the last step's gradient before clipping, a scalar on the device; None where none is kept."""
        ...

    def train(self) -> None:
        """Train until the last epoch or until early stopping."""
        ...

    def validate(self) -> float:
        """Return the validation loss."""
        ...

    def save_checkpoint(self, epoch: int, is_best: bool = False) -> None:
        """Save all that a resumed run needs."""
        ...

    def save_model(self) -> None:
        """Write the model's weights to model.safetensors in the run folder."""
        ...

    def save_metrics(self) -> None:
        """Enter what was measured into the history, rewrite metrics.json."""
        ...

    def check_early_stopping(self, val_loss: float) -> bool:
        """Note a validation loss and say whether the run should stop."""
        ...

    def predict_batch(self, batch: Any) -> Any:
        """Return what `--predict` writes about a batch."""
        ...

    def after_training(self) -> None:
        """Do what follows a finished run, with the best weights in the model."""
        ...

    def get_extra_state(self) -> dict[str, Any]:
        """Return what a checkpoint is to hold beside all that is found by itself."""
        ...

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_extra_state` gave."""
        ...

    def save_metrics_to_file(self, state: str = "running", **more: Any) -> None:
        """Rewrite metrics.json."""
        ...

    def plot_metrics(self) -> None:
        """Draw the run's plots."""
        ...

    def get_run_file_path(self, name: str = "metrics.json") -> Path:
        """Return the path of a file in the run folder."""
        ...
