"""Trainers with a train() of their own, through the command line: what `self.epochs()` does, and what is refused."""

import json
import re
from pathlib import Path

import pytest
import torch
from doc_pages import blocks_of
from safetensors.torch import load_file

STEPS = 14  # of an epoch: 67 samples in batches of 5


def metrics(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def files(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.suffix != ".log"}


def train(project, *words: str, code: int = 0):
    done = project.run("Looped", *words)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done, project.runs("Looped")[-1]


@pytest.fixture(scope="module")
def whole(shared_project) -> Path:
    """A run of the short form that nobody stops."""
    return train(shared_project)[1]


def assert_same_run(run: Path, other: Path, last: str = "epoch-00004") -> None:
    left, right = metrics(run), metrics(other)
    assert (left["history"], left["best"]) == (right["history"], right["best"])
    assert left["summary"]["steps"] == right["summary"]["steps"]
    for name in ("weights.safetensors", "state.safetensors"):
        one, two = (load_file(folder / "checkpoints" / last / name) for folder in (run, other))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), name
    assert (run / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_a_short_body_is_enough(shared_project, whole):
    found = metrics(whole)
    history = found["history"]
    assert {name: len(values) for name, values in history.items()} == {
        "train_loss": 4, "val_loss": 4, "val_epoch": 4, "learning_rate": 4
    }  # fmt: skip
    assert history["learning_rate"] == [0.01, 0.01, 0.005, 0.005], "those of the epoch's steps"
    assert history["train_loss"][-1] < 0.8 * history["train_loss"][0]
    assert (found["state"], found["summary"]["epochs"], found["summary"]["steps"]) == ("finished", 4, 4 * STEPS)
    best = found["best"]["epoch"]
    assert found["best"]["val_loss"] == min(history["val_loss"]) == history["val_loss"][best - 1]
    weights = load_file(whole / f"checkpoints/epoch-{best:05d}/weights.safetensors")
    assert all(torch.equal(weights[key], value) for key, value in load_file(whole / "model.safetensors").items())


def test_a_body_that_validates_and_stops_by_itself_gives_the_same_numbers(shared_project, whole):
    _, run = train(shared_project, "form=full")
    assert_same_run(run, whole)


@pytest.mark.parametrize(
    ("stop", "code", "epoch"), [(("stop_at=20",), 143, 1), (("stop_at=31", "stop_signal=SIGKILL"), -9, 2)]
)
def test_a_run_that_was_cut_off_does_its_epoch_anew_to_the_same_bits(shared_project, whole, stop, code, epoch):
    _, run = train(shared_project, *stop, "saving_share=1", code=code)
    done, same = train(shared_project, "--resume", run.name)
    assert same == run
    assert f"resumed run {run.name} after epoch {epoch} from" in done.stdout
    assert f"epoch {epoch + 1}/4: " in done.stdout and "epoch 4/4: " in done.stdout
    assert_same_run(run, whole)


def test_more_epochs_are_those_of_a_longer_run(shared_project, whole):
    _, run = train(shared_project, "epochs=2")
    assert metrics(run)["summary"]["steps"] == 2 * STEPS
    done, _ = train(shared_project, "epochs=4", "--resume", run.name)
    assert_same_run(run, whole)
    assert "epoch 3/4: " in done.stdout
    done, _ = train(shared_project, "--resume", run.name)
    assert "all 4 epochs of this run are done; raise epochs to train on" in done.stdout
    assert_same_run(run, whole)


def test_early_stopping_ends_the_loop_whoever_asks(shared_project):
    for form in ("short", "full"):
        done, run = train(
            shared_project, f"form={form}", "epochs=9", "early_stopping_patience=2", "early_stopping_min_delta=1000"
        )
        assert metrics(run)["state"] == "early_stopped"
        assert metrics(run)["summary"]["epochs"] == len(metrics(run)["history"]["val_loss"]) == 3
        assert done.stdout.count("early stopping: 2 validations without improvement") == 1
    _, run = train(shared_project, "validate_every_n_epochs=3")
    assert metrics(run)["history"]["val_epoch"] == [3, 4]


def test_an_epoch_that_was_left_by_break_is_whole(shared_project, whole):
    _, run = train(shared_project, "form=break")
    assert metrics(run)["state"] == "finished"
    assert metrics(run)["history"]["val_loss"] == metrics(whole)["history"]["val_loss"][:3]
    assert (run / "checkpoints/epoch-00003").is_dir()
    train(shared_project, "form=short", "--resume", run.name)
    assert_same_run(run, whole)


def test_a_train_that_calls_that_of_the_base_class_is_resumed_as_it_is(shared_project):
    _, expected = train(shared_project, "form=super")
    assert metrics(expected)["summary"]["steps"] == 4 * STEPS
    _, run = train(shared_project, "form=super", "epochs=2")
    train(shared_project, "form=super", "epochs=4", "--resume", run.name)
    assert_same_run(run, expected)


def test_a_loss_that_is_not_finite_ends_the_run_before_it_is_saved(shared_project):
    done, run = train(shared_project, "fault=nan", code=4)
    assert (
        "error: the mean training loss of epoch 2 is nan: the run ends here, and its newest checkpoint is of epoch 1"
        in (done.stderr)
    )
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["epoch-00001"]
    assert metrics(run)["state"] == "failed"


# ------------------------------------------------------------------------------------------------------ plain loops


@pytest.mark.parametrize("form", ["plain", "plain_saving"])
@pytest.mark.parametrize("stop", [(), ("stop_at=30", "stop_signal=SIGKILL")], ids=["finished", "killed"])
def test_a_plain_loop_never_begins_anew_over_what_it_has_done(shared_project, form, stop):
    _, run = train(shared_project, f"form={form}", *stop, code=-9 if stop else 0)
    before, epochs = files(run), 2 if stop else 4
    assert metrics(run)["summary"] | {"epochs": epochs, "steps": epochs * STEPS} == metrics(run)["summary"]
    done, _ = train(shared_project, f"form={form}", "epochs=6", "--resume", run.name, code=2)
    assert "`for epoch in self.epochs():`" in done.stderr and "without --resume a new run starts" in done.stderr.lower()
    assert files(run) == before, "nothing was touched"


def test_a_plain_loop_that_was_stopped_in_its_first_epoch_begins_anew(shared_project):
    _, run = train(shared_project, "form=plain", "stop_at=3", code=143)
    done, same = train(shared_project, "form=plain", "--resume", run.name)
    assert same == run and f"run {run.name} has no checkpoint yet; it begins anew" in done.stdout
    assert metrics(run)["summary"]["epochs"] == 4


def test_a_finished_run_without_checkpoints_is_not_begun_anew(shared_project):
    """Also one of the base class's loop, whose checkpoints somebody has removed."""
    assert shared_project.run("FeatureFusion", "epochs=1").returncode == 0
    run = shared_project.runs("FeatureFusion")[-1]
    (run / "checkpoints").rename(run.parent.parent / "gone")
    before = files(run)
    done = shared_project.run("FeatureFusion", "epochs=2", "--resume", run.name)
    assert done.returncode == 2
    assert f"error: run {run.name} has no checkpoint to go on from, but has trained 1 epoch (finished)" in done.stderr
    assert files(run) == before


# ---------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 138), ("SIGINT", 130)])
def test_a_signal_in_after_training_ends_the_run_as_ctrl_c_does(shared_project, whole, name, code):
    done, run = train(shared_project, "stop_at=after", f"stop_signal={name}", code=code)
    assert done.stderr.startswith(f"error: interrupted by {name}")
    assert metrics(run)["state"] == "interrupted"
    train(shared_project, "--resume", run.name)
    assert metrics(run)["state"] == "finished"
    assert_same_run(run, whole)


# ------------------------------------------------------------------------------------------------ several optimizers


@pytest.fixture(scope="module")
def gan(users_project):
    """The GAN of docs/writing_a_trainer.md, as its page writes it."""
    for block in blocks_of("docs/writing_a_trainer.md"):
        note = block.note("file") or block.note("append")
        if note and ("ring_gan" in note.text or "[RingGanTrainer]" in block.text):
            if note.kind == "file":
                (users_project.path / note.text).write_text(block.text)
            else:
                users_project.append(note.text, "\n" + block.text)
    return users_project


def test_the_pages_gan_learns(gan):
    done = gan.run("RingGan", "plot_at_end=off")
    assert done.returncode == 0, done.stderr
    history = metrics(gan.runs("RingGan")[-1])["history"]
    assert min(history["val_loss"]) < 0.15 < 1 < history["val_loss"][0], "how far its points are from the ring"
    assert len(history["train_discriminator"]) == len(history["train_loss"]) == 40


def test_the_pages_gan_is_resumed_to_the_same_bits(gan):
    """Both networks and both optimizers, though only one of each has a name that the framework knows."""
    words = ("plot_at_end=off", "batch_size=256")
    assert gan.run("RingGan", *words, "epochs=4").returncode == 0
    whole = gan.runs("RingGan")[-1]
    assert gan.run("RingGan", *words, "epochs=2").returncode == 0
    part = gan.runs("RingGan")[-1]
    done = gan.run("RingGan", "epochs=4", "--resume", part.name)
    assert done.returncode == 0 and "epoch 3/4: " in done.stdout, done.stderr
    assert_same_run(part, whole)
    assert metrics(whole)["summary"]["steps"] == 4 * 8


# --------------------------------------------------------------------------------------------------------- --check


def check(project, *words: str, code: int = 0) -> str:
    done = project.run("Looped", "--check", *words)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_the_check_looks_at_what_an_own_train_does(shared_project):
    shown = check(shared_project)
    assert re.search(r"ok +loss falls .*\n +its own train\(\): [\d.]+ to [\d.]+ in 5 epochs of 4 batches\n", shown)
    assert re.search(
        r"ok +checkpoint round trip .*\n +its own train\(\) saves, and goes on after an epoch to the same bits\n", shown
    )


def test_the_check_tells_an_own_train_that_learns_nothing_or_saves_nothing(shared_project):
    shown = check(shared_project, "fault=zeroed", "gradient_clip_value=0", code=4)
    assert re.search(r"FAILED +loss falls .*\n +its own train\(\) changes no weight in 20 steps\n", shown)
    assert "clip_grad_norm_ with gradient_clip_value = 0 zeroes all gradients; self.clip_gradients() doesn't" in shown
    shown = check(shared_project, "form=plain")
    assert re.search(
        r"warning +checkpoint round trip .*\n +its own train\(\) saves none, so that a run which is", shown
    )
    shown = check(shared_project, "form=plain_saving")
    assert re.search(
        r"warning +checkpoint round trip .*\n +its own train\(\) is a plain loop, which --resume ref", shown
    )
