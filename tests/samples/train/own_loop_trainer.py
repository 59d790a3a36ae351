"""The trainer of the contract, pattern B (dict batches, metrics), with a train() of its own."""

import torch
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset

from config import ConfigParser
from config.own_loop_trainer_config import OwnLoopTrainerConfig
from train.base_trainer import BaseTrainer


class Lists(Dataset):
    """Lists of 5 models to rank for a dataset of 4 tokens."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.models = torch.randn(count, 5, 8, generator=generator)
        self.datasets = torch.randn(count, 4, 8, generator=generator)
        self.best = (self.models @ self.datasets.mean(1, keepdim=True).mT).squeeze(-1).argmax(1)

    def __len__(self) -> int:
        return len(self.models)

    def __getitem__(self, index: int) -> dict:
        return {
            "model_tokens": self.models[index], "dataset_tokens": self.datasets[index], "true_ranks": self.best[index]
        }  # fmt: skip


class Scorer(nn.Module):
    """Scores models by a bilinear form."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.of_model, self.of_dataset = nn.Linear(8, hidden_dim), nn.Linear(8, hidden_dim)

    def forward(self, models: torch.Tensor, datasets: torch.Tensor) -> torch.Tensor:  # -> (B, 5)
        return (self.of_model(models) @ self.of_dataset(datasets.mean(1, keepdim=True)).mT).squeeze(-1)


class OwnLoopTrainer(BaseTrainer):
    """Ranks in a loop of its own (sample)."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(OwnLoopTrainerConfig)
        self.model = Scorer(self.config.hidden_dim)
        self.train_loader = DataLoader(Lists(70, 1), batch_size=self.config.batch_size, shuffle=True)
        self.val_loader = DataLoader(Lists(50, 2), batch_size=self.config.batch_size)
        self.optimizer = Adam(self.model.parameters(), lr=self.config.learning_rate)
        self.scheduler = ReduceLROnPlateau(self.optimizer, mode="min", factor=self.config.lr_decay_factor, patience=1)
        self.init_progress_bar(total=len(self.train_loader) * self.config.epochs, desc="Training")
        super().__init__()
        self.loss_fn = nn.CrossEntropyLoss()  # own state may come after

    def _forward_batch(self, batch: dict) -> torch.Tensor:
        tokens, ranks = batch["model_tokens"].to(self.device), batch["true_ranks"].to(self.device)
        scores = self.model(tokens, batch["dataset_tokens"].to(self.device))
        self._collect_batch_metrics({"top1": (scores.argmax(1) == ranks).float().mean()})
        return self.loss_fn(scores, ranks)

    def train(self) -> None:
        for _ in range(self.config.epochs):
            self.model.train()
            total = 0.0
            for batch in self.train_loader:
                self.optimizer.zero_grad()
                loss = self._forward_batch(batch)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip_value)
                self.optimizer.step()
                self.update_progress_bar()
                total += loss.item() * len(batch["true_ranks"])
            val_loss = self.validate()
            self.scheduler.step(val_loss)
            self.history["train_loss"].append(total / len(self.train_loader.dataset))
            self.save_metrics()
            if self.check_early_stopping(val_loss):
                break
