"""Classifies scikit-learn's digits: `menagerie train Digits`."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from config import ConfigParser
from config.digits_trainer_config import DigitsTrainerConfig
from data.tensor_loader import TensorLoader
from model.digits_classifier import DigitsClassifier
from train.base_trainer import BaseTrainer


class DigitsTrainer(BaseTrainer):
    """Classifies scikit-learn's digits."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(DigitsTrainerConfig)  # 1 config
        self.model = DigitsClassifier(self.config.hidden_dim, self.config.dropout)  # 2 model
        train_data, val_data = _data()
        self.train_loader = TensorLoader(  # 3 loaders
            train_data, self.config.batch_size, shuffle=True, seed=self.config.seed
        )
        self.val_loader = TensorLoader(val_data, self.config.batch_size)
        self.optimizer = Adam(  # 4 optimizer
            self.model.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        self.scheduler = ReduceLROnPlateau(  # 5 scheduler
            self.optimizer, mode="min", factor=self.config.lr_decay_factor, patience=self.config.lr_patience
        )
        self.init_progress_bar(total=len(self.train_loader) * self.config.epochs, desc="Training")  # 6 bar
        super().__init__()  # 7 last

    def _forward_batch(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the mean loss of a batch.

        Args:
            batch: images (B, 64), pixels from 0 to 1, and labels (B,) from 0 to 9.
        """
        images, labels = batch["images"].to(self.device), batch["labels"].to(self.device)
        logits = self.model(images)
        self._collect_batch_metrics({"accuracy": (logits.argmax(1) == labels).float().mean()})
        return F.cross_entropy(logits, labels)


def _data() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return 1,400 digits to learn from and the other 397 to validate with."""
    digits = load_digits()
    images = torch.tensor(digits.data / 16.0, dtype=torch.float32)  # (1797, 64)
    labels = torch.tensor(digits.target)  # (1797,)
    return (
        {"images": images[:1400], "labels": labels[:1400]},
        {"images": images[1400:], "labels": labels[1400:]},
    )
