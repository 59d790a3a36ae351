"""A trainer that runs to its end and is wrong, in the ways that its config says; with a train() of its own."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from config import ConfigParser
from config.careless_trainer_config import CarelessTrainerConfig
from data.tensor_loader import TensorLoader
from train.base_trainer import BaseTrainer


class TwoParts(nn.Module):
    """An encoder and a decoder, of which the gradient may reach only the second."""

    def __init__(self, cut: bool) -> None:
        super().__init__()
        self.encoder, self.decoder, self.cut = nn.Linear(6, 12), nn.Linear(12, 3), cut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(x).tanh()
        return self.decoder(hidden.detach() if self.cut else hidden)


class Weighted(nn.Module):
    """A loss with parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(torch.zeros(3))

    def forward(self, output: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return ((output - goal).square() * self.log_weight.exp() - self.log_weight).mean()


class Hidden:
    """A state that nobody finds."""

    __slots__ = ("centre",)

    def __init__(self) -> None:
        self.centre = torch.zeros(3)


class CarelessTrainer(BaseTrainer):
    """Looks well and is not (sample)."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(CarelessTrainerConfig)
        self.faults = self.config.faults
        self.model = TwoParts("cut" in self.faults)
        x = torch.randn(90, 6, generator=torch.Generator().manual_seed(1))
        rows = {"x": x, "y": torch.stack([x[:, 0], x[:, 1] * x[:, 2], x.sum(1)], dim=1)}
        start = 40 if "leak" in self.faults else 60
        self.train_loader = TensorLoader({k: v[:60] for k, v in rows.items()}, self.config.batch_size, shuffle=True)
        self.val_loader = TensorLoader({k: v[start:] for k, v in rows.items()}, self.config.batch_size)
        self.loss_fn = Weighted() if "forgotten" in self.faults else nn.MSELoss()
        self.optimizer = Adam(self.model.parameters(), lr=self.config.learning_rate, maximize="climb" in self.faults)
        self.scheduler = ReduceLROnPlateau(self.optimizer, patience=self.config.lr_patience)
        self.init_progress_bar(total=len(self.train_loader) * self.config.epochs)
        super().__init__()
        self.hidden = Hidden()

    def _forward_batch(self, batch: dict) -> torch.Tensor:
        output = self.model(batch["x"])
        if "hidden_state" not in self.faults:
            return self.loss_fn(output, batch["y"])
        if self.model.training:
            self.hidden.centre = 0.9 * self.hidden.centre + 0.1 * output.detach().mean(0)
        return F.mse_loss(output - self.hidden.centre, batch["y"])

    def train(self) -> None:
        for _ in range(self.config.epochs):
            total = 0.0
            for batch in self.train_loader:
                self.optimizer.zero_grad()
                loss = self._forward_batch(batch)
                loss.backward()
                self.optimizer.step()
                self.update_progress_bar()
                total += loss.item() / len(self.train_loader)
            val_loss = self.validate()
            self.scheduler.step(total if "train_loss" in self.faults else val_loss)
            self.history["train_loss"].append(total)
            self.save_metrics()
            if self.check_early_stopping(val_loss):
                break

    def save_metrics(self) -> None:
        if "no_metrics" not in self.faults:
            super().save_metrics()

    def check_early_stopping(self, val_loss: float) -> bool:
        return super().check_early_stopping(val_loss) and "never_stops" not in self.faults
