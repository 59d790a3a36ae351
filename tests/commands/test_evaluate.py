"""`--test` and `--predict`: a saved run's best weights on data of their own, compared with plain torch."""

import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

SETTINGS = '''
from dataclasses import dataclass

from config.base_trainer_config import BaseTrainerConfig


@dataclass
class BlobsTrainerConfig(BaseTrainerConfig):
    """Settings of BlobsTrainer."""

    width: int = 5
    """Hidden units."""
    fault: str = ""
    """What is wrong with it."""
'''
TRAINER = '''
import os
import signal

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader, Dataset, TensorDataset

from config import ConfigParser
from config.blobs_trainer_config import BlobsTrainerConfig
from data.tensor_loader import TensorLoader
from train.base_trainer import BaseTrainer


class Rows(Dataset):
    def __init__(self, x, y, bad=None):
        self.x, self.y, self.bad = x, y, bad

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        if index == self.bad:
            raise OSError(f"no file {index}")
        return self.x[index], self.y[index]


class Scaled(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, losses):
        return (losses * self.scale).mean() + (self.scale - 2).square()


class BlobsTrainer(BaseTrainer):
    """Tells two blobs apart."""

    def __init__(self):
        self.config = ConfigParser.get(BlobsTrainerConfig)
        fault = self.config.fault
        x = torch.randn(100, 3, generator=torch.Generator().manual_seed(1))
        noise = torch.randn(100, generator=torch.Generator().manual_seed(2))
        y = (x[:, 0] + noise > 0).long()
        self.model = nn.Sequential(nn.Linear(3, self.config.width), nn.Dropout(0.5), nn.ReLU(),
                                   nn.Linear(self.config.width, 2))
        self.scaled = Scaled()
        size, workers = self.config.batch_size, self.config.num_workers
        self.train_loader = TensorLoader({"x": x[:50], "y": y[:50]}, size, shuffle=True, seed=self.config.seed)
        self.val_loader = TensorLoader({"x": x[50:70], "y": y[50:70]}, size)
        y, bad = y.clone(), None
        if fault == "label":
            y[70 + 13] = 2
        if fault == "nan":
            x = x.clone()
            x[70 + 9, 1] = torch.nan
        if fault == "unreadable":
            bad = 17
        drop = fault == "drop_last"
        if fault != "no test_loader":
            self.test_loader = DataLoader(Rows(x[70:], y[70:], bad), size, num_workers=workers, drop_last=drop)
        if fault == "predict_loader":
            self.predict_loader = TensorLoader(x[70:], size, shuffle=True, seed=4)
        self.optimizer = Adam([*self.model.parameters(), *self.scaled.parameters()], lr=self.config.learning_rate)
        self.scheduler = ExponentialLR(self.optimizer, 1.0)
        self.init_progress_bar(total=len(self.train_loader) * self.config.epochs)
        super().__init__()

    def compute_loss(self, batch):
        x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
        scores = self.model(x)
        hits = (scores.argmax(1) == y).float()
        self._collect_batch_metrics({"accuracy": hits, "mean_score": scores.detach().mean()})
        return self.scaled(F.cross_entropy(scores, y, reduction="none"))

    def predict_batch(self, batch):
        x = batch if isinstance(batch, torch.Tensor) else batch["x"] if isinstance(batch, dict) else batch[0]
        scores = self.model(x.to(self.device))
        if self.config.fault == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        if self.config.fault == "one number":
            return scores.argmax()
        if self.config.fault == "too few":
            return {"class": scores.argmax(1)[:-1]}
        if self.config.fault == "a tuple":
            return scores, scores
        if self.config.fault == "lists":
            return {"words": [["a"] * int(n) for n in scores.argmax(1)], "scores": scores, "name": ["ä,b"] * len(x)}
        if self.config.fault == "scores alone":
            return scores
        return {"class": scores.argmax(1), "probability": scores.softmax(1)}
'''


def add_blobs(project):
    """Write the trainer into a project, as a user does."""
    (project.path / "config" / "blobs_trainer_config.py").write_text(SETTINGS)
    (project.path / "train" / "blobs_trainer.py").write_text(TRAINER)


@pytest.fixture(scope="module")
def blobs(shared_project):
    """A project with one run of Blobs, whose best epoch is not the last."""
    add_blobs(shared_project)
    words = ("epochs=12", "learning_rate=0.05", "batch_size=8", "ema_decay=0.5", "plot_at_end=off", "step=eager")
    done = shared_project.run("Blobs", *words)
    assert done.returncode == 0, done.stderr
    return shared_project


def the_run(project) -> Path:
    return project.runs("Blobs")[0]


def test_data() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(100, generator=torch.Generator().manual_seed(2))
    return x[70:], (x[:, 0] + noise > 0).long()[70:]


