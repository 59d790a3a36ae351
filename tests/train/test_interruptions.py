"""A run that is interrupted anywhere, by real signals in real processes, goes on to the bits of one that was not."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent.parent
LAST = "epoch-00004"
CASES = {
    "inside epoch 1, loader and noise of the global generators": ("stop_at=3",),
    "inside epoch 2, two workers, every loss read": ("stop_at=20", "num_workers=2", "log_every_n_steps=1"),
    "inside epoch 3, orders from the epoch": ("stop_at=33", "loader=made", "schedule=cosine", "log_every_n_steps=4"),
    "orders from the epoch, two workers": ("stop_at=17", "loader=made", "num_workers=2"),
    "inside an accumulation": ("stop_at=18", "accumulation_steps=3", "loader=tensors"),
    "with an average and half precision": ("stop_at=20", "ema_decay=0.9", "precision=bf16", "loader=tensors"),
    "in the first step": ("stop_at=1", "schedule=cosine"),
    "in the last step of an epoch": ("stop_at=14",),
    "in a validation": ("stop_at=val",),
    "in a validation, with an average": ("stop_at=val", "ema_decay=0.9", "num_workers=2"),
    "a generator of the loader's own": ("stop_at=33", "loader=own"),
    "a generator of the loader's own, two workers": ("stop_at=20", "loader=own", "num_workers=2"),
    "written in the background": ("stop_at=20", "save_in_background=on", "checkpoint_every_n_steps=3"),
}


def train(project, *words: str):
    return project.run("Resumable", *words)


def whole_run(project, *words: str, known: dict[tuple, Path] = {}) -> Path:  # noqa: B006 - runs once for all tests
    """Return a run with some settings that nobody interrupts."""
    if (project.path, words) not in known:
        assert train(project, *words).returncode == 0
        known[project.path, words] = project.runs("Resumable")[-1]
    return known[project.path, words]


def assert_same_run(run: Path, whole: Path) -> None:
    """Compare all that two runs have written."""
    left, right = (json.loads((folder / "metrics.json").read_text()) for folder in (run, whole))
    assert left["history"] == right["history"]
    assert left["readings"] == right["readings"]
    assert left["best"] == right["best"]
    for name in ("weights.safetensors", "state.safetensors"):
        one, other = (load_file(folder / "checkpoints" / LAST / name) for folder in (run, whole))
        assert one.keys() == other.keys()
        different = [key for key in one if not torch.equal(one[key], other[key])]
        assert not different, different
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


SLOW = (
    "in the first step",
    "in the last step of an epoch",
    "orders from the epoch, two workers",
    "a generator of the loader's own, two workers",
    "in a validation, with an average",
    "written in the background",
    "inside epoch 1, loader and noise of the global generators",
)


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case in SLOW)) for case in CASES])
def test_a_run_that_was_stopped_by_a_signal_goes_on_to_the_same_bits(case, shared_project):
    stop, *words = CASES[case]
    whole = whole_run(shared_project, *words)
    stopped = train(shared_project, *words, stop)
    assert stopped.returncode == 143, stopped.stderr
    part = shared_project.runs("Resumable")[-1]
    told = re.search(r"^error: interrupted by SIGTERM; go on with: (.*)\n\Z", stopped.stderr, re.MULTILINE)
    assert told and told[1].endswith(f"{shared_project.path}/train.py Resumable --resume {part.name}")
    assert json.loads((part / "metrics.json").read_text())["state"] == "interrupted"
    done = train(shared_project, *words, "--resume")
    assert done.returncode == 0, done.stderr
    assert_same_run(part, whole)


def test_a_chain_of_interruptions_gives_the_same_bits(shared_project):
    whole = whole_run(shared_project)
    assert train(shared_project, "stop_at=5").returncode == 143
    part = shared_project.runs("Resumable")[-1]
    stops = [*("SIGUSR1", "SIGINT", "SIGTERM") * 2, "SIGKILL", "SIGUSR1", "SIGTERM"]
    for number, name in enumerate(stops):
        words = ("checkpoint_every_n_steps=2",) if name == "SIGKILL" else ()
        place = "val" if number == 3 else 3 + number % 5
        done = train(shared_project, f"stop_at={place}", f"stop_signal={name}", "--resume", *words)
        assert done.returncode == {"SIGUSR1": 138, "SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9}[name], done.stderr
    assert train(shared_project, "--resume").returncode == 0
    assert_same_run(part, whole)


def test_a_stop_comes_after_the_step_that_was_being_done(shared_project):
    """And it is saved once: the newest checkpoint is of that very step."""
    assert train(shared_project, "stop_at=20", "checkpoint_every_n_steps=0").returncode == 143
    run = shared_project.runs("Resumable")[-1]
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == [
        "epoch-00001",
        "epoch-00001-step-00000006",
    ]
    assert json.loads((run / "metrics.json").read_text())["summary"]["steps"] == 20


def test_a_stop_in_a_validation_does_not_wait_for_its_end(shared_project):
    """And what is done of the epoch is not done again: the validation is."""
    assert train(shared_project, "stop_at=val").returncode == 143
    run = shared_project.runs("Resumable")[-1]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["epoch-00000-validation"]
    assert json.loads((run / "metrics.json").read_text())["history"].get("val_loss", []) == []
    done = train(shared_project, "--resume", "epochs=1")
    assert "after epoch 1, before its validation from" in done.stdout
    assert json.loads((run / "metrics.json").read_text())["summary"]["steps"] == 14


STOPS_IN_A_SAVE = """
import os, signal, sys
from commands.command_line import main
from storage.checkpoint_store import CheckpointStore
save, saves = CheckpointStore.save, []

