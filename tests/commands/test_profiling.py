"""`--profile` through the command line: its table, its trace, and that it leaves other runs alone."""

import json
import re
from types import SimpleNamespace

import pytest

from commands.profile_report import verdict
from commands.profiling import Profile

PHASES = ("data", "forward", "backward", "update")
ROWS = ("data (loading, moving)", "forward, with the loss", "backward", "clip and optimizer", "the loop itself")


@pytest.fixture(scope="module")
def profiled(shared_project):
    done = shared_project.run("FeatureFusion", "--profile")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = shared_project.runs("FeatureFusion")
    return done, run


def milliseconds(text: str, row: str) -> float:
    return float(re.search(rf"{re.escape(row)} +([\d.]+) +[\d.]+", text)[1])


def test_the_table_adds_up_and_the_rest_is_told(profiled):
    done, run = profiled
    parts = [milliseconds(done.stdout, row) for row in ROWS]
    assert sum(parts) == pytest.approx(milliseconds(done.stdout, "INFO " + "  step"), abs=0.005)
    assert all(part > 0 for part in parts)
    for text in (
        "mean of 25 steps",
        "peak memory: ",
        "FLOP a step",
        "% of the ",
        "that a matrix product of ",
        "aten::",
        "bound by ",  # by what depends on the machine and its load; the verdicts themselves are tried below
    ):
        assert text in done.stdout
    assert done.stderr == ""  # torch's profiler has nothing to say there
    saved = json.loads((run / "profile" / "profile.json").read_text())
    # 16 -> 8 -> 16: two products forward, two for the weights' gradients, one for the hidden gradient, of 2*16*8 each.
    assert saved["flops"] == pytest.approx(5 * 2 * 16 * 8 * saved["samples"])
    assert saved["samples"] == pytest.approx(25, abs=1)  # 100 samples in four batches, one of them short
    assert sum(saved["phases"].values()) == pytest.approx(saved["step"])
    assert saved["steps_per_epoch"] == 4


def test_the_trace_has_the_phases_as_named_ranges(profiled):
    _, run = profiled
    events = json.loads((run / "profile" / "trace.json").read_text())["traceEvents"]
    names = [event.get("name") for event in events if event.get("ph") == "X"]
    for phase in PHASES:
        assert names.count(phase) == 25
    assert "aten::addmm" in names


def test_nothing_but_the_profile_is_written(profiled, shared_project):
    _, run = profiled
    assert {path.name for path in run.iterdir()} == {
        "config.ini",
        "environment.json",
        "profile",
        "segments.json",
        "train.log",
    }
    assert not (run.parent.parent / "model.safetensors").exists()
    assert "where a step's time goes" in (run / "train.log").read_text()


@pytest.mark.slow
def test_resume_finds_the_run_before_the_profile(project):
    assert project.run("FeatureFusion", "epochs=1").returncode == 0
    assert project.run("FeatureFusion", "--profile").returncode == 0
    first, profile = project.runs("FeatureFusion")
    published = (first.parent.parent / "model.safetensors").read_bytes()
    done = project.run("FeatureFusion", "--resume", "epochs=2")
    assert done.returncode == 0, done.stderr
    assert json.loads((first / "metrics.json").read_text())["summary"]["epochs"] == 2
    assert (first.parent.parent / "model.safetensors").read_bytes() != published
    refused = project.run("FeatureFusion", "--resume", profile.name)
    assert refused.returncode == 2
    assert f"no run '{profile.name}' to resume" in refused.stderr


def test_a_profile_alone_is_nothing_to_resume(profiled, shared_project):
    done = shared_project.run("FeatureFusion", "--resume")
    assert done.returncode == 2
    assert "no run 'latest' to resume" in done.stderr


@pytest.mark.parametrize("other", ["--resume", "--dry-run"])
def test_a_profile_goes_with_nothing_else(shared_project, other):
    done = shared_project.run("Faulty", "--profile", other)
    assert done.returncode == 2
    first, second = sorted(("--profile", other), key=["--dry-run", "--profile", "--resume"].index)
    assert done.stderr == f"error: {first} and {second} don't go together: use one at a time\n"
    assert not shared_project.runs("Faulty")


