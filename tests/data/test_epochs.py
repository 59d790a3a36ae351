"""The number of the epoch reaches loaders, samplers and datasets, each once an epoch, in every kind of loop."""

import json

import pytest

CONFIG = '''"""Settings."""

from dataclasses import dataclass

from config.base_trainer_config import BaseTrainerConfig


@dataclass
class ToldTrainerConfig(BaseTrainerConfig):
    """Settings."""

    loop: str = "base"
    """Which loop trains."""
'''
TRAINER = '''"""Notes which epochs its data is told."""

import json

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import (
    BatchSampler, ConcatDataset, DataLoader, Dataset, DistributedSampler, IterableDataset, RandomSampler, Subset,
)

from config import ConfigParser
from config.told_trainer_config import ToldTrainerConfig
from data.loaders import make_loader
from train.base_trainer import BaseTrainer

X = torch.arange(48, dtype=torch.float32)[:, None].expand(48, 4).contiguous()
TOLD: dict[str, list[int]] = {}
SEEN: list[list[int]] = []


def note(name, epoch):
    TOLD.setdefault(name, []).append(epoch)


class Rows(Dataset):
    def __init__(self, name): self.name, self.epoch = name, -1
    def __len__(self): return 24
    def __getitem__(self, i): return X[i] + 100 * self.epoch
    def set_epoch(self, epoch): self.epoch = epoch; note(self.name, epoch)


class Order(DistributedSampler):
    def __init__(self, name, data): super().__init__(data, num_replicas=1, rank=0); self.name = name
    def set_epoch(self, epoch): super().set_epoch(epoch); note(self.name, epoch)


class Batches(BatchSampler):
    def set_epoch(self, epoch): note("batch_sampler", epoch)


class Stream(IterableDataset):
    epoch = -1
    def __iter__(self): yield from X[:8] + 100 * self.epoch
    def set_epoch(self, epoch): self.epoch = epoch; note("stream", epoch)


class ToldTrainer(BaseTrainer):
    """Notes which epochs its data is told."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(ToldTrainerConfig)
        self.model = nn.Linear(4, 1)
        data = ConcatDataset([Subset(Rows("first"), range(16)), Rows("second")])
        kind = self.config.loop
        if kind == "workers":
            self.train_loader = DataLoader(data, 8, num_workers=1, persistent_workers=True)
        elif kind == "made":
            self.train_loader = make_loader(data, 8, num_workers=1)
        else:
            self.train_loader = DataLoader(data, batch_sampler=Batches(Order("inner", data), 8, False))
        self.val_loader = DataLoader(Stream(), 8)
        self.optimizer = SGD(self.model.parameters(), lr=1e-6)
        self.scheduler = ExponentialLR(self.optimizer, 0.9)
        self.init_progress_bar(total=100)
        super().__init__()

    def compute_loss(self, batch):
        if self.model.training and self.run_context.in_session:  # not in the check of the first samples
            SEEN.append([int(value) // 100 for value in batch[:, 0]] if self.config.loop in ("workers", "made")
                        else [int(value) % 100 for value in batch[:, 0]])
        return self.model(batch).square().mean()

    def train(self):
        if self.config.loop in ("plain", "epochs"):
            for _ in self.epochs() if self.config.loop == "epochs" else range(self.config.epochs):
                self.model.train()
                for batch in self.train_loader:
                    self.optimizer.zero_grad()
                    self._forward_batch(batch).backward()
                    self.optimizer.step()
                val_loss = self.validate()
                self.scheduler.step()
                self.save_metrics()
                self.check_early_stopping(val_loss)
        else:
            super().train()

    def after_training(self):
        self.get_run_file_path("told.json").write_text(json.dumps({"told": TOLD, "seen": SEEN}))
'''


@pytest.fixture(scope="module")
def told_project(shared_project):
    (shared_project.path / "config/told_trainer_config.py").write_text(CONFIG)
    (shared_project.path / "train/told_trainer.py").write_text(TRAINER)
    shared_project.append("config.ini", "\n[ToldTrainer]\nplot_at_end = off\nepochs = 3\nlearning_rate = 1e-6\n")
    return shared_project


def told(project, *words: str) -> dict:
    done = project.run("Told", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((project.runs("Told")[-1] / "told.json").read_text())


@pytest.mark.parametrize("loop", ["base", "plain", "epochs"])
def test_every_part_of_a_loader_is_told_each_epoch_once(told_project, loop):
    found = told(told_project, f"loop={loop}")
    names = ("batch_sampler", "inner", "first", "second")
    # A plain loop doesn't say which epoch is its last.
    assert {name: found["told"][name][:3] for name in names} == {name: [0, 1, 2] for name in names}
    assert all(len(found["told"][name]) <= 3 + (loop == "plain") for name in names)
    assert len(found["told"]["stream"]) == 3, "validation's dataset, an IterableDataset"
    steps = len(found["seen"]) // 3
    orders = [found["seen"][steps * epoch : steps * (epoch + 1)] for epoch in range(3)]
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("loop", ["workers", "made"])
def test_workers_datasets_are_of_the_epoch(told_project, loop):
    """Also those of workers that live on, which have copies."""
    found = told(told_project, f"loop={loop}")
    steps = len(found["seen"]) // 3
    epochs = [found["seen"][steps * epoch : steps * (epoch + 1)] for epoch in range(3)]
    assert [{number for batch in batches for number in batch} for batches in epochs] == [{0}, {1}, {2}]


def test_a_resumed_run_tells_the_epoch_that_it_goes_on_with(told_project):
    told(told_project, "epochs=1")
    assert told(told_project, "--resume", "epochs=3")["told"]["inner"] == [1, 2]