def stopped(self, *given, **named):
    if not saves:
        for name in sys.argv[1].split():
            os.kill(os.getpid(), getattr(signal, name))
    saves.append(given[0])
    return save(self, *given, **named)

CheckpointStore.save = stopped
code = main(sys.argv[2:])
print("saves", len(saves))
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        pytest.param("SIGTERM", 143, marks=pytest.mark.slow),
        ("SIGUSR1 SIGUSR1", 138),
        pytest.param("SIGINT SIGTERM", 143, marks=pytest.mark.slow),
        ("SIGINT SIGINT", 130),
    ],
)
def test_a_stop_in_a_save(signals, code, shared_project):
    """It is finished, and there is no other one; but a second Ctrl-C ends it at once, with nothing half done."""
    whole = whole_run(shared_project)
    (shared_project.path / "stops_in_a_save.py").write_text(STOPS_IN_A_SAVE)
    done = shared_project.run(signals, "Resumable", script="stops_in_a_save.py")
    assert done.returncode == code, done.stderr
    part = shared_project.runs("Resumable")[-1]
    left = [path.name for path in (part / "checkpoints").glob("*")]
    if signals == "SIGINT SIGINT":
        assert left == []
    else:
        assert left == ["epoch-00001"] and "saves 1\n" in done.stdout
    assert train(shared_project, "--resume").returncode == 0
    assert_same_run(part, whole)


def test_checkpoints_inside_an_epoch_come_every_so_many_steps(shared_project):
    assert train(shared_project, "epochs=1", "checkpoint_every_n_steps=5", "keep_last_checkpoints=9").returncode == 0
    run = shared_project.runs("Resumable")[-1]
    names = [path.name for path in sorted((run / "checkpoints").iterdir())]
    assert names == ["epoch-00000-step-00000005", "epoch-00000-step-00000010", "epoch-00001"]


def test_a_run_that_is_killed_goes_on_from_its_checkpoint_inside_the_epoch(shared_project):
    whole = whole_run(shared_project)
    killed = train(shared_project, "checkpoint_every_n_steps=4", "stop_at=25", "stop_signal=SIGKILL")
    assert killed.returncode == -9
    part = shared_project.runs("Resumable")[-1]
    done = train(shared_project, "--resume")
    assert done.returncode == 0, done.stderr
    assert "after epoch 1 and 8 steps" in done.stdout
    assert_same_run(part, whole)


def test_epochs_in_one_program_are_resumed_inside_too(tmp_path, monkeypatch):
    """The form `epoch` in this process: its sums go on where they were."""
    from step_trainers import NormTrainer, recorded_only, run

    monkeypatch.setattr("train.compiled.epoch._LEAST_STEPS", 10)
    with recorded_only(monkeypatch):
        whole = run(NormTrainer, tmp_path / "whole", step="epoch", log_every_n_steps=7)

        part = NormTrainer(tmp_path / "part", step="epoch", log_every_n_steps=7)
        advance = part.run_context.position.advance

        def stop(steps: int, batches: int) -> None:
            advance(steps, batches)
            if part.record.progress.epoch == 1 and part.run_context.position.steps >= 20:
                part.stop_request.number = 15

        part.run_context.position.advance = stop
        with pytest.raises(KeyboardInterrupt):
            part.train()
        resumed = run(NormTrainer, tmp_path / "part", str(part.run_folder.path), step="epoch", log_every_n_steps=7)
    assert resumed.history == whole.history
    readings = whole.record.step_losses.content()
    assert resumed.record.step_losses.content() == readings
    assert {10, 20} <= set(readings["step_of_epoch"]) and len(readings["step"]) > whole.config.epochs
    for name, tensor in whole.last.items():
        assert torch.equal(tensor, resumed.last[name]), name


def test_a_second_ctrl_c_leaves_at_once():
    from train.loop.stop_signals import Interrupted, StopRequest

    request = StopRequest()
    with request.listening():
        request._take(2, None)
        with pytest.raises(KeyboardInterrupt):
            request._take(2, None)
    with pytest.raises(Interrupted, match="SIGINT"):
        request.obey()