test_data.__test__ = False


def scores_by_hand(run: Path) -> torch.Tensor:
    """The scores of the test samples, by the saved weights alone."""
    weights, (x, _) = load_file(run / "model.safetensors"), test_data()
    return F.relu(x @ weights["0.weight"].T + weights["0.bias"]) @ weights["3.weight"].T + weights["3.bias"]


def scale_of_best(run: Path) -> float:
    """The parameter of the loss as it was in the best epoch: its checkpoint has it."""
    best = json.loads((run / "metrics.json").read_text())["best"]["epoch"]
    folder = run / "checkpoints" / f"epoch-{best:05d}"
    tensors = load_file(folder / "state.safetensors")
    named = {name: value for name, value in tensors.items() if "scale" in name and "optimizer" not in name}
    assert len(named) == 1, list(tensors)
    return float(next(iter(named.values())))


def content_of(run: Path) -> dict[str, str]:
    """All files of a run by their digests, but for what a test writes."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name != "test.json"
    }


def test_the_test_measures_the_best_weights_as_plain_torch_does(blobs):
    run = the_run(blobs)
    before = content_of(run)
    done = blobs.run("Blobs", "--test")
    assert done.returncode == 0, done.stderr
    told = json.loads((run / "test.json").read_text())
    scores, (_, y) = scores_by_hand(run), test_data()
    scale = scale_of_best(run)
    assert told["samples"] == 30
    assert told["metrics"]["test_loss"] == pytest.approx(
        float(F.cross_entropy(scores, y)) * scale + (scale - 2) ** 2, rel=1e-5
    )
    hits = (scores.argmax(1) == y).float()
    assert told["metrics"]["test_accuracy"] == pytest.approx(float(hits.mean()))
    assert told["metrics"]["test_mean_score"] == pytest.approx(float(scores.mean()), rel=1e-4)
    low, high = told["intervals"]["test_accuracy"]
    assert low <= float(hits.mean()) <= high and low == pytest.approx(
        float(hits.mean()) - 1.96 * float(hits.std()) / 30**0.5, abs=0.05
    )
    assert set(told["intervals"]) == {"test_accuracy"}, "of a mean alone there is no interval"
    assert told["weights_sha256"] == hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    metrics = json.loads((run / "metrics.json").read_text())
    best = metrics["best"]["epoch"]
    assert told["epoch"] == best < 12
    assert told["validation"]["test_accuracy"] == metrics["history"]["val_accuracy"][best - 1]
    assert told["data"]["length"] == 30 and told["settings"]["batch_size"] == "8" and told["changed"] == []
    assert f"weights of epoch {best} " in done.stdout and "test_loader: 30 samples" in done.stdout
    assert re.search(rf"^test_accuracy +{float(hits.mean()):.4g} +{low:.4g} to {high:.4g} ", done.stdout, re.MULTILINE)
    assert content_of(run) == before, "a test changes nothing of the run"


def test_words_of_the_command_line_win_and_are_told(blobs):
    run = the_run(blobs)
    blobs.run("Blobs", "--test", run.name)
    first = json.loads((run / "test.json").read_text())["metrics"]
    done = blobs.run("--test", "Blobs", "batch_size=7", "num_workers=2")
    assert done.returncode == 0, done.stderr
    assert "settings that differ from the run's: batch_size 8 -> 7, num_workers 0 -> 2" in done.stdout
    told = json.loads((run / "test.json").read_text())
    assert told["changed"] == ["batch_size 8 -> 7", "num_workers 0 -> 2"] and told["settings"]["batch_size"] == "7"
    assert told["metrics"] == pytest.approx(first, rel=1e-5), "batches weigh what they have"


def test_a_report_shows_the_test(blobs):
    run = the_run(blobs)
    blobs.run("Blobs", "--test", str(run))
    done = blobs.run(str(run), "--report", script="plot.py")
    assert done.returncode == 0, done.stderr
    page = (run / "report.html").read_text()
    assert "test_accuracy" in page and "Means of 30 samples, by the weights of epoch" in page
    (run / "test.json").write_text("{}")
    assert blobs.run(str(run), "--report", script="plot.py").returncode == 0
    assert "cannot read" in (run / "report.html").read_text()
    (run / "test.json").unlink()


def predicted(project, name: str, *words: str) -> Path:
    done = project.run("Blobs", "--predict", "--out", name, *words)
    assert done.returncode == 0, done.stderr
    return project.path / name


def test_predictions_are_those_of_plain_torch_in_each_format(blobs):
    scores = scores_by_hand(the_run(blobs)).numpy()
    classes, chances = scores.argmax(1), torch.from_numpy(scores).softmax(1).numpy()
    with predicted(blobs, "p.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [*rows[0]] == ["index", "class", "probability_0", "probability_1"]
    assert [int(row["index"]) for row in rows] == list(range(30))
    assert [int(row["class"]) for row in rows] == classes.tolist()
    np.testing.assert_allclose([float(row["probability_1"]) for row in rows], chances[:, 1], rtol=1e-5)
    lines = [json.loads(line) for line in predicted(blobs, "deep/er/p.jsonl").read_text().splitlines()]
    assert [line["class"] for line in lines] == classes.tolist()
    np.testing.assert_allclose([line["probability"] for line in lines], chances, rtol=1e-5)
    for arrays in (np.load(predicted(blobs, "p.npz", "num_workers=2")), load_arrays(predicted(blobs, "p.safetensors"))):
        assert sorted(arrays) == ["class", "index", "probability"]
        assert arrays["class"].tolist() == classes.tolist()
        np.testing.assert_allclose(arrays["probability"], chances, rtol=1e-5)
    alone = np.load(predicted(blobs, "p.npy", "fault=scores alone"))
    np.testing.assert_allclose(alone, scores, rtol=1e-4, atol=1e-5)


def test_a_loader_of_its_own_is_taken_and_the_index_says_which_sample_a_row_is(blobs):
    done = blobs.run("Blobs", "--predict", "latest", "--out", "own.npz", "fault=predict_loader", "batch_size=7")
    assert done.returncode == 0, done.stderr
    assert "predicts the samples of predict_loader\n" in done.stdout
    assert "30 rows of index, class, probability (2,)" in done.stdout
    arrays, scores = np.load(blobs.path / "own.npz"), scores_by_hand(the_run(blobs))
    assert sorted(arrays["index"]) == list(range(30)) and arrays["index"].tolist() != list(range(30))
    assert arrays["class"].tolist() == scores.argmax(1)[torch.from_numpy(arrays["index"])].tolist()
    done = blobs.run("Blobs", "--predict", "--out", "val.npz", "fault=no test_loader")
    assert "predicts the samples of val_loader, as there is no predict_loader and no test_loader" in done.stdout
    assert len(np.load(blobs.path / "val.npz")["class"]) == 20


def test_texts_and_lists_are_written_where_the_format_has_them(blobs):
    path = predicted(blobs, "lists.jsonl", "fault=lists")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    classes = scores_by_hand(the_run(blobs)).argmax(1).tolist()
    assert [len(line["words"]) for line in lines] == classes and lines[3]["name"] == "ä,b"
    for name, text in (("lists.csv", "'words' has lists or dicts"), ("lists.npz", "'words' has lists of different"),
                       ("lists.safetensors", "'words' has lists of different")):  # fmt: skip
        done = blobs.run("Blobs", "--predict", "--out", name, "fault=lists")
        assert done.returncode == 2 and text in done.stderr and ".jsonl does" in done.stderr, done.stderr
        assert not (blobs.path / name).exists()


def test_a_file_is_replaced_only_by_force(blobs):
    path = blobs.path / "kept.csv"
    path.write_text("mine")
    done = blobs.run("Blobs", "--predict", "--out", "kept.csv")
    assert done.returncode == 2 and "is there already; --force replaces it" in done.stderr
    assert path.read_text() == "mine"
    predicted(blobs, "kept.csv", "--force")
    assert path.read_text().startswith("index,class")


@pytest.mark.parametrize(
    ("words", "code", "texts"),
    [
        (["--test", "fault=no test_loader"], 2,
         ["BlobsTrainer has no test_loader; it has train_loader (50 samples), val_loader (20 samples).",
          "self.test_loader = TensorLoader("]),
        (["--test", "fault=label"], 4,
         ["in compute_loss: IndexError: Target 2 is out of bounds.", "label 2 is in row 5 of the batch",
          "It came with batch 2 of test_loader; row 5 is sample 13."]),
        (["--test", "fault=nan"], 4, ["the loss of batch 2 of test_loader is nan", "is not finite in rows 1 of the"]),
        (["--test", "fault=unreadable"], 3, ["test_loader: sample 17 of Rows can't be read", "OSError: no file 17"]),
        (["--test", "width=6"], 2, ["do not fit BlobsTrainer's model", "by the settings given here", "0.weight"]),
        (["--test", "no-such-run"], 2, ["there is no run 'no-such-run'"]),
        (["--test", "--config", "config.ini"], 2, ["--test takes the config.ini of the run"]),
        (["--test", "--resume"], 2, ["don't go together"]),
        (["--test", "--out", "x.csv"], 2, ["--out is of --predict"]),
        (["--test", "epohcs=3"], 2, ["unknown key 'epohcs'; did you mean 'epochs'?"]),
        (["--predict"], 2, ["--predict needs --out FILE"]),
        (["--predict", "--out", "x.pt"], 2, [".pt is a pickle, which runs code", ".npz ", ".csv "]),
        (["--predict", "--out", "x.txt"], 2, ["'.txt' names no format", ".jsonl "]),
        (["--predict", "--out", "config"], 2, ["names no format"]),
        (["--predict", "--out", "config.ini/x.csv"], 2, ["is a file, no folder"]),
        (["--predict", "--out", "x.csv", "fault=one number"], 2, ["returned 0 rows as 'prediction' for a batch of 8"]),
        (["--predict", "--out", "x.csv", "fault=too few"], 2, ["returned 7 rows as 'class' for a batch of 8 samples"]),
        (["--predict", "--out", "x.csv", "fault=a tuple"], 2, ["returned tuple of 2", "a dict of such"]),
        (["--predict", "--out", "x.csv", "fault=drop_last"], 3, ["has drop_last, so 6 of 30 samples would have no"]),
        (["--predict", "--out", "x.csv", "fault=interrupt"], 130, ["interrupted\n"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_and_leaves_nothing(blobs, words, code, texts):
    before = {path.name for path in blobs.path.iterdir()}
    done = blobs.run("Blobs", *words)
    assert done.returncode == code, done.stderr
    for text in texts:
        assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in blobs.path.iterdir()} == before
    assert not (the_run(blobs) / "test.json").exists() and not (the_run(blobs) / "failure").exists()


def test_a_run_without_weights_or_of_another_trainer_is_refused(project):
    add_blobs(project)
    other = project.run("FeatureFusion", "epochs=1", "plot_at_end=off")
    assert other.returncode == 0, other.stderr
    run = project.runs("FeatureFusion")[0]
    done = project.run("Blobs", "--test", str(run))
    assert done.returncode == 2 and "is a run of FeatureFusionTrainer, not of BlobsTrainer" in done.stderr
    done = project.run("Blobs", "--test")
    assert done.returncode == 2 and "there is no run 'Blobs'" in done.stderr
    (run / "model.safetensors").unlink()
    done = project.run("FeatureFusion", "--test")
    assert done.returncode == 2 and "has no model.safetensors: it has not come to the end" in done.stderr
    done = project.run("FeatureFusion", "--predict", "--out", "x.csv")
    assert done.returncode == 2 and "has no model.safetensors" in done.stderr


def test_a_trainer_without_predict_batch_is_shown_one(project):
    assert project.run("FeatureFusion", "epochs=1", "plot_at_end=off").returncode == 0
    done = project.run("FeatureFusion", "--predict", "--out", "x.csv")
    assert done.returncode == 2
    assert "FeatureFusionTrainer has no predict_batch(batch)" in done.stderr
    assert "    def predict_batch(self, batch):\n        logits = self.model(batch" in done.stderr
    assert "A batch of val_loader is " in done.stderr


def test_a_validate_of_the_trainers_own_measures_the_test(project):
    add_blobs(project)
    path = project.path / "train" / "blobs_trainer.py"
    path.write_text(
        TRAINER
        + """
    def validate(self):
        loss = super().validate()
        seen = torch.cat([y if isinstance(y, torch.Tensor) else y for _, y in map(self.parts, self.val_loader)])
        self.history["val_share"].append(float(seen.float().mean()))
        return loss

    def parts(self, batch):
        return (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
"""
    )
    assert project.run("Blobs", "epochs=2", "plot_at_end=off").returncode == 0
    done = project.run("Blobs", "--test")
    assert done.returncode == 0, done.stderr
    told = json.loads((the_run(project) / "test.json").read_text())
    assert told["metrics"]["test_share"] == pytest.approx(float(test_data()[1].float().mean()))
    assert told["samples"] == 30 and set(told["metrics"]) == {
        "test_loss", "test_accuracy", "test_mean_score", "test_share",
    }  # fmt: skip


def test_a_changed_training_set_is_told(project):
    add_blobs(project)
    assert project.run("Blobs", "epochs=1", "plot_at_end=off").returncode == 0
    path = project.path / "train" / "blobs_trainer.py"
    path.write_text(TRAINER.replace("x[:50]", "x[10:60]").replace("y[:50]", "y[10:60]"))
    done = project.run("Blobs", "--test")
    assert done.returncode == 0, done.stderr
    assert "warning: the train data is not what the run had; samples of the test may have been among it" in done.stdout


def test_what_is_no_loader_is_refused_when_the_trainer_is_built(project):
    add_blobs(project)
    path = project.path / "train" / "blobs_trainer.py"
    path.write_text(
        TRAINER.replace("        self.scheduler =", "        self.test_loader = 3\n        self.scheduler =")
    )
    done = project.run("Blobs", "--dry-run")
    assert done.returncode == 2 and "self.test_loader is a int; it must be a loader" in done.stderr
