"""`monitor`: what a run is judged by, chosen once, in its direction: best weights, early stopping, the rate, resume."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from constants.metrics import direction_of
from storage.monitor import Monitor

CONFIG = '''
from dataclasses import dataclass

from config.base_trainer_config import BaseTrainerConfig


@dataclass(kw_only=True)
class JudgedTrainerConfig(BaseTrainerConfig):
    """Settings of JudgedTrainer."""

    plateau_mode: str = ""
    """Mode of the scheduler; empty follows the monitor."""
    rare: bool = False
    """Whether the metric is not measured before training."""
'''

TRAINER = '''
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from config import ConfigParser
from config.judged_trainer_config import JudgedTrainerConfig
from data.tensor_loader import TensorLoader
from train.base_trainer import BaseTrainer

LOSS = [3.0, 2.0, 2.5, 1.0, 0.9, 0.8]
ACCURACY = [0.5, 0.7, 0.9, 0.8, 0.85, 0.6]


class JudgedTrainer(BaseTrainer):
    """Measures what is written above; its weight says how many steps it has done."""

    def __init__(self):
        self.config = ConfigParser.get(JudgedTrainerConfig)
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.model.weight)
        self.train_loader = TensorLoader(torch.ones(4, 1), 4)
        self.val_loader = TensorLoader(torch.ones(4, 1), 4)
        self.optimizer = SGD(self.model.parameters(), lr=1.0)
        mode = self.config.plateau_mode or self.config.monitor_direction
        self.scheduler = ReduceLROnPlateau(self.optimizer, mode=mode, factor=0.5, patience=0)
        self.init_progress_bar(total=self.config.epochs)
        super().__init__()

    def compute_loss(self, batch):
        if self.model.training:
            return -self.model(batch).mean()
        epoch = len(self.history["val_loss"]) if hasattr(self, "history") else 0
        if not self.config.rare or self.run_context.in_session:
            self._collect_batch_metrics({"accuracy": ACCURACY[epoch], "zebra": -ACCURACY[epoch]})
        return self.model(batch).mean() * 0 + LOSS[epoch]
'''

OWN_LOOP = """
    def train(self):
        for _ in range(self.config.epochs):
            self.model.train()
            for batch in self.train_loader:
                self.optimizer.zero_grad()
                self._forward_batch(batch).backward()
                self.optimizer.step()
            val_loss = self.validate()
            self.save_metrics()
            if self.check_early_stopping(val_loss):
                break
"""


@pytest.fixture(scope="module")
def judged(shared_project):
    """A project with the trainer above, and one that has its loop from the author."""
    path = shared_project.path
    (path / "config" / "judged_trainer_config.py").write_text(CONFIG)
    (path / "config" / "own_judged_trainer_config.py").write_text(CONFIG.replace("JudgedTrainer", "OwnJudgedTrainer"))
    (path / "train" / "judged_trainer.py").write_text(TRAINER)
    own = TRAINER.replace("JudgedTrainer", "OwnJudgedTrainer").replace(".judged_", ".own_judged_")
    (path / "train" / "own_judged_trainer.py").write_text(own + OWN_LOOP)
    sections = "[{}Trainer]\nepochs = 6\nplot_at_end = off\ngradient_clip_value = 0\nstep = eager\n"
    shared_project.append("config.ini", "\n" + sections.format("Judged") + "\n" + sections.format("OwnJudged"))
    return shared_project


def train(judged, *words, name="Judged"):
    """Run the trainer; return what it said, metrics.json of its newest run, and that run's folder."""
    done = judged.run(name, *words)
    assert done.returncode == 0, done.stderr + done.stdout
    run = judged.runs(name)[-1]
    return done.stdout + done.stderr, json.loads((run / "metrics.json").read_text()), run


def weight(run: Path) -> float:
    return load_file(run / "model.safetensors")["weight"].item()


@pytest.mark.parametrize("name", ["Judged", "OwnJudged"])
def test_monitor_decides_the_best_epoch_and_when_to_stop(judged, name):
    said, content, run = train(judged, "monitor=val_accuracy", "early_stopping_patience=2", name=name)
    assert (content["state"], content["summary"]["epochs"]) == ("early_stopped", 5)
    assert (content["monitor"], content["monitor_mode"]) == ("val_accuracy", "max")
    assert content["best"] == {"epoch": 3, "metric": "val_accuracy", "value": 0.9, "val_loss": 2.5}
    assert "best val_accuracy 0.9 at epoch 3" in said
    if name == "Judged":  # the rate has been 1 in the first three epochs, of one step each
        assert content["history"]["learning_rate"][:3] == [1.0, 1.0, 1.0]
    assert weight(run) == 3.0


def test_the_validation_loss_is_the_default(judged):
    said, content, _ = train(judged, "early_stopping_patience=2")
    assert (content["state"], content["monitor"], content["monitor_mode"]) == ("finished", "val_loss", "min")
    assert content["best"] == {
        "epoch": 6,
        "metric": "val_loss",
        "value": pytest.approx(0.8),
        "val_loss": pytest.approx(0.8),
    }
    assert "best validation loss 0.8 at epoch 6" in said


def test_min_delta_counts_in_the_direction_of_the_monitor(judged):
    words = ("monitor=val_accuracy", "early_stopping_patience=1")
    assert train(judged, *words, "early_stopping_min_delta=0.15")[1]["summary"]["epochs"] == 4
    assert train(judged, *words, "early_stopping_min_delta=0.25")[1]["summary"]["epochs"] == 2


