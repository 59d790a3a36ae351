"""Trains the zoo: `python train.py ModelZooTrainer publish=on` makes data/zoo/ anew."""

import math
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import torch
from beautilog import logger
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from config import ConfigError, ConfigParser
from config.model_zoo_trainer_config import ModelZooTrainerConfig
from data.model_zoo import ZooEntry, save_zoo
from data.zoo_images import load_domains
from data.zoo_tasks import IGNORED_LABEL, HeldOutLoader, SourceTask, TaskLoader, plan_tasks
from model.zoo_families import FAMILIES
from model.zoo_population import ZooPopulation
from train.base_trainer import BaseTrainer
from train.files import output_errors, write_atomically


class ModelZooTrainer(BaseTrainer):
    """Trains the zoo's networks, those of a family all at once, and writes them with their manifest."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(ModelZooTrainerConfig)
        if self.config.publish and set(self.config.families) != set(FAMILIES):
            raise ConfigError([f"publish = on replaces the whole zoo, so families must be all: {', '.join(FAMILIES)}."])
        self.domains = load_domains(self.config.images)
        plan = plan_tasks(
            self.domains, list(FAMILIES), self.config.epochs, self.config.initialisations, self.config.seed
        )
        self.tasks = [task for task in plan if task.family in self.config.families]
        self.model = ZooPopulation(
            families=[task.family for task in self.tasks],
            init_seeds=[task.init_seed for task in self.tasks],
            class_counts=[len(task.classes) for task in self.tasks],
            snapshots=self.config.snapshots,
        )
        self.train_loader = TaskLoader(self.tasks, self.domains, self.config.batch_size, self.config.images_per_epoch)
        self.val_loader = HeldOutLoader(self.tasks, self.domains)
        # A parameter group for each network, so that each has a learning rate of its own. At rate 0 AdamW neither
        # steps nor decays: a network whose epochs are over stays as it is.
        groups = [{"params": [vector]} for vector in self.model.vectors]
        self.optimizer = AdamW(groups, lr=self.config.learning_rate, weight_decay=self.config.weight_decay, fused=True)
        steps = math.ceil(len(self.train_loader) / self.config.accumulation_steps)
        self.scheduler = LambdaLR(self.optimizer, [cosine_to_zero(task.epochs * steps) for task in self.tasks])
        self.scheduler.interval = "step"
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
        for number, task in enumerate(self.tasks):
            for slot, due in enumerate(snapshot_epochs(task.epochs, self.config.snapshots)):
                if due == epoch:
                    self.model.take_snapshot(number, slot)
        super().save_checkpoint(epoch, is_best=True)

    def after_training(self) -> None:
        """Write the zoo into the run folder, and to `zoo_dir` where `publish` says so."""
        accuracies = self._snapshot_accuracies()
        entries = [self._entry(number, task, accuracies[number].tolist()) for number, task in enumerate(self.tasks)]
        folder = self.get_run_file_path("zoo/zoo.yaml").parent
        used = {task.domain for task in self.tasks}
        with output_errors(folder):
            save_zoo(folder, entries, {name: domain.about for name, domain in self.domains.items() if name in used})
        self.results |= _summary(entries)
        for name, value in self.results.items():
            logger.info(f"{name}: {value}")
        if self.config.publish:
            for file in sorted(folder.iterdir()):
                write_atomically(self.config.zoo_dir / file.name, lambda path, file=file: shutil.copyfile(file, path))
            logger.info(f"published to {self.config.zoo_dir}")

    @torch.no_grad()
    def _snapshot_accuracies(self) -> torch.Tensor:
        """Measure every snapshot on held-out source images: (networks, snapshots), from 0 to 1."""
        batch = next(iter(self.val_loader))
        images, labels = batch["images"].to(self.device), batch["labels"].to(self.device)
        columns = []
        for slot in range(self.config.snapshots):
            vectors = [self.model.snapshots(network)[slot] for network in batch["networks"]]
            right = self.model(batch["networks"], images, vectors).argmax(dim=2) == labels  # no class is -100
            columns.append(right.sum(dim=1) / (labels != IGNORED_LABEL).sum(dim=1))
        return torch.stack(columns, dim=1).cpu()

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
            checkpoint_epochs=snapshot_epochs(task.epochs, self.config.snapshots),
            source_accuracy=tuple(round(accuracy, 4) for accuracy in accuracies),
            parameters=vectors.shape[1],
            vectors=vectors,
        )


def cosine_to_zero(total_steps: int) -> Callable[[int], float]:
    """Return the factor of a learning rate that falls along half a cosine from 1 to 0 and stays there."""
    return lambda step: 0.5 * (1 + math.cos(math.pi * step / total_steps)) if step < total_steps else 0.0


def snapshot_epochs(epochs: int, snapshots: int) -> tuple[int, ...]:
    """Spread snapshots evenly over a training; the last is its end. A short training has the same one several times.

    Args:
        epochs: its length.
        snapshots: how many.

    Returns:
        The epochs, counted from 1, after which they are taken.
    """
    return tuple(max(1, round(epochs * (slot + 1) / snapshots)) for slot in range(snapshots))


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