def test_minutes_count_from_the_last_checkpoint(monkeypatch):
    from train.loop.epoch_position import EpochPosition
    from train.seeding import RandomSources

    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    position = EpochPosition(RandomSources())
    position.advance(3)
    now[0] = 59.0
    assert not position.is_due(0, 1.0)
    now[0] = 60.0
    assert position.is_due(0, 1.0)
    position.note_saved(3)
    assert not position.is_due(0, 1.0)
    assert not position.is_due(4, 0)
    position.advance(2)
    assert position.is_due(4, 0), "at step 5, in step inputs of several steps"


# --------------------------------------------------------------------------------------------------------- drift


@pytest.fixture(scope="module")
def stopped_run(shared_project) -> Path:
    """A run that was stopped inside its second epoch."""
    assert train(shared_project, "stop_at=20").returncode == 143
    return shared_project.runs("Resumable")[-1]


def resume(project, run: Path, *words: str):
    return train(project, *words, "--resume", run.name)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("batch_size=7", "batch_size is 7, the run has 5: its steps are of other samples"),
        ("accumulation_steps=2", "accumulation_steps is 2, the run has 1: its steps are of other samples"),
        ("seed=1", "seed is 1, the run has 0: its steps are of other samples"),
    ],
)
def test_what_makes_another_run_of_it_is_refused(setting, reason, shared_project, stopped_run):
    before = {path: path.read_bytes() for path in stopped_run.rglob("*") if path.is_file() and path.suffix != ".log"}
    done = resume(shared_project, stopped_run, setting)
    assert done.returncode == 2
    assert f"error: run {stopped_run.name} can't be gone on with:\n  {reason}\n" in done.stderr
    assert "Leave it as the run has it" in done.stderr
    assert {path: path.read_bytes() for path in before} == before, "nothing was touched"


def test_what_does_no_harm_is_told_and_what_has_no_effect_too(shared_project, stopped_run):
    done = resume(shared_project, stopped_run, "stop_at=1", "epochs=5", "log_every_n_steps=3", "learning_rate=0.5")
    assert done.returncode == 143, done.stderr
    assert (
        "settings that differ from the run's: epochs 4 -> 5, log_every_n_steps 50 -> 3, stop_at 20 -> 1" in done.stdout
    )
    assert "learning_rate = 0.5 has no effect: the states of optimizer and scheduler go on from 0.01" in done.stdout


def test_packages_code_and_data_that_changed_are_told(shared_project, stopped_run):
    path = stopped_run / "environment.json"
    original = path.read_text()
    found = json.loads(original)
    found["packages"]["numpy"] = "1.0"
    found["git"] = {"commit": "f" * 40, "diff": ""}
    found["data"]["val"]["sha256"] = "0"
    found["device"]["threads"] = 77
    path.write_text(json.dumps(found))
    try:
        done = resume(shared_project, stopped_run, "stop_at=1")
        assert "packages differ from the run's, and with them perhaps the last bits: numpy 1.0 -> " in done.stdout
        assert "the code is of another commit: ffffffffff -> " in done.stdout
        assert "the val data is not what it was: some of its samples differ" in done.stdout
        assert "the device's threads is another one: 77 -> " in done.stdout
        found["data"]["train"]["length"] = 68
        path.write_text(json.dumps(found))
        done = resume(shared_project, stopped_run, "stop_at=1")
        assert done.returncode == 2
        assert "the train data has 67 samples, the run's had 68" in done.stderr
    finally:
        path.write_text(original)


# --------------------------------------------------------------------------------------------------------- SLURM


@pytest.mark.slow
def test_the_sbatch_script_requeues_itself_until_the_run_is_done(project):
    """With an `srun` and an `scontrol` that stand in for SLURM's; the run is out of time after 20 batches."""
    assert train(project).returncode == 0
    whole = project.runs("Resumable")[-1]
    tools = project.path / "tools"
    tools.mkdir()
    for name, text in (("srun", 'exec "$@"'), ("scontrol", 'echo "$@" >> requeued')):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHON": sys.executable}
    environment |= {"SLURM_JOB_ID": "42", "OMP_NUM_THREADS": "1"}
    command = ["bash", str(ROOT / "docs" / "train.sbatch"), "Resumable", "stop_at=20", "stop_signal=SIGUSR1"]
    codes = [
        subprocess.run(command, cwd=project.path, env=environment, capture_output=True, timeout=300).returncode
        for _ in range(3)
    ]
    assert codes == [138, 138, 0]
    assert (project.path / "requeued").read_text() == "requeue 42\n" * 2
    (run,) = (project.path / "artifacts/jobs/42/models/Resumable/runs").iterdir()
    assert_same_run(run, whole)