def test_a_trainer_with_its_own_loop_is_profiled_by_its_hooks(shared_project):
    done = shared_project.run("OwnLoop", "--profile", "accumulation_steps=2", "gradient_clip_value=0")
    assert done.returncode == 0, done.stderr
    assert "OwnLoopTrainer has a train() of its own; profiled are plain steps of its loss function" in done.stdout
    (run,) = shared_project.runs("OwnLoop")
    saved = json.loads((run / "profile" / "profile.json").read_text())
    assert saved["steps_per_epoch"] == 2  # three batches, two a step
    events = json.loads((run / "profile" / "trace.json").read_text())["traceEvents"]
    names = [event.get("name") for event in events if event.get("ph") == "X"]
    assert names.count("forward") == 2 * names.count("update")


def test_an_error_of_the_trainer_is_told_as_in_a_run(shared_project):
    done = shared_project.run("Faulty", "--profile", "fault=bug_in_loss")
    assert done.returncode == 4
    assert "no_such_attribute" in done.stderr and "train/faulty_trainer.py" in done.stderr
    (run,) = shared_project.runs("Faulty")
    assert "Traceback" in (run / "train.log").read_text()


class Loader:
    """A DataLoader as far as advice looks at it."""

    num_workers = 0


def profile_of(data=1.0, forward=1.0, backward=1.0, update=1.0, **more) -> Profile:
    given = {"operators": 30, "flops": 0, "peak_flops": 1e9, "top": [("aten::mul", 1.0, 1.0, 1.0)], "epoch_start": 0.0}
    phases = {"data": data, "forward": forward, "backward": backward, "update": update, "other": 0.1}
    return Profile(phases=phases, steps=25, steps_per_epoch=10, samples=32, **given | more)


@pytest.mark.parametrize(
    ("profile", "texts"),
    [
        (profile_of(data=9.0), ["bound by data (74 % of the step)", "num_workers = 2", "TensorLoader"]),
        (profile_of(data=9.0, epoch_start=80.0), ["bound by data", "the start of an epoch", "persistent_workers"]),
        (profile_of(flops=3_000_000), ["bound by matrix products, at 73 % of the speed of a large product"]),
        (profile_of(operators=1000), ["small operators: 1,000 of 3.0 us a step", "a larger batch_size"]),
        (profile_of(busy=0.2), ["small operators: 30 of 100.0 us a step, the device works 20 % of the time"]),
        (profile_of(update=9.0), ["memory traffic of clip and optimizer (74 % of the step)", "accumulation_steps"]),
        (profile_of(top=[("aten::mm", 1.0, 1.0, 0.9)]), ["matrix products too small for the device (90 %"]),
        (profile_of(), ["no matrix products, most of all aten::mul (100 %)"]),
        (profile_of(top=[("aten::bernoulli_", 1.0, 1.0, 0.5)]), ["aten::bernoulli_ (50 %)", "less dropout"]),
    ],
)
def test_what_bounds_a_run_follows_its_numbers(profile, texts):
    sentence = verdict(trainer_on("cpu"), profile)
    for text in texts:
        assert text in sentence


def trainer_on(device: str, **config) -> SimpleNamespace:
    return SimpleNamespace(train_loader=Loader(), config=SimpleNamespace(**config), device=SimpleNamespace(type=device))


def test_advice_names_settings_that_the_trainer_has_and_the_device_gains_by():
    small, products = profile_of(operators=1000), profile_of(flops=3_000_000)
    assert verdict(trainer_on("cpu", step="auto"), small).endswith(
        "try step = epoch (or compiled), or a larger batch_size"
    )
    assert verdict(trainer_on("cpu"), small).endswith("try a larger batch_size")
    assert verdict(trainer_on("cuda", precision="fp32"), products).endswith("try precision = bf16, or a smaller model")
    assert verdict(trainer_on("cpu", precision="fp32"), products).endswith("try a smaller model")
