"""A trainer with everything random, which sends itself a signal where its config says so."""

import os
import random
import signal
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset

from config import ConfigParser
from config.resumable_trainer_config import ResumableTrainerConfig
from data.loaders import make_loader
from data.tensor_loader import TensorLoader
from train.base_trainer import BaseTrainer
from train.schedulers import warmup_cosine

SAMPLES, VALIDATION = 67, 16
STOPS: dict[str, Any] = {}  # of this process: an attribute of the trainer would go on with a resumed run


class NoisyRows(Dataset):
    """Rows with noise from all three generators."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.rows[index] + 0.1 * (torch.rand(6) + float(np.random.rand()) + random.random())


class ResumableTrainer(BaseTrainer):
    """Dropout, batch norm, noisy data; 67 samples."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(ResumableTrainerConfig)
        self.model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.2), nn.Tanh(), nn.Linear(12, 6))
        rows = torch.randn(SAMPLES + VALIDATION, 6, generator=torch.Generator().manual_seed(1))
        size, workers = self.config.batch_size, self.config.num_workers
        if self.config.loader == "tensors":
            self.train_loader = TensorLoader(rows[:SAMPLES], size, shuffle=True)
        elif self.config.loader == "made":
            self.train_loader = make_loader(NoisyRows(rows[:SAMPLES]), size, shuffle=True, num_workers=workers)
        elif self.config.loader == "own":
            order = torch.Generator().manual_seed(3)
            self.train_loader = DataLoader(
                NoisyRows(rows[:SAMPLES]), size, shuffle=True, num_workers=workers, generator=order,
                persistent_workers=workers > 0,
            )  # fmt: skip
        else:
            self.train_loader = DataLoader(NoisyRows(rows[:SAMPLES]), size, shuffle=True, num_workers=workers)
        self.val_loader = DataLoader(rows[SAMPLES:], size)
        self.optimizer = AdamW(self.model.parameters(), lr=self.config.learning_rate)
        if self.config.schedule == "cosine":
            self.scheduler = warmup_cosine(self.optimizer, warmup_steps=5, total_steps=200)
        else:
            self.scheduler = ReduceLROnPlateau(self.optimizer, patience=0, factor=0.5)
        self.init_progress_bar(total=len(self.train_loader) * self.config.epochs)
        super().__init__()
        # A resumed run has the settings that it began with; but this command's stops are over.
        STOPS.update(batches=0, at=ConfigParser.overrides().get("stop_at", "").split())

    def compute_loss(self, batch: Any) -> torch.Tensor:
        back = self.model(batch)
        self._collect_batch_metrics({"size": back.detach().abs().mean()})
        if self.run_context.in_session:
            STOPS["batches"] += self.model.training
            place = str(STOPS["batches"]) if self.model.training else "val"
            if place in STOPS["at"]:
                STOPS["at"] = []
                os.kill(os.getpid(), getattr(signal, self.config.stop_signal))
        return F.mse_loss(back, batch)
