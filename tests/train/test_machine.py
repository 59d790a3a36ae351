"""CPU threads: chosen by what a step does, kept by what goes on from a run."""

import json
from pathlib import Path

import pytest

_CONFIG = '''"""Settings of SequenceTrainer."""

from dataclasses import dataclass

from config.base_trainer_config import BaseTrainerConfig


@dataclass(kw_only=True)
class SequenceTrainerConfig(BaseTrainerConfig):
    """What SequenceTrainer reads."""

    layer: str = "gru"
    """Which layer the model has."""
'''

_TRAINER = '''"""Classifies sequences."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from config import ConfigParser
from config.sequence_trainer_config import SequenceTrainerConfig
from train.base_trainer import BaseTrainer


class Classifier(nn.Module):
    """A recurrent layer of 3.5k weights over 200 time steps, or a linear one of 4M."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        kinds = {"gru": nn.GRU, "lstm": nn.LSTM}
        self.recurrent = kinds[layer](8, 24, batch_first=True) if layer in kinds else None
        self.wide = nn.Sequential(nn.Linear(1600, 2400), nn.ReLU(), nn.Linear(2400, 24))
        if self.recurrent is not None:
            self.wide = None
        self.head = nn.Linear(24, 2)

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:
        if self.recurrent is None:
            return self.head(self.wide(sequences.flatten(1)))
        return self.head(self.recurrent(sequences)[0][:, -1])


class SequenceTrainer(BaseTrainer):
    """Classifies sequences."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(SequenceTrainerConfig)
        self.model = Classifier(self.config.layer)
        sequences = torch.randn(32, 200, 8)
        data = TensorDataset(sequences, (sequences[:, -1, 0] > 0).long())
        self.train_loader = DataLoader(data, batch_size=self.config.batch_size, shuffle=True)
        self.val_loader = DataLoader(data, batch_size=self.config.batch_size)
        self.optimizer = Adam(self.model.parameters(), lr=self.config.learning_rate)
        self.scheduler = StepLR(self.optimizer, 1)
        self.init_progress_bar(total=len(self.train_loader) * self.config.epochs)
        super().__init__()

    def compute_loss(self, batch: list) -> torch.Tensor:
        sequences, labels = batch
        return F.cross_entropy(self.model(sequences.to(self.device)), labels.to(self.device))
'''


@pytest.fixture(scope="module")
def sequences(shared_project):
    project = shared_project
    (project.path / "config/sequence_trainer_config.py").write_text(_CONFIG)
    (project.path / "train/sequence_trainer.py").write_text(_TRAINER)
    project.append("config.ini", "\n[SequenceTrainer]\nepochs = 1\nplot_at_end = off\n")
    return project


def threads_of(run: Path) -> int:
    return json.loads((run / "environment.json").read_text())["device"]["threads"]


def last_run(project) -> Path:
    return project.runs("Sequence")[-1]


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("gru", "device: cpu, 1 CPU thread (its operations are small)\n"),
        pytest.param("lstm", "device: cpu, 1 CPU thread (its operations are small)\n", marks=pytest.mark.slow),
        ("linear", "device: cpu, 2 CPU threads\n"),
    ],
)
def test_threads_follow_from_the_size_of_the_operations(sequences, layer, said):
    """The step of the small recurrent models computes 64 MFLOP and more, twice what one of a small model may."""
    done = sequences.run("Sequence", "--dry-run", f"layer={layer}", OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_a_resumed_run_and_one_of_its_config_keep_the_threads(sequences):
    """Another number would change the last bits: here a run of before, which had two for its small layer."""
    assert sequences.run("Sequence", OMP_NUM_THREADS="2").returncode == 0
    run = last_run(sequences)
    assert threads_of(run) == 1
    file = run / "environment.json"
    file.write_text(file.read_text().replace('"threads": 1', '"threads": 2'))
    for words in (["--resume", run.name, "epochs=2"], ["--config", str(run / "config.ini")]):
        done = sequences.run("Sequence", *words, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
        assert "2 CPU threads as before" in done.stdout
        assert threads_of(last_run(sequences)) == 2
    file.write_text(file.read_text().replace('"threads": 2', '"threads": "many"'))
    done = sequences.run("Sequence", "--resume", run.name, "epochs=3", OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert "1 CPU thread (its operations are small)" in done.stdout
