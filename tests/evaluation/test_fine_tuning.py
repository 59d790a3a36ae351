"""The first models of a ranking, fine-tuned: processes that go on, who won, what the table and its file then hold."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("PIL")

from PIL import Image

from data.data_error import DataError
from data.images.image_dataset import read_image_dataset
from data.pretrained.zoo_manifest import read_zoo_manifest
from evaluation.recommendation import fine_tuning
from evaluation.recommendation.dataset_description import (
    add_description,
    dataset_distance,
    describe_dataset,
    read_descriptions,
)
from evaluation.recommendation.fine_tuning import DatasetWords, Winner, fine_tune_winners, paired_draws
from evaluation.recommendation.results_table import read_results

NETWORK = """
from torch import nn

class Tiny(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=4)
        self.head = nn.Linear(width, 5)

    def forward(self, pixels):
        return self.head(self.stem(pixels).relu().mean((2, 3)))
"""
ENTRY = """
  - name: {name}
    module: tiny_net_to_tune:Tiny
    arguments: {{width: {width}}}
    weights: {name}.safetensors
    input: {{size: [32, 32], channels: 3, mean: 0.5, std: 0.25}}
"""


def lay_out(folder: Path) -> Path:
    """Write images of two colours, and a manifest of three networks, one of which has no weights."""
    (folder / "tiny_net_to_tune.py").write_text(NETWORK)
    widths = {"small": 4, "large": 32, "broken": 8}
    entries = [ENTRY.format(name=name, width=width) for name, width in widths.items()]
    (folder / "zoo.yaml").write_text("models:" + "".join(entries))
    space: dict = {}
    exec(NETWORK, space)  # importing it would leave it among the modules
    for name in ("small", "large"):
        torch.manual_seed(3)
        save_file(space["Tiny"](widths[name]).state_dict(), folder / f"{name}.safetensors")
    noise = np.random.default_rng(0)
    for name, colour in (("blue", (60, 60, 200)), ("red", (200, 60, 60))):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(14):
            pixels = np.clip(np.array(colour) + noise.normal(0, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    return folder


def winners(folder: Path, *names: str) -> list[Winner]:
    entries = {entry.name: entry for entry in read_zoo_manifest(folder / "zoo.yaml")}
    return [Winner(entries[name], folder / "zoo.yaml", 0.9) for name in names]


def found_folder(found: fine_tuning.FineTuning, name: str) -> Path:
    return next(model.folder for model in found.models if model.name == name)


@pytest.mark.slow
def test_models_are_tuned_and_compared_once_and_the_table_learns_it(tmp_path, monkeypatch):
    folder, said = lay_out(tmp_path), []
    monkeypatch.setattr(fine_tuning, "_SEEDS", 1)
    words = DatasetWords(folder / "photos", None, None, None, 0)
    where = {"artifacts": folder / "runs", "table": folder / "tables" / "mine.csv", "device": "cpu"}
    found = fine_tune_winners(winners(folder, "small", "broken", "large"), words, **where, say=said.append)
    assert {model.name for model in found.models} == {"small", "large"}
    ((left_out, why),) = found.failed
    assert left_out == "broken" and "broken.safetensors" in why
    assert found.models[0].accuracy >= found.models[1].accuracy
    assert found.verdict.startswith(found.models[0].name) or "are level" in found.verdict
    assert "4 test images, 1 seed" in found.verdict
    for model in found.models:
        assert 0 <= model.low <= model.accuracy <= model.high <= 1
        metrics = json.loads((model.folder / "metrics.json").read_text())
        assert metrics["state"] == "finished" and metrics["summary"]["test_images"] == 4
    rows = {row.model: row for row in read_results(where["table"])}
    assert {name: (row.dataset, row.metric, row.value, row.images, row.classes) for name, row in rows.items()} == {
        model.name: ("photos", "accuracy", round(model.accuracy, 6), 28, 2) for model in found.models
    }
    images = read_image_dataset(folder / "photos")
    description = read_descriptions(where["table"])[images.digest]
    assert rows["small"].dataset_digest == images.digest == description["digest"] and description["name"] == "photos"

    runs = sorted((folder / "runs").rglob("metrics.json"))
    before = [run.stat().st_mtime_ns for run in runs]
    again = fine_tune_winners(winners(folder, "small", "large"), words, **where, images=images)
    assert again.models == found.models and sorted((folder / "runs").rglob("metrics.json")) == runs
    assert [run.stat().st_mtime_ns for run in runs] == before and len(read_results(where["table"])) == 2
    other = torch.nn.Module()
    other.stem, other.head = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 5)
    (small,) = winners(folder, "small")
    name = fine_tuning.run_name(small.entry, images, fine_tuning.Budget.of_settings(), 0)
    assert name == json.loads((found_folder(found, "small") / "label.json").read_text())["name"]
    save_file(other.state_dict(), folder / "small.safetensors")  # trained anew: its run is another one
    assert fine_tuning.run_name(small.entry, images, fine_tuning.Budget.of_settings(), 0) != name


@pytest.mark.slow
def test_models_none_of_which_can_be_tuned_are_told(tmp_path):
    folder = lay_out(tmp_path)
    words = DatasetWords(folder / "photos", None, None, None, 0)
    with pytest.raises(DataError, match="none of the models could be fine-tuned"):
        fine_tune_winners(winners(folder, "broken"), words, artifacts=folder / "runs", table=folder / "mine.csv",
                          device="cpu")  # fmt: skip


_PROGRAM = """
import sys
from pathlib import Path
from data.pretrained.zoo_manifest import read_zoo_manifest
from evaluation.recommendation import fine_tuning
from evaluation.recommendation.fine_tuning import DatasetWords, Winner, fine_tune_winners

