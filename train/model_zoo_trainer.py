"""Trains the zoo: `python train.py ModelZooTrainer publish=on` makes data/zoo/ anew.

To expect: one minute on one core (37 s on two, `threads=2`); mean accuracy on held-out source images 0.82, of the
undertrained networks 0.45. The same seed gives the same bits on the same machine.

The weights are also what an autoencoder learns to compress, and random initial weights are noise to it. Hence the
recipe: SGD with momentum, a weight decay that leaves 40 to 60 % of the initial weights, and three initial states that a
family's networks share. Measured by a PCA of each layer, fitted on three quarters of a family's networks, as the share
of variance that it explains of the others' final weights (in brackets: of all their snapshots):

    SGD, decay 0.01, one initial state      0.11 to 0.43   (0.28 to 0.76)   accuracy 0.82
    AdamW, decay 1, one initial state       0.07 to 0.31   (0.20 to 0.61)   accuracy 0.81
    AdamW, decay 0.3, one initial state     0.05 to 0.15   (0.11 to 0.37)   accuracy 0.81
    SGD, decay 0.01, three initial states   0.54 to 0.86   (0.74 to 0.96)   accuracy 0.82

The lowest value is always that of cnn3 or mlp, the highest the mixer's. What three states add is only which of them a
network came from.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from beautilog import logger
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from config import ConfigError, ConfigParser
from config.model_zoo_trainer_config import ModelZooTrainerConfig
from data.model_zoo import ZooEntry, save_zoo
from data.zoo_images import load_domains
from data.zoo_tasks import IGNORED_LABEL, HeldOutLoader, SourceTask, TaskLoader, plan_tasks
from model.zoo_families import FAMILIES
from model.zoo_population import ZooPopulation
from storage.files import output_errors, write_atomically
from train.base_trainer import BaseTrainer
from train.schedulers import with_each_step

MOMENTUM = 0.9


class ModelZooTrainer(BaseTrainer):
    """Trains the zoo's networks, those of a family all at once, and writes them with their manifest."""

    config: ModelZooTrainerConfig
    model: ZooPopulation

    def __init__(self) -> None:
        self.config = ConfigParser.get(ModelZooTrainerConfig)
        if self.config.publish and set(self.config.families) != set(FAMILIES):
            raise ConfigError([f"publish = on replaces the whole zoo, so families must be all: {', '.join(FAMILIES)}."])
        self.domains = load_domains(self.config.images)
        plan = plan_tasks(
            self.domains, list(FAMILIES), self.config.epochs, self.config.initialisations, self.config.seed
        )
        self.tasks = [task for task in plan if task.family in self.config.families]
        self.snapshot_epochs = [snapshot_epochs(task.epochs, self.config.snapshots) for task in self.tasks]
        self.model = ZooPopulation(
            families=[task.family for task in self.tasks],
            init_seeds=[task.init_seed for task in self.tasks],
            class_counts=[len(task.classes) for task in self.tasks],
            snapshots=[len(epochs) for epochs in self.snapshot_epochs],
        )
        self.train_loader = TaskLoader(self.tasks, self.domains, self.config.batch_size, self.config.images_per_epoch)
        self.val_loader = HeldOutLoader(self.tasks, self.domains)
        # A parameter group for each network, so that each has a learning rate of its own. At rate 0 SGD neither
        # steps nor decays: a network whose epochs are over stays as it is.
        # The first group's rate is what the history shows: that of a network which trains to the end.
        order = sorted(range(len(self.tasks)), key=lambda number: -self.tasks[number].epochs)
        groups = [{"params": [self.model.vectors[number]]} for number in order]
        self.optimizer = SGD(
            groups,
            lr=self.config.learning_rate,
            momentum=MOMENTUM,
            nesterov=True,
            weight_decay=self.config.weight_decay,
            fused=True,
        )
        steps = math.ceil(len(self.train_loader) / self.config.accumulation_steps)
        factors = [cosine_to_zero(self.tasks[number].epochs * steps) for number in order]
        self.scheduler = with_each_step(LambdaLR(self.optimizer, factors))
        self.init_progress_bar(total=len(self.train_loader) * self.config.epochs, desc="Training the zoo")
        super().__init__()

    def _forward_batch(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the sum over networks of each one's mean cross entropy.

        A sum, since a network's gradient must not depend on how many others are trained beside it.

        Args:
            batch: `networks` (n indices), `images` (n, B, 1, 12, 12), `labels` (n, B); -100 is no label.
        """
        images, labels = batch["images"].to(self.device), batch["labels"].to(self.device)
        logits = self.model(batch["networks"], images)  # (n, B, 10)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none")
        counts = (labels != IGNORED_LABEL).sum(dim=1)  # (n,)
        means = losses.view(labels.shape).sum(dim=1) / counts
        self._collect_batch_metrics(
            {
                "cross_entropy": means.detach().mean(),
                "accuracy": ((logits.argmax(dim=2) == labels).sum(dim=1) / counts).mean(),
            }
        )
        return means.sum()

    def save_checkpoint(self, epoch: int, is_best: bool = False) -> None:
        """Take the snapshots that are due, then save the run. The newest state counts, whatever its validation loss:
        each network is finished when its own epochs are over.
        """
        for number, due in enumerate(self.snapshot_epochs):
            if epoch in due:
                self.model.take_snapshot(number, due.index(epoch))
        # An epoch is short, so not each is worth a checkpoint; a resumed run takes the snapshots since then again.
        if self._validation_is_due(epoch):
            super().save_checkpoint(epoch, is_best=True)

    def after_training(self) -> None:
        """Write the zoo into the run folder, and to `zoo_dir` where `publish` says so."""
        accuracies = self._snapshot_accuracies()
        entries = [self._entry(number, task, accuracies[number]) for number, task in enumerate(self.tasks)]
        folder = self.get_run_file_path("zoo/zoo.yaml").parent
        used = {task.domain for task in self.tasks}
        with output_errors(folder):
            save_zoo(folder, entries, {name: domain.about for name, domain in self.domains.items() if name in used})
        self.results |= _summary(entries)
        for name, value in self.results.items():
            logger.info(f"{name}: {value}")
        if self.config.publish:
            for file in sorted(folder.iterdir()):
                write_atomically(self.config.zoo_dir / file.name, partial(shutil.copyfile, file), setting="zoo_dir")
            logger.info(f"published to {self.config.zoo_dir}")

    @torch.no_grad()
    def _snapshot_accuracies(self) -> list[list[float]]:
        """Measure the snapshots of every network on held-out source images; from 0 to 1."""
        batch = next(iter(self.val_loader))
        images, labels = batch["images"].to(self.device), batch["labels"].to(self.device)
        accuracies: list[list[float]] = [[] for _ in self.tasks]
        for slot in range(max(map(len, self.snapshot_epochs))):
            networks = [number for number, due in enumerate(self.snapshot_epochs) if slot < len(due)]
            vectors = [self.model.snapshots(number)[slot] for number in networks]
            right = (
                self.model(networks, images[networks], vectors).argmax(dim=2) == labels[networks]
            )  # no class is -100
            shares = right.sum(dim=1) / (labels[networks] != IGNORED_LABEL).sum(dim=1)
            for number, share in zip(networks, shares.tolist(), strict=True):
                accuracies[number].append(round(share, 4))
        return accuracies

    def _entry(self, number: int, task: SourceTask, accuracies: list[float]) -> ZooEntry:
        vectors = self.model.snapshots(number).cpu()
        class_names = self.domains[task.domain].class_names
        return ZooEntry(
            name=task.name,
            family=task.family,
            domain=task.domain,
            view=task.view,
            classes=tuple(class_names[index] for index in task.classes),
            class_indices=task.classes,
            epochs=task.epochs,
            label_noise=task.label_noise,
            seed=task.seed,
            init_seed=task.init_seed,
            undertrained=task.undertrained,
            checkpoint_epochs=self.snapshot_epochs[number],
            source_accuracy=tuple(accuracies),
            parameters=vectors.shape[1],
            vectors=vectors,
        )


def cosine_to_zero(total_steps: int) -> Callable[[int], float]:
    """Return the factor of a learning rate that falls along half a cosine from 1 to 0 and stays there."""
    return lambda step: 0.5 * (1 + math.cos(math.pi * step / total_steps)) if step < total_steps else 0.0


def snapshot_epochs(epochs: int, snapshots: int) -> tuple[int, ...]:
    """Spread snapshots over a training, closer together at its beginning, where more happens.

    Args:
        epochs: length of the training.
        snapshots: number of snapshots; a short training has fewer.

    Returns:
        The epochs, counted from 1, after which they are taken, ascending; the last is the end.
    """
    return tuple(sorted({max(1, round(epochs * ((slot + 1) / snapshots) ** 2)) for slot in range(snapshots)}))


def _summary(entries: Sequence[ZooEntry]) -> dict[str, Any]:
    """Average the source accuracy of the finished networks: of all, and of the fully trained by family and domain."""

    def mean(values: Sequence[float]) -> float:
        return round(sum(values) / len(values), 4) if values else float("nan")

    full = [entry for entry in entries if not entry.undertrained]
    summary: dict[str, Any] = {
        "networks": len(entries),
        "accuracy_trained": mean([entry.source_accuracy[-1] for entry in full]),
        "accuracy_undertrained": mean([entry.source_accuracy[-1] for entry in entries if entry.undertrained]),
    }
    for key in ("family", "domain"):
        groups = dict.fromkeys(getattr(entry, key) for entry in full)
        summary[f"accuracy_by_{key}"] = {
            group: mean([entry.source_accuracy[-1] for entry in full if getattr(entry, key) == group])
            for group in groups
        }
    return summary
