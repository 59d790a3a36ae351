"""Training through the command line: the contract's trainers, their files, resume, and what a user gets wrong."""

import json
import math
import resource
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


def metrics(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def test_contract_trainer_runs_and_leaves_a_full_run_folder(shared_project):
    done = shared_project.run("FeatureFusionTrainer", "epochs=3")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no bar, no warnings"
    run = shared_project.runs("FeatureFusion")[-1]
    found = metrics(run)
    assert (found["state"], found["trainer"], found["schema_version"]) == ("finished", "FeatureFusionTrainer", 1)
    history = found["history"]
    assert [len(history[name]) for name in ("train_loss", "val_loss", "learning_rate")] == [3, 3, 3]
    assert history["val_epoch"] == [1, 2, 3]
    assert found["best"]["val_loss"] == min(history["val_loss"])
    assert found["summary"]["steps"] == 3 * 4  # 100 samples in batches of 32, the last one short
    assert found["summary"]["parameters"] == 16 * 8 + 8 + 8 * 16 + 16
    for name in ("config.ini", "environment.json", "train.log", "model.safetensors"):
        assert (run / name).stat().st_size > 0
    published = shared_project.path / "artifacts/models/FeatureFusion/model.safetensors"
    assert published.read_bytes() == (run / "model.safetensors").read_bytes()
    assert "\x1b" not in done.stdout + (run / "train.log").read_text(), "no colours off a terminal"
    assert "280 parameters" in done.stdout and "left" in done.stdout


def test_the_validation_loss_is_the_mean_over_samples(shared_project):
    """30 validation samples in batches of 7: the last batch has 2, which must not count as much as 7."""
    assert shared_project.run("FeatureFusion", "epochs=1", "batch_size=7").returncode == 0
    run = shared_project.runs("FeatureFusion")[-1]
    weights = load_file(run / "model.safetensors")
    basis = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    samples = torch.randn(30, 3, generator=torch.Generator().manual_seed(2)) @ basis
    hidden = torch.relu(samples @ weights["encoder.weight"].T + weights["encoder.bias"])
    output = hidden @ weights["decoder.weight"].T + weights["decoder.bias"]
    expected = float((output - samples).square().mean())
    assert metrics(run)["history"]["val_loss"] == [pytest.approx(expected, rel=1e-5)]


def test_the_plateau_scheduler_steps_on_the_validation_loss(shared_project):
    """Also shows that a trainer can be built and trained from Python, without the command line."""
    (shared_project.path / "spy.py").write_text(
        "import json\n"
        "from config import ConfigParser\n"
        "ConfigParser.use(None, ['epochs=4'], 'FeatureFusionTrainer')\n"
        "from train import TRAINER_REGISTRY\n"
        "trainer = TRAINER_REGISTRY['featurefusion']()\n"
        "seen, kind = [], type(trainer.scheduler)\n"
        "step = kind.step\n"
        "kind.step = lambda self, loss: (seen.append(loss), step(self, loss))\n"
        "trainer.train()\n"
        "print(json.dumps({'seen': seen, **trainer.history}))\n"
    )
    done = shared_project.run(script="spy.py")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["seen"] == found["val_loss"] != found["train_loss"]
    assert metrics(shared_project.runs("FeatureFusion")[-1])["state"] == "finished"


def test_the_config_a_run_saves_can_be_run_again_to_the_same_bits(shared_project):
    shared_project.run("featurefusion", "epochs=2", "dropout=0.3", "seed=5")
    first = shared_project.runs("FeatureFusion")[-1]
    again = shared_project.run("FeatureFusion", "--config", first / "config.ini", cwd=shared_project.path.parent)
    assert again.returncode == 0, again.stderr
    second = shared_project.runs("FeatureFusion")[-1]
    assert first != second
    assert (first / "config.ini").read_text() == (second / "config.ini").read_text()
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert metrics(first)["history"] == metrics(second)["history"]


def test_trainer_with_a_loop_of_its_own_just_works(shared_project):
    done = shared_project.run("own_loop".replace("_", ""), "epochs=5")
    assert done.returncode == 0, done.stderr
    run = shared_project.runs("OwnLoop")[-1]
    found = metrics(run)
    history = found["history"]
    expected = {"train_loss", "val_loss", "val_epoch", "learning_rate", "train_top1", "val_top1"}
    assert set(history) == expected
    assert all(len(values) == 5 for values in history.values()), history
    assert history["val_epoch"] == [1, 2, 3, 4, 5]
    assert found["best"]["epoch"] == 1 + history["val_loss"].index(min(history["val_loss"]))
    assert found["state"] == "finished"
    assert (run / "model.safetensors").exists()


def test_resume_gives_the_bits_of_an_uninterrupted_run(shared_project):
    words = ("FeatureFusion", "dropout=0.2", "keep_last_checkpoints=9")
    assert shared_project.run(*words, "epochs=4").returncode == 0
    whole = shared_project.runs("FeatureFusion")[-1]
    assert shared_project.run(*words, "epochs=2").returncode == 0
    part = shared_project.runs("FeatureFusion")[-1]
    done = shared_project.run(*words, "epochs=4", "--resume")
    assert done.returncode == 0, done.stderr
    assert shared_project.runs("FeatureFusion")[-1] == part, "a resumed run stays in its folder"
    assert metrics(part)["history"] == metrics(whole)["history"]
    for name in ("weights.safetensors", "state.safetensors"):
        left, right = (load_file(run / "checkpoints/epoch-00004" / name) for run in (part, whole))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left), name
    assert (part / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_resume_skips_a_damaged_checkpoint_aloud(project):
    project.run("FeatureFusion", "epochs=3", "keep_last_checkpoints=3")
    run = project.runs("FeatureFusion")[-1]
    damaged = run / "checkpoints/epoch-00003/weights.safetensors"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    done = project.run("FeatureFusion", "epochs=4", "--resume", run.name)
    assert done.returncode == 0, done.stderr
    assert "epoch-00003 is damaged and is skipped: weights.safetensors does not have the digest" in done.stdout
    assert len(metrics(run)["history"]["train_loss"]) == 4


def test_resume_says_what_runs_there_are(shared_project):
    done = shared_project.run("Faulty", "--resume", "20200101-000000")
    assert done.returncode == 2
    assert "no run '20200101-000000' to resume" in done.stderr and "runs there: " in done.stderr


def test_resume_refuses_another_model(project):
    project.run("FeatureFusion", "epochs=1")
    done = project.run("FeatureFusion", "hidden_dim=9", "--resume")
    assert done.returncode == 2
    assert "does not fit FeatureFusionTrainer as it is now" in done.stderr and "size mismatch" in done.stderr
    assert "Traceback" not in done.stderr


def test_early_stopping_ends_the_run(shared_project):
    done = shared_project.run("FeatureFusion", "epochs=9", "early_stopping_patience=2", "early_stopping_min_delta=1000")
    assert done.returncode == 0, done.stderr
    found = metrics(shared_project.runs("FeatureFusion")[-1])
    assert found["state"] == "early_stopped"
    assert found["summary"]["epochs"] == 3  # the first counts as an improvement over nothing, then patience 2
    assert "early stopping: 2 validations without improvement" in done.stdout


def test_validation_every_n_epochs_and_after_the_last(shared_project):
    shared_project.run("FeatureFusion", "epochs=5", "validate_every_n_epochs=2")
    history = metrics(shared_project.runs("FeatureFusion")[-1])["history"]
    assert history["val_epoch"] == [2, 4, 5]
    assert (len(history["train_loss"]), len(history["val_loss"])) == (5, 3)


def test_warm_up_and_cosine_step_with_the_optimizer(shared_project):
    """The rates that are recorded are those that the steps used: never the 0 at the schedule's end."""
    done = shared_project.run("Faulty", "fault=step_scheduler", "epochs=4", "learning_rate=0.1", "log_every_n_steps=1")
    found = metrics(shared_project.runs("Faulty")[-1])
    warm_up = [0.02, 0.04, 0.06, 0.08, 0.1]  # of 5 steps, an epoch; then a cosine over the other 15
    used = warm_up + [0.05 * (1 + math.cos(math.pi * step / 15)) for step in range(15)]
    assert found["readings"]["learning_rate"] == pytest.approx(used)
    assert found["history"]["learning_rate"] == pytest.approx([used[4], used[9], used[14], used[19]])
    assert used[-1] > 1e-3 and f"learning_rate {used[-1]:.4g}" in done.stdout.splitlines()[-3]


def test_a_run_stopped_after_an_epochs_last_step_records_the_same_rates(shared_project):
    words = ("Faulty", "fault=step_scheduler", "epochs=2", "learning_rate=0.1")
    shared_project.run(*words)
    whole = metrics(shared_project.runs("Faulty")[-1])
    stopping = (
        "import sys; from train.callbacks import Callback\n"
        "class StopAt(Callback):\n"
        "    def on_step_end(self, trainer, steps):\n"
        "        if trainer.record.progress.step == 5:\n"
        "            trainer.stop_request.ask('enough')\n"
    )
    (shared_project.path / "train/stop_at.py").write_text(stopping)
    stopped = shared_project.run(*words, "callbacks=train.stop_at:StopAt")
    assert "interrupted" in stopped.stderr, stopped.stderr
    part = shared_project.runs("Faulty")[-1]
    assert (part / "checkpoints/epoch-00000-step-00000005").is_dir()
    assert shared_project.run(*words, "--resume", part.name).returncode == 0
    assert metrics(part)["history"] == whole["history"] and metrics(part)["readings"] == whole["readings"]


def test_an_epoch_scheduler_steps_each_epoch(shared_project):
    shared_project.run("Faulty", "epochs=3", "learning_rate=0.1")
    assert metrics(shared_project.runs("Faulty")[-1])["history"]["learning_rate"] == [0.1, 0.05, 0.025]


def test_dry_run_shows_the_plan_and_leaves_nothing(project):
    done = project.run("FeatureFusion", "--dry-run", "epochs=7", "accumulation_steps=3")
    assert done.returncode == 0, done.stderr
    for text in (
        "280 parameters", "100 samples, 4 batches of 32", "2 optimizer steps each (14 in all)", "ReduceLROnPlateau, "
        "steps on the validation loss", "first forward pass, train: loss ", "nothing was trained",
    ):  # fmt: skip
        assert text in done.stdout
    assert not (project.path / "artifacts").exists()


FAULTS = {
    "wrong_shape": (
        3,
        [
            "FaultyTrainer.compute_loss fails with the first batch of train_loader",
            "tensor (8, 9) float32",
            "failed: model/feature_fusion_model.py:17 in forward: RuntimeError",
            "8x9",
            "takes 16 values a row; it was given 9",
        ],
    ),
    "vector_loss": (2, ["compute_loss returned a tensor (8,) float32; the loss must be a scalar: take its .mean()"]),
    "float_loss": (2, ["compute_loss returned", "it must be a scalar tensor"]),
    "no_gradient": (2, ["a loss without gradient"]),
    "empty_train": (3, ["a dataset is empty; a loader needs at least one sample"]),
    "empty_val": (3, ["val_loader gives no batches: its dataset has 0 samples"]),
    "drops_all": (3, ["train_loader gives no batches: its dataset has 40 samples, batch_size is 64, and drop_last"]),
    "bad_item": (
        3,
        ["train_loader.dataset[26] can't be read: train/faulty_trainer.py", "OSError: image 26 is "],
    ),
    "missing_file": (3, ["No such file or directory: '/nowhere/data.bin'"]),
    "nan_loss": (4, ["in step 1 of epoch 3 (step 11 of the run): the loss is nan", "new run with learning_rate=0.001"]),
    "val_nan": (4, ["in the validation after epoch 2 (step 10 of the run): the loss is nan"]),
    "bug_in_loss": (4, ["train/faulty_trainer.py:", "AttributeError", "no_such_attribute", "--debug"]),
    "no_parts": (2, ["has not made self.scheduler, self.init_progress_bar(...)", "7 super().__init__()"]),
    "no_super": (2, ["FaultyTrainer.__init__ must call super().__init__()"]),
    "interrupt": (130, ["interrupted by SIGINT; go on with: ", "train.py Faulty --resume 2"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_in_one_clear_error(shared_project, fault):
    code, texts = FAULTS[fault]
    before = len(shared_project.runs("Faulty"))
    done = shared_project.run("Faulty", f"fault={fault}")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.startswith("error: ")
    for text in texts:
        assert text in done.stderr
    new = shared_project.runs("Faulty")[before:]
    if fault in ("nan_loss", "val_nan", "interrupt", "bug_in_loss"):
        assert metrics(new[0])["state"] == ("interrupted" if fault == "interrupt" else "failed")
        assert (fault == "bug_in_loss") == ("AttributeError" in (new[0] / "train.log").read_text())
    else:
        assert new == [], "a run that never began leaves no folder"
    if fault in ("nan_loss", "val_nan", "interrupt"):  # what was saved before is whole
        epochs = 1 if fault == "val_nan" else 2
        assert len(metrics(new[0])["history"]["train_loss"]) == epochs
        saved = sorted(path.name for path in (new[0] / "checkpoints").iterdir())
        if fault == "interrupt":
            assert saved == ["epoch-00002", "epoch-00002-step-00000001"]
        else:
            assert saved == ["epoch-00001", "epoch-00002"][:epochs]


def test_debug_shows_the_traceback(shared_project):
    done = shared_project.run("Faulty", "fault=wrong_shape", "--debug")
    assert done.returncode == 3
    assert "Traceback" in done.stderr and "mat1 and mat2" in done.stderr


def test_artifacts_folder_that_cannot_be_written(shared_project, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    for folder in (blocked / "artifacts", "/proc/menagerie"):
        done = shared_project.run("FeatureFusion", f"artifacts_dir={folder}")
        assert done.returncode == 4
        assert f"error: cannot write {folder}/models/FeatureFusion/runs" in done.stderr
        assert "artifacts_dir" in done.stderr and "Traceback" not in done.stderr


def test_disk_that_fills_up_keeps_what_was_saved(project):
    """A limit on the size of files stands for a full disk: the write fails in the same place, by the same way."""
    project.run("FeatureFusion", "epochs=2")
    run = project.runs("FeatureFusion")[-1]
    saved = {path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()}
    limited = (
        "import resource, runpy, sys; sys.argv = ['train.py', 'FeatureFusion', 'epochs=9', '--resume'];"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000));"
        "runpy.run_path('train.py', run_name='__main__')"
    )
    (project.path / "limited.py").write_text(limited)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = project.run(script="limited.py")
    assert done.returncode == 4, done.stdout
    assert "cannot write" in done.stderr and "bytes free on that file system" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in saved} == saved
    assert not [path for path in run.rglob("*") if "tmp" in path.name]
    again = project.run("FeatureFusion", "epochs=4", "--resume")
    assert again.returncode == 0, again.stderr
    assert metrics(run)["state"] == "finished" and len(metrics(run)["history"]["train_loss"]) == 4


def test_nothing_is_left_behind_in_the_current_folder(shared_project, tmp_path):
    assert shared_project.run("FeatureFusion", "epochs=1", cwd=tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == []
    assert not [path for path in shared_project.path.iterdir() if path.suffix == ".log"]


def test_two_runs_started_together_get_two_folders(tmp_path):
    from storage.run_folder import RunFolder

    folders = [RunFolder.create(tmp_path, "Same").path for _ in range(12)]
    assert len(set(folders)) == 12
    assert RunFolder.find(tmp_path, "Same", "latest").path == folders[-1], "-10 comes after -9"
    assert all(stat.S_ISDIR(folder.stat().st_mode) for folder in folders)
