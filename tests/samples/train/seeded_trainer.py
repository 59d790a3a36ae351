"""A trainer in which nearly all depends on the seed: initial weights, data order, dropout, when it stops."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau

from config import ConfigParser
from config.seeded_trainer_config import SeededTrainerConfig
from data.tensor_loader import TensorLoader
from train.base_trainer import BaseTrainer

SAMPLES, VALIDATION = 45, 20


class SeededTrainer(BaseTrainer):
    """Dropout, a metric, clipping that bites, a plateau; the last batch is short (sample)."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(SeededTrainerConfig)
        self.model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 2))
        dtype = torch.float64 if self.config.double else torch.float32
        self.model.to(dtype)
        x = torch.randn(SAMPLES + VALIDATION, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
        y = torch.sin(x[:, :2] * x[:, 2:4]) + 0.3 * x[:, 4:]
        train = x[:SAMPLES].clone()
        if self.config.seed == self.config.bad_seed:
            train[17, 3] = math.nan
        size, seed = self.config.batch_size, self.config.seed
        self.train_loader = TensorLoader({"x": train, "y": y[:SAMPLES]}, size, shuffle=True, seed=seed)
        self.val_loader = TensorLoader({"x": x[SAMPLES:], "y": y[SAMPLES:]}, size)
        self.optimizer = AdamW(self.model.parameters(), lr=self.config.learning_rate, weight_decay=0.05)
        self.scheduler = ReduceLROnPlateau(self.optimizer, factor=0.5, patience=0)
        self.init_progress_bar(total=len(self.train_loader) * self.config.epochs)
        super().__init__()

    def _forward_batch(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        x, y = batch["x"].to(self.device), batch["y"].to(self.device)
        found = self.model(x)
        self._collect_batch_metrics({"error": (found.detach() - y).abs().mean()})
        return F.mse_loss(found, y)