def test_a_name_that_says_no_direction_needs_one(judged):
    done = judged.run("Judged", "monitor=val_zebra")
    assert done.returncode == 2
    assert "monitor = val_zebra: its name does not say" in done.stderr
    assert "write monitor_mode = min or monitor_mode = max" in done.stderr
    _, content, run = train(judged, "monitor=val_zebra", "monitor_mode=min")
    assert (content["best"]["epoch"], content["best"]["value"], weight(run)) == (3, -0.9, 3.0)
    _, content, _ = train(judged, "monitor=val_accuracy", "monitor_mode=min")  # who says so is believed
    assert (content["best"]["epoch"], content["best"]["value"]) == (1, 0.5)


def test_a_misspelt_metric_is_refused_before_training(judged):
    runs = judged.runs("Judged")
    done = judged.run("Judged", "monitor=val_acuracy")
    assert "error: command line: monitor = val_acuracy: its name does not say" in done.stderr
    assert "did you mean val_accuracy?" in done.stderr
    done = judged.run("Judged", "monitor=val_acuracy", "monitor_mode=max", "plateau_mode=min")  # the name goes first
    assert "did you mean val_accuracy?" in done.stderr and "ReduceLROnPlateau" not in done.stderr
    for given in ("val_acuracy", "accuracy"):
        done = judged.run("Judged", f"monitor={given}", "monitor_mode=max")
        assert done.returncode == 2
        there = "there are val_accuracy, val_zebra, val_loss, train_loss"
        assert f"monitor = {given} is measured by nothing in this run; {there}" in done.stderr
        assert "did you mean val_accuracy?" in done.stderr and "Traceback" not in done.stderr
    assert judged.runs("Judged") == runs


@pytest.mark.parametrize("name", ["Judged", "OwnJudged"])
def test_a_metric_that_never_comes_is_refused_at_the_first_validation(judged, name):
    done = judged.run(name, "monitor=val_f1")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: monitor = val_f1 is measured by nothing in this run; there are " in done.stderr
    assert "val_accuracy" in done.stderr.splitlines()[-1]
    assert json.loads((judged.runs(name)[-1] / "metrics.json").read_text())["state"] == "failed"


def test_a_metric_that_comes_later_is_waited_for(judged):
    said, content, _ = train(judged, "monitor=val_accuracy", "rare=on")
    assert "monitor = val_accuracy is measured by nothing" in said and "the first validation" in said
    assert content["best"]["value"] == 0.9


def test_the_plateau_goes_by_the_monitor(judged):
    done = judged.run("Judged", "monitor=val_accuracy", "plateau_mode=min")
    assert done.returncode == 2
    assert "ReduceLROnPlateau has mode='min'; it steps on val_accuracy, which rises: use mode='max'" in done.stderr
    _, _, run = train(judged, "monitor=val_accuracy")
    assert weight(run) == 3.0  # 1 a step
    # Without patience each epoch after the third halves the rate: two steps at 1 and 0.5 follow, then 0.25.
    checkpoint = sorted((run / "checkpoints").glob("epoch-00006*"))[0]
    assert load_file(checkpoint / "weights.safetensors")["weight"].item() == 3.0 + 1.0 + 0.5 + 0.25


def test_another_monitor_on_resume_is_told_and_judges_what_was(judged):
    _, content, run = train(judged, "epochs=4")
    assert content["best"] == {"epoch": 4, "metric": "val_loss", "value": 1.0, "val_loss": 1.0}
    said, content, run = train(
        judged, "--resume", run.name, "epochs=6", "monitor=val_accuracy", "early_stopping_patience=2"
    )
    assert "monitor = val_accuracy (max), before val_loss (min): the best is epoch 4 with 0.8" in said
    assert content["best"] == {"epoch": 5, "metric": "val_accuracy", "value": 0.85, "val_loss": pytest.approx(0.9)}
    # The third was the best: the fourth and the fifth were not better.
    assert (content["state"], content["summary"]["epochs"]) == ("early_stopped", 5)
    assert weight(run) == 4.0  # the third loss was no better than the second, so the last two steps are of 0.5


def test_a_resumed_run_keeps_its_best(judged):
    _, _, run = train(judged, "epochs=4", "monitor=val_accuracy")
    said, content, run = train(judged, "--resume", run.name, "epochs=6", "monitor=val_accuracy")
    assert "before val_loss" not in said
    assert (content["best"]["epoch"], content["best"]["value"], weight(run)) == (3, 0.9, 3.0)


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("val_loss", "min"), ("val_accuracy", "max"), ("val_dice_loss", "min"), ("val_error_rate", "min"),
        ("val_top1", "max"), ("val_f1@10", "max"), ("val/mAP50", "max"), ("val_IoU", "max"), ("val_R2", "max"),
        ("val_weighted_kendall", "max"), ("val_BLEU", "max"), ("val_rmse", "min"), ("val_perplexity", "min"),
        ("valAccuracy", "max"), ("val_negative_log_likelihood", "min"), ("val_log_likelihood", "max"),
        ("val_neg_mse", None), ("val_zebra", None), ("", None),
    ],
)  # fmt: skip
def test_directions_that_names_say(name, direction):
    assert direction_of(name) == direction


def test_better_is_said_in_one_place():
    low, high, nan = Monitor(), Monitor("val_accuracy", "max"), float("nan")
    assert low.is_better(1.0, 2.0) and not low.is_better(2.0, 2.0) and not low.is_better(nan, None)
    assert high.is_better(2.0, 1.0) and high.is_better(-5.0, None) and high.is_better(0.0, nan)
    assert not high.is_better(1.1, 1.0, min_delta=0.2) and not low.is_better(0.9, 1.0, min_delta=0.2)
    assert (low.best([3.0, nan, 1.0, 2.0]), high.best([nan]), high.best([])) == (1.0, None, None)
    assert sorted([0.5, None, 0.9, nan], key=high.sort_key)[:2] == [0.9, 0.5]
