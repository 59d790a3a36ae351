"""Measures the ground truth: `python train.py GroundTruthTrainer publish=on`.

Every network of the zoo is fine-tuned, all its weights and a new head, on the training images of every task of the
benchmark, with several seeds, and tested on the task's test images. An epoch is a task: all networks at once, then one
validation, whose accuracies are kept in the model's buffer, so a resumed run still has those of the tasks before.
"""

import math
import shutil
from typing import Any

import numpy as np
import torch
from beautilog import logger
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from config import ConfigError, ConfigParser
from config.ground_truth_trainer_config import GroundTruthTrainerConfig
from constants.counting import counted
from data.benchmark_results import save_results
from data.benchmark_tasks import plan_benchmark
from data.fine_tune_batches import FineTuneLoader, TestImagesLoader
from data.model_zoo import load_zoo
from data.zoo_images import load_domains
from model.fine_tune_population import FineTunePopulation
from storage.files import output_errors, write_atomically
from train.base_trainer import BaseTrainer
from train.callbacks import Callback
from train.schedulers import with_each_step
from train.trainer_protocol import Trainer


class EachTaskAnew(Callback):
    """Lets each task, which is an epoch, begin from the pre-trained weights.

    Args:
        population: the copies that are fine-tuned.
    """

    def __init__(self, population: FineTunePopulation) -> None:
        self._population = population

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Put everything back that the task before has changed."""
        self._population.reset()
        trainer.optimizer.state.clear()  # no momentum from the task before


class GroundTruthTrainer(BaseTrainer):
    """Fine-tunes every network of the zoo on every task of the benchmark and writes the table of accuracies."""

    config: GroundTruthTrainerConfig
    model: FineTunePopulation

    def __init__(self) -> None:
        self.config = ConfigParser.get(GroundTruthTrainerConfig)
        self.zoo = load_zoo(self.config.zoo)
        plan = plan_benchmark(load_domains(self.config.images))
        self.tasks = plan[: self.config.epochs]
        if self.config.publish and len(self.tasks) < len(plan):
            raise ConfigError(
                [f"publish = on needs all {len(plan)} tasks, but epochs = {self.config.epochs}; leave epochs out."]
            )
        self.config.epochs = len(self.tasks)
        copies, steps = self.config.fine_tune_seeds, self.config.fine_tune_steps
        self.model = FineTunePopulation(
            [entry.family for entry in self.zoo], [entry.vector() for entry in self.zoo], copies, len(self.tasks)
        )
        self.train_loader = FineTuneLoader(self.tasks, self.config.batch_size, steps, copies, self.config.seed)
        self.val_loader = TestImagesLoader(self.train_loader)
        self.optimizer = SGD(
            self.model.parameters(), lr=self.config.learning_rate, momentum=0.9, nesterov=True,
            weight_decay=self.config.weight_decay, fused=True,
        )  # fmt: skip
        # Half a cosine for each task.
        self.scheduler = with_each_step(
            LambdaLR(self.optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * (step % steps) / steps)))
        )
        self.init_progress_bar(total=steps * len(self.tasks), desc="Fine-tuning the zoo")
        self.callbacks = [EachTaskAnew(self.model)]
        super().__init__()

    def _forward_batch(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the sum over fine-tunings of each one's mean cross entropy, so that none depends on the others.

        Args:
            batch: dict with `images` (S, B, 1, 12, 12), `labels` (S, B), `classes` (number of classes); of test images
                also `task`, number of the task.
        """
        images, labels = batch["images"].to(self.device), batch["labels"].to(self.device)
        total = torch.zeros((), device=self.device)
        for family, logits in self.model(images).items():
            used = logits[..., : batch["classes"]]  # (n, S, B, C)
            answers = labels.expand(len(used), *labels.shape)
            total = total + F.cross_entropy(used.flatten(0, 2), answers.flatten(), reduction="sum") / labels.shape[1]
            if "task" in batch:
                right = (used.argmax(-1) == answers).float().mean(-1)  # (n, S)
                self.model.accuracies[batch["task"], self.model.members[family]] = right
        metrics = {"cross_entropy": total.detach() / self.model.accuracies[0].numel()}
        if "task" in batch:
            metrics["accuracy"] = self.model.accuracies[batch["task"]].mean()
        self._collect_batch_metrics(metrics)
        return total

    def save_checkpoint(self, epoch: int, is_best: bool = False) -> None:
        """Save the run. The newest state counts, whatever its validation loss: it has the results of most tasks."""
        super().save_checkpoint(epoch, is_best=True)

    def after_training(self) -> None:
        """Write the table into the run folder, and to `performance` where `publish` says so."""
        about = {
            "accuracy": "share of right answers on the task's test images after fine-tuning all weights",
            "seeds": "each with a draw of the training images of its own; the first is the task's",
            "fine_tuning": f"SGD, Nesterov momentum 0.9, learning rate {self.config.learning_rate:g} falling along a "
            f"cosine, weight decay {self.config.weight_decay:g}, {counted(self.config.fine_tune_steps, 'step')} of "
            f"{self.config.batch_size} images, new head that begins at zero",
            "seed": self.config.seed,
            "zoo_digest": self.zoo.digest,
        }
        accuracy = self.model.accuracies.cpu().numpy().astype(np.float64)  # synchronisation
        path = self.get_run_file_path("dataset_model_performance.json")
        with output_errors(path):
            table = save_results(path, [entry.name for entry in self.zoo], self.tasks, accuracy, about)
        self.results |= {
            "tasks": len(table.tasks),
            "dropped": dict(table.dropped),
            "mean_accuracy": round(float(table.mean.mean()), 4),
            "spread_between_networks": round(float(table.mean.std(axis=1).mean()), 4),
            "seed_noise": round(float(table.noise.mean()), 4),
        }
        for name, value in self.results.items():
            logger.info(f"{name}: {value}")
        if self.config.publish:
            write_atomically(
                self.config.performance, lambda target: shutil.copyfile(path, target), setting="performance"
            )
            logger.info(f"published to {self.config.performance}")
