"""A trainer whose numbers go wrong in the way and at the step that its config says."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from config import ConfigParser
from config.unstable_trainer_config import UnstableTrainerConfig
from data.tensor_loader import TensorLoader
from train.base_trainer import BaseTrainer

BAD_SAMPLE, SAMPLES, VALIDATION = 29, 48, 24


class Logarithm(nn.Module):
    """Of what is below 0 too, where it is unsafe."""

    unsafe = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 5, x.neg().log(), x) if self.unsafe else x


class UnstableTrainer(BaseTrainer):
    """Goes wrong at one sample (sample)."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(UnstableTrainerConfig)
        width, trouble = self.config.width, self.config.trouble
        middle = [layer for _ in range(self.config.layers) for layer in (nn.Linear(width, width), nn.Tanh())]
        self.model = nn.Sequential(
            Logarithm(), *middle, nn.Dropout(0.2), nn.BatchNorm1d(width), nn.Linear(width, width)
        )
        self.model[0].unsafe = trouble == "layer"
        rows = torch.randn(SAMPLES + VALIDATION, width, generator=torch.Generator().manual_seed(1))
        rows[BAD_SAMPLE] = 6.0  # more than any other
        if trouble == "sample":
            rows[BAD_SAMPLE, 0] = math.nan
        if trouble == "validation":
            rows[SAMPLES + 11] = math.nan
        size = self.config.batch_size
        if self.config.loader == "tensors":
            self.train_loader = TensorLoader(rows[:SAMPLES], size, shuffle=True)
        else:
            self.train_loader = DataLoader(TensorDataset(rows[:SAMPLES]), size, shuffle=True)
        self.val_loader = DataLoader(TensorDataset(rows[SAMPLES:]), size)
        self.optimizer = Adam(self.model.parameters(), lr=self.config.learning_rate)
        self.scheduler = ReduceLROnPlateau(self.optimizer)
        self.init_progress_bar(total=len(self.train_loader) * self.config.epochs)
        super().__init__()

    def compute_loss(self, batch: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
        x = (batch if isinstance(batch, torch.Tensor) else batch[0]).to(self.device)
        loss = F.mse_loss(self.model(x), x)
        return loss + (5.5 - x.max()).sqrt() if self.config.trouble == "loss" and self.model.training else loss
