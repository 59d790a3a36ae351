"""A trainer with a train() of its own, in several forms."""

import os
import signal
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader

from config import ConfigParser
from config.looped_trainer_config import LoopedTrainerConfig
from train.base_trainer import BaseTrainer


class LoopedTrainer(BaseTrainer):
    """Codes of noisy rows in a loop of its own (sample)."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(LoopedTrainerConfig)
        self.model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.2), nn.Tanh(), nn.Linear(12, 6))
        rows = torch.randn(83, 6, generator=torch.Generator().manual_seed(1))
        self.train_loader = DataLoader(rows[:67], self.config.batch_size, shuffle=True)
        self.val_loader = DataLoader(rows[67:], self.config.batch_size)
        self.optimizer = Adam(self.model.parameters(), lr=self.config.learning_rate)
        self.scheduler = StepLR(self.optimizer, step_size=2, gamma=0.5)
        self.init_progress_bar(total=len(self.train_loader) * self.config.epochs)
        super().__init__()
        self.batches = 0

    def compute_loss(self, batch: torch.Tensor) -> torch.Tensor:
        loss = F.mse_loss(self.model(batch), batch)
        if self.model.training and self.config.fault == "nan" and self.record.progress.epoch == 1:
            return loss * float("nan")
        return loss

    def train(self) -> None:
        getattr(self, f"train_{self.config.form}")()

    def train_short(self) -> None:
        for _ in self.epochs(step_scheduler=True):
            self.steps()

    def train_full(self) -> None:
        """With all that may be in the body."""
        for epoch in self.epochs():
            assert epoch == self.record.progress.epoch + 1
            self.steps()
            val_loss = self.validate()
            self.scheduler.step()
            self.save_metrics()
            self.save_checkpoint(epoch)
            if self.check_early_stopping(val_loss):
                break

    def train_break(self) -> None:
        """Leaves the loop by itself, after three epochs."""
        for epoch in self.epochs(step_scheduler=True):
            self.steps()
            if epoch == 3:
                break

    def train_plain(self, saves: bool = False) -> None:
        for epoch in range(self.config.epochs):
            self.steps()
            val_loss = self.validate()
            self.scheduler.step()
            self.save_metrics()
            if saves:
                self.save_checkpoint(epoch + 1)
            if self.check_early_stopping(val_loss):
                break

    def train_plain_saving(self) -> None:
        self.train_plain(saves=True)

    def train_super(self) -> None:
        super().train()

    def steps(self) -> None:
        """Train on each batch once."""
        for batch in self.train_loader:
            self.optimizer.zero_grad()
            self._forward_batch(batch).backward()
            if self.config.fault == "zeroed":
                nn.utils.clip_grad_norm_(self.model.parameters(), 0)
            self.clip_gradients()
            self.optimizer.step()
            self.batches += 1
            self.stop_here(str(self.batches))

    def after_training(self) -> None:
        self.stop_here("after")

    def stop_here(self, place: str) -> None:
        if place == ConfigParser.overrides().get("stop_at"):  # not where a resumed run has it from before
            os.kill(os.getpid(), getattr(signal, self.config.stop_signal))

    def save_checkpoint(self, *given: Any, **named: Any) -> None:
        if self.config.fault != "unsaved":
            super().save_checkpoint(*given, **named)
