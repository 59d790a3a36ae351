"""The trainer of the contract, loss function form, pattern A."""

import torch
import torch.nn.functional as F
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from config import ConfigParser
from config.feature_fusion_trainer_config import FeatureFusionTrainerConfig
from model.feature_fusion_model import FeatureFusionModel
from train.base_trainer import BaseTrainer


def vectors(count: int, seed: int) -> torch.Tensor:
    """Vectors of rank 3, which an autoencoder can learn."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    return torch.randn(count, 3, generator=generator) @ basis


class FeatureFusionTrainer(BaseTrainer):
    """Fuses features (sample)."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(FeatureFusionTrainerConfig)
        self.model = FeatureFusionModel(self.config.hidden_dim, self.config.dropout)
        self.train_loader = DataLoader(
            vectors(100, 1),
            batch_size=self.config.batch_size,
            shuffle=True,
            pin_memory=True,
            num_workers=self.config.num_workers,
        )
        self.val_loader = DataLoader(vectors(30, 2), batch_size=self.config.batch_size)
        self.optimizer = Adam(
            self.model.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        self.scheduler = ReduceLROnPlateau(
            self.optimizer, mode="min", factor=self.config.lr_decay_factor, patience=self.config.lr_patience
        )
        self.init_progress_bar(total=len(self.train_loader) * self.config.epochs, desc="Training")
        super().__init__()
        self.best_val_loss = float("inf")

    def compute_loss(self, batch: torch.Tensor) -> torch.Tensor:
        batch = batch.to(self.device)
        return F.mse_loss(self.model(batch), batch)
