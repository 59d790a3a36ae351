"""Trains a population of small networks in many ways: `python train.py NetworkPopulationTrainer`.

They are what `ModelAutoEncoderTrainer` learns from: 3,000 networks, some 16 minutes of processor time. An epoch is a
cohort of one family, trained and tested at once; results are kept in the model's buffers, so a resumed run has those of
before.
"""

import shutil
from functools import partial
from typing import Any

import torch
from beautilog import logger
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from config import ConfigParser
from config.network_population_trainer_config import NetworkPopulationTrainerConfig
from data.network_population import (
    FIXED_IMAGES,
    MANIFEST_NAME,
    TABLE,
    WEIGHTS_NAME,
    PopulationRecipe,
    fixed_images,
    plan_population,
    save_population,
)
from data.population_loader import CohortLoader, CohortTestLoader, cohorts_of
from data.zoo_images import load_domains
from data.zoo_tasks import IGNORED_LABEL, to_input
from model.network_cohort import NetworkCohort
from storage.files import output_errors, write_atomically
from train.base_trainer import BaseTrainer
from train.callbacks import Callback
from train.schedulers import with_each_step
from train.trainer_protocol import Trainer


class EachCohortAnew(Callback):
    """Lets each cohort, which is an epoch, begin at its own initial weights.

    Args:
        cohort: the networks that are trained.
        loader: loader that knows how each is trained.
    """

    def __init__(self, cohort: NetworkCohort, loader: CohortLoader) -> None:
        self._cohort, self._loader = cohort, loader

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Put the cohort's initial weights in place."""
        self._loader.set_epoch(epoch - 1)
        members = self._loader.members()
        self._cohort.begin(
            members[0].family, [each.init_seed for each in members], [each.init_scale for each in members]
        )
        trainer.optimizer.state.clear()  # no momentum from the cohort before


class NetworkPopulationTrainer(BaseTrainer):
    """Trains many small networks of all families, each in its own way, and writes them with what is known of each."""

    config: NetworkPopulationTrainerConfig
    model: NetworkCohort

    def __init__(self) -> None:
        self.config = ConfigParser.get(NetworkPopulationTrainerConfig)
        config = self.config
        self.recipe = PopulationRecipe(
            networks=config.networks,
            steps=(config.fewest_steps, config.most_steps),
            learning_rate=(config.lowest_rate, config.learning_rate),
            batch_size=config.batch_size,
            seed=config.seed,
        )
        domains = load_domains(config.images)
        self.planned = plan_population(domains, self.recipe)
        cohorts = cohorts_of(self.planned, config.cohort)
        config.epochs = len(cohorts)
        self.model = NetworkCohort(max(map(len, cohorts)), len(self.planned), len(TABLE), FIXED_IMAGES)
        self.train_loader = CohortLoader(self.planned, cohorts, domains, config.batch_size, config.most_steps)
        self.val_loader = CohortTestLoader(self.train_loader)
        self.fixed_images = to_input(fixed_images(domains))
        # Rates and decays are of each network: see NetworkCohort.training_logits.
        self.optimizer = SGD(self.model.parameters(), lr=1.0, momentum=0.9, nesterov=True, fused=True)
        self.scheduler = with_each_step(LambdaLR(self.optimizer, lambda step: 1.0))
        self.init_progress_bar(total=config.most_steps * len(cohorts), desc="Training the population")
        self.callbacks = [EachCohortAnew(self.model, self.train_loader)]
        super().__init__()

    def _forward_batch(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the sum over networks of each one's mean cross entropy, so that none depends on the others.

        Args:
            batch: `family`, `images` (n, B, 1, 12, 12), `labels` (n, B), `rates` (n,), `decays` (n,) of the n networks
                still in training. For the test: `family`, `networks` (n,), and `train` and `test`, each images
                (n, M, 12, 12) uint8 and labels (n, M), -100 where there is none.
        """
        if "networks" in batch:
            return self._measure(batch)
        images, labels = batch["images"].to(self.device), batch["labels"].to(self.device)
        rates, decays = batch["rates"].to(self.device), batch["decays"].to(self.device)
        logits = self.model.training_logits(batch["family"], images, rates, decays)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return losses.sum() / labels.shape[1]

    def _measure(self, batch: dict[str, Any]) -> torch.Tensor:
        """Keep the results of the cohort that was trained; return its sum of cross entropies on the test images."""
        networks, family = batch["networks"].to(self.device), batch["family"]
        total = torch.zeros((), device=self.device)
        for column, name in enumerate(TABLE):
            images, labels = (part.to(self.device) for part in batch[name.partition("_")[0]])
            logits = self.model.logits(family, to_input(images))
            known = labels != IGNORED_LABEL
            right = ((logits.argmax(dim=2) == labels) & known).sum(dim=1) / known.sum(dim=1)
            self.model.results[networks, column] = right
            self._collect_batch_metrics({name: right.mean()})
            if name == "test_accuracy":
                losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
                total = (losses.view(labels.shape).sum(dim=1) / known.sum(dim=1)).sum()
        shown = self.fixed_images.to(self.device).expand(len(networks), *self.fixed_images.shape)
        self.model.outputs[networks] = self.model.logits(family, shown).half()
        self.model.final[networks] = self.model.vectors[: len(networks)].half()
        return total

    def save_checkpoint(self, epoch: int, is_best: bool = False) -> None:
        """Save the run. The newest state counts, whatever its validation loss: it has the results of most cohorts."""
        super().save_checkpoint(epoch, is_best=True)

    def after_training(self) -> None:
        """Write the population into the run folder, and to `population` where `publish` says so."""
        folder = self.get_run_file_path(f"population/{MANIFEST_NAME}").parent
        results = self.model.results.double().cpu().numpy()  # synchronisation
        table = {name: results[:, column] for column, name in enumerate(TABLE)}
        with output_errors(folder):
            save_population(
                folder, self.recipe, self.config.images, self.model.final.cpu(), self.model.outputs.cpu(), table
            )
        self.results |= {"networks": len(self.planned)}
        for name, values in table.items():
            self.results |= {name: round(float(values.mean()), 4), f"{name}_spread": round(float(values.std()), 4)}
        for name, value in self.results.items():
            logger.info(f"{name}: {value}")
        if self.config.publish:
            for name in (WEIGHTS_NAME, MANIFEST_NAME):  # what names the other comes last
                target = self.config.population / name
                write_atomically(target, partial(shutil.copyfile, folder / name), setting="population")
            logger.info(f"published to {self.config.population}")
