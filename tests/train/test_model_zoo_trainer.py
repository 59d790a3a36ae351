"""ModelZooTrainer through the command line: a family rebuilt from its seed, and what a user can get wrong."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from warm_python import run_python

from constants import PROJECT_ROOT, ZOO_DIR
from data.model_zoo import load_zoo
from data.zoo_images import load_domains, save_domains
from train.model_zoo_trainer import cosine_to_zero, snapshot_epochs

QUICK = ("families=mlp", "images_per_epoch=128", "plot_at_end=off", "saving_share=1")


def train(artifacts: Path, *words: str) -> subprocess.CompletedProcess:
    """Run `python train.py ModelZooTrainer` with a folder of its own for what it writes."""
    return run_python(["train.py", "ModelZooTrainer", f"artifacts_dir={artifacts}", *words], PROJECT_ROOT)


def runs(artifacts: Path) -> list[Path]:
    return sorted((artifacts / "models" / "ModelZoo" / "runs").iterdir())


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_rebuilding_a_family_gives_networks_of_the_recorded_accuracies(tmp_path):
    before = digests(ZOO_DIR)
    done = train(tmp_path, "families=mlp", "plot_at_end=off")
    assert done.returncode == 0, done.stderr
    committed = [entry for entry in load_zoo() if entry.family == "mlp"]
    rebuilt = load_zoo(runs(tmp_path)[0] / "zoo").entries
    assert [entry.name for entry in rebuilt] == [entry.name for entry in committed]
    for new, old in zip(rebuilt, committed, strict=True):
        assert (new.classes, new.epochs, new.seed, new.init_seed) == (old.classes, old.epochs, old.seed, old.init_seed)
        # Training amplifies rounding, which differs between processors and numbers of threads: each network may end a
        # little elsewhere, their mean must not.
        assert new.source_accuracy[-1] == pytest.approx(old.source_accuracy[-1], abs=0.06), new.name
    means = [sum(entry.source_accuracy[-1] for entry in entries) / len(entries) for entries in (rebuilt, committed)]
    assert means[0] == pytest.approx(means[1], abs=0.01)
    assert digests(ZOO_DIR) == before, "nothing is published unless asked for"


def test_run_folder_holds_the_zoo_its_metrics_and_the_population(tmp_path):
    done = train(tmp_path, *QUICK, "epochs=2", "threads=2")
    assert done.returncode == 0, done.stderr
    (run,) = runs(tmp_path)
    assert json.loads((run / "environment.json").read_text())["device"]["threads"] == 2
    found = json.loads((run / "metrics.json").read_text())
    zoo = load_zoo(run / "zoo")
    assert found["summary"]["networks"] == len(zoo) == 19
    assert found["summary"]["accuracy_by_family"].keys() == {"mlp"}
    assert {"train_accuracy", "val_accuracy", "train_cross_entropy", "val_cross_entropy"} <= found["history"].keys()
    weights = load_file(run / "model.safetensors")
    for number, entry in enumerate(zoo):
        assert torch.equal(weights[f"snapshots_{number}"], entry.vectors)
        assert torch.equal(weights[f"vectors.{number}"].half(), entry.vectors[-1]), "a finished network moves no more"


def test_resumed_run_builds_the_same_zoo_as_one_that_was_not_interrupted(tmp_path):
    words = (*QUICK, "epochs=4", "validate_every_n_epochs=1")
    assert train(tmp_path, *words, "keep_last_checkpoints=9").returncode == 0
    (run,) = runs(tmp_path)
    whole = digests(run / "zoo")
    # It becomes a run that stopped after its second epoch: what a later one wrote is taken away.
    for name in ("epoch-00003", "epoch-00004"):
        for file in (run / "checkpoints" / name).iterdir():
            file.unlink()
        (run / "checkpoints" / name).rmdir()
    for name in ("zoo/zoo.yaml", "zoo/weights.safetensors", "model.safetensors"):
        (run / name).unlink()
    done = train(tmp_path, *words, "--resume")
    assert done.returncode == 0, done.stderr
    assert "resumed run" in done.stdout + done.stderr
    assert digests(run / "zoo") == whole


def test_publishing_part_of_the_zoo_is_refused(tmp_path):
    done = train(tmp_path, *QUICK, "publish=on", f"zoo_dir={tmp_path / 'zoo'}")
    assert done.returncode == 2
    assert (
        "publish = on replaces the whole zoo, so families must be all: cnn3, cnn5, rescnn, mlp, mixer." in done.stderr
    )
    assert not (tmp_path / "zoo").exists()


def test_published_zoo_is_the_run_s_and_leaves_the_images_alone(tmp_path):
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "images.npz").write_bytes(b"as before")
    words = ("epochs=1", "images_per_epoch=64", "plot_at_end=off", "publish=on", f"zoo_dir={tmp_path / 'zoo'}")
    done = train(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert len(load_zoo(tmp_path / "zoo")) == 96
    published = digests(tmp_path / "zoo")
    assert published.pop("images.npz") == hashlib.sha256(b"as before").hexdigest()
    assert published == digests(runs(tmp_path)[0] / "zoo")


def test_snapshots_initialisations_and_images_are_the_user_s(tmp_path):
    domains = load_domains()
    save_domains({name: domains[name] for name in ("digits", "terrain")}, tmp_path / "images.npz")
    words = (f"images={tmp_path / 'images.npz'}", "images_per_epoch=64", "epochs=6", "plot_at_end=off")
    done = train(tmp_path, *words, "snapshots=2", "initialisations=1", "validate_every_n_epochs=6")
    assert done.returncode == 0, done.stderr
    (run,) = runs(tmp_path)
    zoo = load_zoo(run / "zoo")
    assert len(zoo) == 12 and set(zoo.domains) == {"digits", "terrain"}
    assert {entry.init_seed for entry in zoo} == {0}
    assert max(len(entry.vectors) for entry in zoo) == 2
    assert json.loads((run / "metrics.json").read_text())["history"]["val_epoch"] == [6]


@pytest.mark.parametrize(
    ("word", "code", "text"),
    [
        ("families=vit", 2, "families"),
        ("families=[]", 2, "families"),
        ("snapshots=0", 2, "snapshots"),
        ("epochs=0", 2, "epochs"),
        ("images=/nowhere/images.npz", 3, "there is no image file /nowhere/images.npz"),
        ("batch_size=2000", 3, "batch_size 2000 is more than images_per_epoch 512; lower it"),
    ],
)
def test_bad_settings_end_in_one_clear_error(tmp_path, word, code, text):
    done = train(tmp_path, word)
    assert done.returncode == code, done.stderr
    assert text in done.stderr and "Traceback" not in done.stderr


def test_snapshots_are_spread_over_a_training_and_end_with_it():
    assert snapshot_epochs(48, 4) == (3, 12, 27, 48)
    assert snapshot_epochs(3, 4) == (1, 2, 3)
    assert snapshot_epochs(1, 4) == (1,)
    assert snapshot_epochs(5, 1) == (5,)


def test_learning_rate_of_a_network_ends_at_zero_and_stays_there():
    factor = cosine_to_zero(10)
    rates = [factor(step) for step in range(13)]
    assert rates[0] == 1 and rates[5] == pytest.approx(0.5) and rates == sorted(rates, reverse=True)
    assert rates[10:] == [0, 0, 0] and rates[9] > 0
