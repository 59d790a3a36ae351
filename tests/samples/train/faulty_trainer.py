"""A trainer that breaks in one chosen way."""

import itertools
import os
import signal
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset

from config import ConfigParser
from config.faulty_trainer_config import FaultyTrainerConfig
from model.feature_fusion_model import FeatureFusionModel
from train.base_trainer import BaseTrainer
from train.schedulers import warmup_cosine

_CALLS = itertools.count()


class Vectors(Dataset):
    """Samples of 16 numbers, or of 9 where that is the fault."""

    def __init__(self, count: int, fault: str) -> None:
        self.count, self.fault = count, fault

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.fault == "bad_item":
            raise OSError(f"image {index} is truncated")
        return torch.full((9 if self.fault == "wrong_shape" else 16,), float(index % 7))


class FaultyTrainer(BaseTrainer):
    """Breaks in one chosen way (sample)."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(FaultyTrainerConfig)
        fault = self.config.fault
        self.model = FeatureFusionModel(8)
        if fault == "missing_file":
            Path("/nowhere/data.bin").read_bytes()
        train = Vectors(0 if fault == "empty_train" else 40, fault)
        self.train_loader = DataLoader(
            train, batch_size=64 if fault == "drops_all" else 8, shuffle=True, drop_last=fault == "drops_all"
        )
        self.val_loader = DataLoader(Vectors(0 if fault == "empty_val" else 10, "none"), batch_size=8)
        self.optimizer = SGD(self.model.parameters(), lr=self.config.learning_rate)
        if fault != "no_parts":
            self.scheduler = StepLR(self.optimizer, 1, gamma=0.5)
            self.init_progress_bar(total=5 * self.config.epochs)
        if fault == "step_scheduler":
            self.scheduler = warmup_cosine(self.optimizer, warmup_steps=5, total_steps=5 * self.config.epochs)
        if fault != "no_super":
            super().__init__()

    def compute_loss(self, batch: torch.Tensor) -> torch.Tensor:
        fault = self.config.fault
        output = self.model(batch)
        error = (output - batch).square()
        if fault == "vector_loss":
            return error.mean(1)
        if fault == "float_loss":
            return error.mean().item()
        if fault == "no_gradient":
            return error.mean().detach()
        if fault == "bug_in_loss" and self.model.training and next(_CALLS) >= 3:  # not at the first check
            return self.no_such_attribute
        if fault == "interrupt" and self.model.training and self.record.progress.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)
        broken = {"nan_loss": self.model.training, "val_nan": not self.model.training}.get(fault, False)
        loss = F.mse_loss(output, batch)
        return loss * float("nan") if broken and self.record.progress.epoch >= 2 else loss
