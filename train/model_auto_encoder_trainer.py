"""Learns model tokens: `python train.py ModelAutoEncoderTrainer`.

Two objectives, each in a file of `train/tokens/`: `reconstruction` of the weights of the zoo's networks, and
`properties` of the networks of a population.
"""

from typing import Any

import torch

from config import ConfigParser
from config.model_auto_encoder_trainer_config import ModelAutoEncoderTrainerConfig
from train.base_trainer import BaseTrainer
from train.tokens.population import open_population
from train.tokens.property_objective import PropertyObjective
from train.tokens.reconstruction_objective import ReconstructionObjective


class ModelAutoEncoderTrainer(BaseTrainer):
    """Learns model tokens from networks' parameters: to give them back, or to tell what the networks are worth."""

    config: ModelAutoEncoderTrainerConfig

    def __init__(self) -> None:
        self.config = ConfigParser.get(ModelAutoEncoderTrainerConfig)
        if self.config.objective == "properties":
            population = open_population(self.config.population, self.config.networks)
            self.objective: PropertyObjective | ReconstructionObjective = PropertyObjective(self.config, population)
        else:
            self.objective = ReconstructionObjective(self.config)
        self.model = self.objective.model
        self.train_loader, self.val_loader = self.objective.train_loader, self.objective.val_loader
        self.optimizer, self.scheduler = self.objective.optimizer, self.objective.scheduler
        self.init_progress_bar(total=len(self.train_loader) * self.config.epochs, desc="Training the autoencoder")
        super().__init__()

    def _forward_batch(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the loss of the objective; its metrics are collected.

        Args:
            batch: see the objective's `loss`.
        """
        loss, metrics = self.objective.loss(batch, self.device)
        self._collect_batch_metrics(metrics)
        return loss

    def after_training(self) -> None:
        """Write every network's model tokens; report on the held-out networks what they know."""
        self.model.eval()
        self.objective.finish(self.device)
        self.save_model()  # with what standardises the tokens
        self.results |= self.objective.report(self.device, self.get_run_file_path)
