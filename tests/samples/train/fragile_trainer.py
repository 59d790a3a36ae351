"""A trainer whose data breaks, or stops the run, at a sample of the second epoch."""

import os
import signal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset

from config import ConfigParser
from config.fragile_trainer_config import FragileTrainerConfig
from data.loaders import make_loader
from train.base_trainer import BaseTrainer

SAMPLES = 67  # in each of the two datasets


class FragileRows(Dataset):
    """Rows with noise; one breaks once `armed` is set."""

    def __init__(self, config: FragileTrainerConfig, role: str) -> None:
        self.rows = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(len(role)))
        # A resumed run has the settings that it began with; but only the process that is asked to has a fault.
        self.fault = config.fault if config.fault_in == role and "fault" in ConfigParser.overrides() else "none"
        self.at, self.number, self.main = config.fault_at, getattr(signal, config.stop_signal), os.getpid()
        self.armed = torch.zeros(()).share_memory_()  # workers that live on see it too

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.at and self.armed:
            self.break_down()
        return self.rows[index] + 0.1 * (torch.rand(6) + float(np.random.rand()))

    def break_down(self) -> None:
        """Do what the config says."""
        if self.fault == "error":
            raise ValueError("bad header")
        if self.fault == "stop":
            raise StopIteration("no more frames")
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "exit":
            os._exit(7)
        if self.fault == "signal_group":
            os.killpg(os.getpgid(0), self.number)
        if self.fault == "kill_main":
            os.kill(self.main, signal.SIGKILL)


class FragileTrainer(BaseTrainer):
    """Trains well for one epoch (sample)."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(FragileTrainerConfig)
        self.model = nn.Sequential(nn.Linear(6, 12), nn.Dropout(0.2), nn.Tanh(), nn.Linear(12, 6))
        make, workers = make_loader if self.config.loader == "made" else DataLoader, self.config.num_workers
        train, val = FragileRows(self.config, "train"), FragileRows(self.config, "val")
        self.train_loader = make(train, self.config.batch_size, shuffle=True, num_workers=workers)
        self.val_loader = make(val, self.config.batch_size, num_workers=workers)
        self.optimizer = AdamW(self.model.parameters(), lr=self.config.learning_rate)
        self.scheduler = ReduceLROnPlateau(self.optimizer, patience=0)
        self.init_progress_bar(total=len(self.train_loader) * self.config.epochs)
        super().__init__()

    def compute_loss(self, batch: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(self.model(batch), batch)

    def save_checkpoint(self, epoch: int, is_best: bool = False) -> None:
        super().save_checkpoint(epoch, is_best)
        for loader in (self.train_loader, self.val_loader):
            loader.dataset.armed.fill_(1)
