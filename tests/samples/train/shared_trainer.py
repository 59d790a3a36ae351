"""A trainer for several processes, in one of which something may happen."""

import os
import signal
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from config import ConfigParser
from config.shared_trainer_config import SharedTrainerConfig
from data.loaders import make_loader
from data.tensor_loader import TensorLoader
from train.base_trainer import BaseTrainer


class Block(nn.Module):
    """A residual layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(self.layer(x))


class Coder(nn.Module):
    """Encodes and decodes; a trainer calls both, and never `forward`."""

    def __init__(self, config: SharedTrainerConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 16)
        self.norm = nn.BatchNorm1d(16) if config.batch_norm else nn.Identity()
        self.blocks = nn.ModuleList([Block(16) for _ in range(3)])
        self.drop = nn.Dropout(config.dropout)
        self.outer = nn.Linear(16, 6)
        self.tied = nn.Parameter(torch.zeros(6))
        if config.unused:
            self.spare = nn.Linear(4, 4)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the code."""
        hidden = self.norm(torch.tanh(self.inner(x)))
        for block in self.blocks:
            hidden = block(hidden)
        return self.drop(hidden)

    def decode(self, code: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction."""
        return self.outer(code) + self.tied


class Weighing(nn.Module):
    """A loss with parameters: what each column counts (Kendall et al. 2018, equation 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.Parameter(torch.zeros(6))  # log of the variance

    def forward(self, errors: torch.Tensor) -> torch.Tensor:
        return errors * torch.exp(-self.spread) + self.spread


class SharedTrainer(BaseTrainer):
    """Weighted reconstruction; 26 samples in batches of 5, so the last batch is of one."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(SharedTrainerConfig)
        kind = torch.float64 if self.config.double else torch.float32
        self.model, self.weighing = Coder(self.config).to(kind), Weighing().to(kind)
        count, size = self.config.samples, self.config.batch_size
        rows = torch.randn(count + 7, 6, generator=torch.Generator().manual_seed(1), dtype=kind)
        if self.config.event == "nan":
            rows[self.config.event_batch] = torch.nan
        marks = torch.rand(count + 7, 6, generator=torch.Generator().manual_seed(2)) < 0.6
        if self.config.loader == "tensors":
            data = {"rows": rows[:count], "marks": marks[:count]}
            self.train_loader = TensorLoader(data, size, shuffle=True, seed=self.config.seed)
        else:
            data = TensorDataset(rows[:count], marks[:count])
            workers = self.config.num_workers
            if self.config.loader == "made":
                self.train_loader = make_loader(data, size, shuffle=True, num_workers=workers)
            else:
                self.train_loader = DataLoader(data, size, shuffle=True, num_workers=workers)
        self.val_loader = DataLoader(TensorDataset(rows[count:], marks[count:]), size)
        updated = [*self.model.parameters(), *self.weighing.parameters()]
        self.optimizer = AdamW(updated, lr=self.config.learning_rate)
        self.scheduler = ReduceLROnPlateau(self.optimizer, patience=0, factor=0.5)
        self.init_progress_bar(total=len(self.train_loader) * self.config.epochs)
        super().__init__()
        self.batches = 0
        self.again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"

    def _forward_batch(self, batch: Any) -> torch.Tensor:
        rows, marks = (batch["rows"], batch["marks"]) if isinstance(batch, dict) else batch
        loss = self.weighing((self.model.decode(self.model.encode(rows)) - rows).square())
        if self.run_context.in_session and self.model.training:
            self.batches += 1
            rank = self.run_context.process_group.rank
            if self.batches == self.config.event_batch and rank == self.config.event_rank:
                loss = self._event(loss)
        self._collect_batch_metrics({"size": rows.abs().mean()})
        if not self.config.counted:
            return loss.mean()
        self._set_loss_count(marks.sum())
        return (loss * marks).sum() / marks.sum().clamp(min=1)

    def after_training(self) -> None:
        """Use the model outside of the loss function, also after it was written once more."""
        self.save_model()
        rows = torch.cat([rows for rows, _ in self.val_loader])
        with torch.no_grad():
            self.results["code"] = float(self.model.encode(rows).square().mean())

    def _event(self, loss: torch.Tensor) -> torch.Tensor:
        if self.config.event == "kill" and not self.again:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.config.event == "stop":
            os.kill(os.getpid(), signal.SIGTERM)
        if self.config.event == "raise":
            raise ValueError("this process only")
        return loss + torch.nan if self.config.event == "nan_loss" else loss
