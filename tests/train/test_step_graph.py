"""The replayed step. Without a CUDA device its bookkeeping is tested, with a replay that calls the function again."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW

from config import BaseTrainerConfig, ConfigError
from data.tensor_loader import TensorLoader
from train.base_trainer import BaseTrainer
from train.compiled.graph import GraphStep, Replayed
from train.schedulers import warmup_cosine
from train.step_choice import build_step

OPTIMIZERS = {
    "adam": lambda parameters: Adam(parameters, lr=0.01),
    "adamw": lambda parameters: AdamW(parameters, lr=0.01, weight_decay=0.1),
    "sgd": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
}


class PlainTrainer(BaseTrainer):
    """A small autoencoder with batch norm, on 131 rows. (A bias before batch norm has a gradient of rounding noise.)"""

    def __init__(self, config: BaseTrainerConfig, optimizer: str) -> None:
        self.config = config
        self.model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 6))
        rows = torch.randn(160, 6, generator=torch.Generator().manual_seed(1))
        self.train_loader = TensorLoader(rows[:131], config.batch_size, shuffle=True)
        self.val_loader = TensorLoader(rows[131:], config.batch_size)
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.scheduler = warmup_cosine(self.optimizer, warmup_steps=20, total_steps=200)
        self.init_progress_bar(total=len(self.train_loader) * config.epochs)
        super().__init__()

    def compute_loss(self, batch: torch.Tensor) -> torch.Tensor:
        batch = batch.to(self.device)
        back = self.model(batch)
        self._collect_batch_metrics({"size": back.detach().abs().mean()})
        return F.mse_loss(back, batch)


def trained(folder: Path, optimizer: str, form: str, device: str = "cpu", **settings) -> PlainTrainer:
    settings = {"gradient_clip_value": 0.2, "ema_decay": 0.9, **settings}
    config = BaseTrainerConfig(
        epochs=5, batch_size=8, plot_at_end=False, artifacts_dir=folder, device=device, step="eager", **settings
    )
    torch.manual_seed(0)
    trainer = PlainTrainer(config, optimizer)
    if form == "graph":
        eager = trainer.run_context.step
        trainer.run_context.step = GraphStep(trainer.run_context, eager, 16)
    with trainer.session():
        trainer.train()
    return trainer


def assert_equal_runs(one: PlainTrainer, other: PlainTrainer) -> None:
    for name in ("train_loss", "val_loss", "train_size", "val_size", "learning_rate"):
        torch.testing.assert_close(one.history[name], other.history[name], rtol=1e-5, atol=0, msg=name)
    for name, tensor in one.model.state_dict().items():
        torch.testing.assert_close(tensor, other.model.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)
    assert one.record.progress.step == other.record.progress.step


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("accumulated", [1, 2])
def test_bookkeeping_of_the_replayed_step_equals_eager(tmp_path, monkeypatch, optimizer, accumulated):
    def capture(self) -> None:
        def run() -> None:
            self._result = self._function(*self._inputs)

        self._replay = run

    monkeypatch.setattr(Replayed, "_capture", capture)
    eager = trained(tmp_path / "a", optimizer, "eager", accumulation_steps=accumulated)
    replayed = trained(tmp_path / "b", optimizer, "graph", accumulation_steps=accumulated)
    assert replayed.run_context.step.fast, "it fell back"
    assert set(replayed.run_context.step._replays) == {1, 8}, "eight steps at once, and single ones"
    assert_equal_runs(eager, replayed)


def test_a_device_without_graphs_is_an_error(tmp_path):
    config = BaseTrainerConfig(epochs=1, batch_size=8, artifacts_dir=tmp_path, device="cpu")
    trainer = PlainTrainer(config, "adam")
    trainer.config = replace(config, step="graph")
    with pytest.raises(ConfigError, match="step = graph replays CUDA graphs; the device is cpu. Use auto or epoch."):
        build_step(trainer.run_context)


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_captured_step_equals_eager_on_a_gpu(tmp_path, optimizer):
    eager = trained(tmp_path / "a", optimizer, "eager", device="cuda")
    replayed = trained(tmp_path / "b", optimizer, "graph", device="cuda")
    assert replayed.run_context.step.fast, "it fell back"
    assert_equal_runs(eager, replayed)
