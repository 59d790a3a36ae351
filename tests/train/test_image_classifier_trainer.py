"""Fine-tuning an image model through the command line: what is learned, what is left, resuming, predictions."""

import csv
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("PIL")
if not find_spec("torchvision"):
    pytest.skip("needs torchvision", allow_module_level=True)

from PIL import Image

NETWORK = """
from torch import nn

class Tiny(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 16, 1)
        self.head = nn.Linear(16, classes)

    def forward(self, pixels):
        return self.head(self.body(self.norm(self.stem(pixels)).relu()).relu().mean((2, 3)))
"""
MANIFEST = """
models:
  - name: tiny
    module: tiny_network:Tiny
    weights: tiny.safetensors
    licence: mit
    input: {size: [32, 32], channels: 3, mean: 0.5, std: 0.25}
"""
KILL = """
import os, signal
from train.callbacks import Callback

class Kill(Callback):
    def on_step_end(self, trainer, steps):
        if trainer.record.progress.step == int(os.environ.get("KILL_AT", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
"""
COLOURS = {"blue": (60, 60, 200), "green": (60, 200, 60), "red": (200, 60, 60)}
QUICK = ("zoo=zoo.yaml", "model=tiny", "batch_size=8", "learning_rate=1e-3", "plot_at_end=off", "device=cpu")