folder = Path(sys.argv[1])
fine_tuning._SEEDS = 1
entry = next(entry for entry in read_zoo_manifest(folder / "zoo.yaml") if entry.name == "small")
found = fine_tune_winners(
    [Winner(entry, folder / "zoo.yaml", 0.9)], DatasetWords(folder / "photos", None, None, None, 0),
    artifacts=folder / "runs", table=folder / "mine.csv", device="cpu", say=lambda text: print(text, flush=True),
)
print(found.verdict)
"""


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    """Ctrl-C while a model trains: its run saves, and the same call goes on with it."""
    folder = lay_out(tmp_path)
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", _PROGRAM, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root) as process:
        for line in process.stdout:
            if line.startswith("  epoch 1/"):
                process.send_signal(signal.SIGINT)
                break
        process.communicate()
    (run,) = (folder / "runs" / "models" / "ImageClassifier" / "runs").iterdir()
    state = json.loads((run / "metrics.json").read_text())["state"]
    assert process.returncode != 0 and state in ("interrupted", "finished")
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert [run] == list((folder / "runs" / "models" / "ImageClassifier" / "runs").iterdir())
    assert json.loads((run / "metrics.json").read_text())["state"] == "finished" and "small reaches" in done.stdout


def test_intervals_are_paired_over_images_and_grow_with_the_spread_of_seeds():
    draw = np.random.default_rng(0)
    base = draw.random(200) < 0.8
    better = base | (draw.random(200) < 0.3)  # right wherever the other one is
    groups = np.arange(200)
    one = paired_draws(np.array([[better], [base]], float), groups)
    ahead = one[:, 0] - one[:, 1]
    assert np.quantile(ahead, 0.025) > 0 and abs(ahead.mean() - (better.mean() - base.mean())) < 0.01
    apart = paired_draws(np.array([[better], [draw.permutation(base)]], float), groups)
    assert (apart[:, 0] - apart[:, 1]).std() > 1.5 * ahead.std()
    seeds = [[np.roll(row, 1) if number else row for number in range(3)] for row in (better, base)]
    steady = paired_draws(np.array(seeds, float), groups)
    assert np.allclose(steady.std(0), one.std(0), rtol=0.5)
    noisy = np.array([[row & (draw.random(200) < share) for share in (1, 0.7, 0.4)] for row in (better, base)], float)
    assert (paired_draws(noisy, groups).std(0) > 2 * one.std(0)).all()


def test_descriptions_tell_datasets_apart(tmp_path):
    folder = lay_out(tmp_path)
    images = read_image_dataset(folder / "photos")
    one = describe_dataset(images)
    assert len(one["features"]) == len(one["spread"]) == 368 and one["largest_class"] == 0.5
    assert describe_dataset(images) == one and dataset_distance(one, one) == 0
    halves = [describe_dataset(images.subset(np.flatnonzero(images.labels == label))) for label in (0, 1)]
    assert dataset_distance(halves[0], halves[1]) > dataset_distance(one, halves[0]) > 0
    table = tmp_path / "t.csv"
    for name, each in (("all", one), ("half", halves[0]), ("all again", one)):
        add_description(table, name, each)
    assert {each["name"] for each in read_descriptions(table).values()} == {"all again", "half"}
    assert dataset_distance(one, one | {"encoder": "another"}) is None


def test_wrong_settings_are_told_before_any_model_is_run(users_project):
    folder = lay_out(users_project.path)
    settings = users_project.path / "config.ini"
    settings.write_text(settings.read_text().replace("tune = full", "tune = some"))
    done = users_project.run("photos", "--zoo", "zoo.yaml", "--fine-tune", "1", script="recommend.py", cwd=folder)
    assert done.returncode == 2 and "tune" in done.stderr and "full, head, lora" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (folder / "artifacts" / "features").exists()