def draw(folder: Path, classes: dict[str, tuple[int, int, int]], count: int, seed: int = 0) -> Path:
    """Write noisy images of one colour a class."""
    noise = np.random.default_rng(seed)
    for name, colour in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(np.array(colour) + noise.normal(0, 40, (36, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def lab(shared_project):
    """A project with a tiny pretrained network, a manifest of it, and images of three colours."""
    path = shared_project.path
    (path / "tiny_network.py").write_text(NETWORK)
    (path / "zoo.yaml").write_text(MANIFEST)
    (path / "kill.py").write_text(KILL)
    torch.manual_seed(0)
    save_file(tiny(path)().state_dict(), path / "tiny.safetensors")
    draw(path / "colours", COLOURS, 20)
    return shared_project


def tiny(path: Path):
    """Return the network's class, from the file in a folder."""
    space: dict = {}
    exec((path / "tiny_network.py").read_text(), space)  # as importing it would
    return space["Tiny"]


def train(lab, *words: str, data: str = "colours", **environment: str):
    done = lab.run("ImageClassifier", f"data={data}", *QUICK, *words, cwd=lab.path, **environment)
    assert done.returncode == 0, done.stderr + done.stdout
    run = lab.runs("ImageClassifier")[-1]
    return run, json.loads((run / "metrics.json").read_text())


def predict(lab, run: Path, *words: str) -> list[dict[str, str]]:
    done = lab.run(
        "ImageClassifier", "--predict", str(run), "--out", "predictions.csv", "--force", *words, cwd=lab.path
    )
    assert done.returncode == 0, done.stderr + done.stdout
    with (lab.path / "predictions.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_separable_colours_are_learned_and_told_apart_where_they_are_new(lab):
    """Held-out images are all right; the test says so with an interval; new images get their classes."""
    run, metrics = train(lab, "epochs=8")
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert metrics["history"][f"val_{name}"][-1] == 1.0 == metrics["summary"][name]
    assert (metrics["summary"]["train_images"], metrics["summary"]["val_images"]) == (42, 9)
    tested = lab.run("ImageClassifier", "--test", str(run), cwd=lab.path)
    assert tested.returncode == 0, tested.stderr
    result = json.loads((run / "test.json").read_text())
    assert result["samples"] == 9 and result["metrics"]["test_accuracy"] == 1.0
    assert result["intervals"]["test_accuracy"] == [1.0, 1.0] and result["metrics"]["test_macro_f1"] == 1.0
    assert result["validation"]["test_accuracy"] == 1.0
    rows = predict(lab, run)
    assert (
        [row["class"] for row in rows] == [row["label"] for row in rows] == [row["image"].split("/")[0] for row in rows]
    )

    new = draw(lab.path / "new", {"a": (190, 70, 50), "b": (70, 60, 190)}, 2, seed=1)
    (new / "broken.png").write_bytes(b"no image")
    shutil.copy(new / "a" / "0.png", new / "loose.png")
    rows = predict(lab, run, "predict_data=new")
    found = {row["image"]: row["class"] for row in rows}
    assert found == {"a/0.png": "red", "a/1.png": "red", "b/0.png": "blue", "b/1.png": "blue", "loose.png": "red"}
    for row in rows:
        shares = {name: float(row[f"probability_{name}"]) for name in COLOURS}
        assert (
            sum(shares.values()) == pytest.approx(1, abs=1e-5) and max(shares, key=shares.__getitem__) == row["class"]
        )
        assert float(row["confidence"]) == max(shares.values())
    told = lab.run("ImageClassifier", "--predict", str(run), "--out", "p.csv", "--force", "predict_data=new",
                   cwd=lab.path)  # fmt: skip
    assert "broken.png" in told.stdout + told.stderr

    with np.load(run / "image_review.npz") as review:
        assert review["counts"].tolist() == [[3, 0, 0], [0, 3, 0], [0, 0, 3]] and len(review["keys"]) == 9
        assert (np.diff(review["losses"]) <= 0).all()
    drawn = lab.run("ImageClassifier", "--report", script="plot.py", cwd=lab.path)
    assert drawn.returncode == 0, drawn.stderr
    page = (run / "report.html").read_text()
    assert "Confusion matrix" in page and "Worst images" in page


@pytest.mark.slow
def test_shuffled_labels_are_not_learned(lab):
    """What is held out stays at chance: nothing leaks from one part into another."""
    mixed = lab.path / "mixed"
    order = np.random.default_rng(5)
    for name in COLOURS:
        (mixed / name).mkdir(parents=True)
    for colour in COLOURS:
        for number, wanted in enumerate(order.permutation(np.repeat(list(COLOURS), 20)[:60])[:20]):
            shutil.copy(lab.path / "colours" / colour / f"{number}.png", mixed / wanted / f"{colour}{number}.png")
    run, metrics = train(lab, "epochs=8", data="mixed")
    lab.run("ImageClassifier", "--test", str(run), cwd=lab.path)
    tested = json.loads((run / "test.json").read_text())
    assert tested["metrics"]["test_accuracy"] < 0.8 and metrics["summary"]["accuracy"] < 0.8


def test_a_killed_run_goes_on_to_the_same_bits_with_other_workers(lab):
    """Augmentation, mixing, averages: what is random of an image follows from seed, epoch and image alone."""
    words = ("epochs=2", "augmentation=trivialaugment", "mixup=0.4", "cutmix=1", "label_smoothing=0.1",
             "class_weights=balanced", "ema_decay=0.8", "checkpoint_every_n_steps=1", "log_every_n_steps=1",
             "callbacks=kill:Kill")  # fmt: skip
    whole, metrics = train(lab, *words)
    assert metrics["summary"]["steps"] == 12 and len(set(metrics["readings"]["train_loss"])) == 12
    killed = lab.run("ImageClassifier", "data=colours", *QUICK, *words, cwd=lab.path, KILL_AT="8")
    assert killed.returncode == -9
    gone_on = lab.run("ImageClassifier", "--resume", "num_workers=2", cwd=lab.path)
    assert gone_on.returncode == 0, gone_on.stderr
    run = lab.runs("ImageClassifier")[-1]
    again = json.loads((run / "metrics.json").read_text())
    assert run != whole and again["history"] == metrics["history"] and again["readings"] == metrics["readings"]
    for name in ("model.safetensors", "model/model.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("tune", ["full", "head", "lora"])
def test_what_is_tuned_changes_and_the_export_is_the_plain_network(lab, tune):
    """A frozen body keeps its bits, also those of its norms; the exported weights give the predictions.

    With few images a body that is trained keeps the statistics of its norms.
    """
    words = ("lora_rank=2",) if tune == "lora" else ()
    run, metrics = train(lab, "epochs=2", f"tune={tune}", *words)
    before = load_file(lab.path / "tiny.safetensors")
    exported = load_file(run / "model" / "model.safetensors")
    assert exported.keys() == before.keys() and exported["head.weight"].shape == (3, 16)
    same = {
        name for name, value in before.items() if value.shape == exported[name].shape and value.equal(exported[name])
    }
    frozen = {name for name in before if not name.startswith("head.")}
    statistics = {name for name in before if "running" in name or "num_batches" in name}
    assert same == {"full": statistics, "head": frozen, "lora": frozen - {"stem.weight", "body.weight"}}[tune]
    trained = {"full": 435, "head": 51, "lora": 51 + 2 * (8 + 27) + 2 * (16 + 8)}[tune]
    assert metrics["summary"]["trainable"] == trained
    facts = json.loads((run / "model" / "image_classifier.json").read_text())
    assert facts["classes"] == list(COLOURS) and facts["input"]["size"] == [32, 32] and facts["licence"] == "mit"
    card = (run / "model" / "README.md").read_text()
    assert "license: mit" in card and "blue, green, red" in card

    out = lab.path / f"exported_{tune}"
    copied = lab.run("ImageClassifier", "--export", str(run), "--out", str(out), cwd=lab.path)
    assert copied.returncode == 0, copied.stderr
    assert {file.name: file.read_bytes() for file in out.iterdir()} == {
        file.name: file.read_bytes() for file in (run / "model").iterdir()
    }

    network = tiny(lab.path)(3).eval()
    network.load_state_dict(exported)
    rows = predict(lab, run)
    image = Image.open(lab.path / "colours" / rows[0]["image"]).resize((35, 32), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image.crop((2, 0, 34, 32)))).permute(2, 0, 1)[None] / 255
    shares = network((pixels - 0.5) / 0.25).softmax(1)[0].tolist()
    assert shares == pytest.approx([float(rows[0][f"probability_{name}"]) for name in COLOURS], abs=1e-5)


@pytest.mark.slow
def test_runs_elsewhere_are_found_by_their_folder_of_artifacts(lab):
    """`artifacts_dir` of the command line says where a run is that is tested, predicted with or exported."""
    where = f"artifacts_dir={lab.path / 'elsewhere'}"
    done = lab.run("ImageClassifier", "data=colours", *QUICK, "epochs=1", where, cwd=lab.path)
    assert done.returncode == 0, done.stderr
    (run,) = (lab.path / "elsewhere" / "models" / "ImageClassifier" / "runs").iterdir()
    tested = lab.run("ImageClassifier", where, "--test", cwd=lab.path)
    assert tested.returncode == 0 and run.name in tested.stdout and (run / "test.json").is_file(), tested.stderr
    (lab.path / "taken").mkdir()
    (lab.path / "taken" / "mine.txt").touch()
    refused = lab.run("ImageClassifier", where, "--export", "latest", "--out", "taken", cwd=lab.path)
    assert refused.returncode == 2 and "has other things in it, such as mine.txt" in refused.stderr


@pytest.mark.slow
def test_seeds_share_the_split_and_checks_pass(lab):
    """Another seed trains otherwise, on the same images; the checklist and the dry run have nothing to say."""
    done = lab.run("ImageClassifier", "data=colours", *QUICK, "epochs=1", "--seeds", "2", cwd=lab.path)
    assert done.returncode == 0, done.stderr + done.stdout
    data, weights = [], []
    for run in sorted((lab.path / "artifacts/models/ImageClassifier").rglob("environment.json"))[-2:]:
        facts = json.loads(run.read_text())["data"]
        data.append(facts["val"]["sha256"])
        weights.append((run.parent / "model.safetensors").read_bytes())
    assert data[0] == data[1] and weights[0] != weights[1]
    checked = lab.run("ImageClassifier", "data=colours", *QUICK, "epochs=1", "--check", cwd=lab.path)
    assert checked.returncode == 0 and "0 warnings, 0 failed" in checked.stdout, checked.stdout


def test_what_is_wrong_is_told_before_anything_is_trained(lab):
    """Each with what was given and what to do, and without a traceback."""
    few = draw(lab.path / "few", {"one": (0, 0, 0)}, 3)
    cases = {
        ("zoo=zoo.yaml",): (2, "data=photos/ names a folder"),
        ("data=colours", "model=resnet18"): (2, "timm/NAME"),
        ("data=colours", "zoo=zoo.yaml", "model=tinny"): (2, "did you mean tiny"),
        ("data=nowhere", "zoo=zoo.yaml", "model=tiny"): (3, "there is no file or folder"),
        (f"data={few}", "zoo=zoo.yaml", "model=tiny"): (3, "at least 2 classes"),
        ("data=colours", "zoo=zoo.yaml", "model=tiny", "val_share=0.5", "test_share=0.6"): (3, "nothing to train on"),
        ("data=colours", "zoo=zoo.yaml", "model=tiny", "tune=lora", "lora_rank=999"): (2, "smaller rank"),
    }
    for words, (code, text) in cases.items():
        done = lab.run("ImageClassifier", *words, cwd=lab.path)
        assert done.returncode == code and text in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_run_is_not_gone_on_with_for_other_classes(lab):
    """Weights of a head mean nothing for other classes, however many there are."""
    data = shutil.copytree(lab.path / "colours", lab.path / "renamed")
    train(lab, "epochs=1", data="renamed")
    (data / "red").rename(data / "rouge")
    done = lab.run("ImageClassifier", "--resume", "epochs=2", cwd=lab.path)
    assert done.returncode == 2 and "rouge" in done.stderr, done.stderr
