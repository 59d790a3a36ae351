"""Several processes give what one gives, and stop, fail and go on together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from storage.checkpoint_store import CheckpointStore, DamagedCheckpoint
from train.distributed.shard_files import ShardReader
from train.distributed.sharding import units_of

ROOT = Path(__file__).resolve().parent.parent.parent
MANY = ROOT / "tests" / "suites" / "many_runs.py"
PLAIN = ["loader=dataloader", "saving_share=1"]
NOISY = [*PLAIN, "dropout=0.3"]
# By name: settings, and how far weights and history may be from those of one process.
SAME = {
    "a short last batch, of one sample; losses over counted values": ([], 1e-12),
    "accumulation": (["accumulation_steps=3", "counted=off"], 1e-12),
    "the global generators' order": (["loader=dataloader"], 1e-12),
    "float32": (["double=off"], 1e-6),
}
SAME_TOO = {
    # One process weighs counts in float32 there.
    "accumulation over counted values": (["accumulation_steps=3"], 1e-7),
    "make_loader, an average": (["loader=made", "ema_decay=0.9"], 1e-12),
    "a gradient that is clipped much": (["gradient_clip_value=0.01"], 1e-12),
    "a layer that nothing uses": (["unused=on"], 1e-12),
    "batches of one sample": (["batch_size=1", "epochs=1"], 1e-12),
    "two workers": (["loader=dataloader", "num_workers=2"], 1e-12),
}
# Sharded; with a saving_share of 5 % most epochs' states are not written.
SHARDED = ["strategy=fsdp2", "saving_share=0.05"]
ALONE = [
    *[settings for settings, _ in SAME.values()],
    PLAIN,
    [*PLAIN, "event=stop", "event_rank=0", "artifacts_dir=one_then_two"],
    [*PLAIN, "event=stop", "event_rank=0", "artifacts_dir=one_then_sharded", "ema_decay=0.9"],
    [*PLAIN, "ema_decay=0.9"],
]
TOGETHER = [
    *[settings for settings, _ in SAME.values()],
    NOISY,
    [*NOISY, "event=stop"],
    [*NOISY, "resume=latest"],
    [*PLAIN, "event=stop", "artifacts_dir=two_then_one"],
    [*PLAIN, "resume=latest", "artifacts_dir=one_then_two"],
    ["event=nan", "saving_share=1"],
    SHARDED,
    [*NOISY, "strategy=fsdp2"],
    [*NOISY, "strategy=fsdp2", "event=stop"],
    [*NOISY, "strategy=fsdp2", "resume=latest"],
    [*PLAIN, "strategy=fsdp2", "resume=latest", "artifacts_dir=one_then_sharded", "ema_decay=0.9"],
    [*PLAIN, "strategy=fsdp2", "event=stop", "artifacts_dir=sharded_then_one", "ema_decay=0.9"],
    ["strategy=fsdp2", "event=nan", "artifacts_dir=sharded_nan"],
    ["event=nan_loss", "artifacts_dir=nan_loss"],
]
FIRST_SHARDED = len(SAME) + 6
ALONE_AGAIN = [
    [*PLAIN, "resume=latest", "artifacts_dir=two_then_one"],
    [*PLAIN, "resume=latest", "artifacts_dir=sharded_then_one", "ema_decay=0.9"],
]


def torchrun(*words: str, processes: int = 2) -> list[str]:
    """Return a command line for several processes."""
    head = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*head, *map(str, words)]


def run(project, command: list[str], **environment: str):
    """Run a command in a project's folder."""
    return subprocess.run(
        command,
        cwd=project.path,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def many(project, cases: list[list[str]], processes: int) -> list[dict[str, str]]:
    """Train with many settings; returns folders or errors."""
    out = project.path / f"results{processes}.json"
    done = project.run("SharedTrainer", str(out), json.dumps(cases), str(processes), script=str(MANY))
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


def history(run: Path) -> dict[str, list[float]]:
    """Return a run's history, and the readings of its loss."""
    content = json.loads((Path(run) / "metrics.json").read_text())
    return content["history"] | {f"readings of {name}": values for name, values in content["readings"].items()}


def assert_close(one: str, other: str, most: float) -> None:
    """Compare weights and history of two runs."""
    left, right = (load_file(Path(run) / "model.safetensors") for run in (one, other))
    assert left.keys() == right.keys()
    assert max((left[name].double() - right[name].double()).abs().max().item() for name in left) <= most
    old, new = history(one), history(other)
    assert {name: len(values) for name, values in old.items()} == {name: len(values) for name, values in new.items()}
    assert max(abs(a - b) for name in old for a, b in zip(old[name], new[name], strict=True)) <= most


def assert_same(one: str, other: str) -> None:
    """Two runs have the same bits."""
    left, right = (load_file(Path(run) / "model.safetensors") for run in (one, other))
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert history(one) == history(other)


@pytest.fixture(scope="module")
def trained(shared_project):
    """What one process, two, and one again have made."""
    return many(shared_project, ALONE, 1), many(shared_project, TOGETHER, 2), many(shared_project, ALONE_AGAIN, 1)


@pytest.mark.parametrize("name", SAME)
def test_two_processes_give_what_one_gives(trained, name):
    number, (_, most) = list(SAME).index(name), SAME[name]
    assert_close(trained[0][number]["run"], trained[1][number]["run"], most)


def test_a_signal_to_one_process_stops_all_at_one_step_and_they_go_on_to_the_same_bits(trained):
    whole, stopped, resumed = trained[1][len(SAME) : len(SAME) + 3]
    assert stopped == {"error": "Interrupted: SIGTERM"}
    assert_same(whole["run"], resumed["run"])
    assert "after epoch 1 and 2 steps from" in (Path(resumed["run"]) / "train.log").read_text()


def test_only_the_main_process_writes(trained, shared_project):
    runs = shared_project.runs("Shared")
    others = [words for words in ALONE + TOGETHER if "resume" in str(words) or "artifacts" in str(words)]
    assert len(runs) == len(ALONE) + len(TOGETHER) - len(others)
    written = sorted(path.name for path in Path(trained[1][0]["run"]).iterdir())
    assert written == [
        "checkpoints",
        "config.ini",
        "environment.json",
        "metrics.json",
        "model.safetensors",
        "segments.json",
        "train.log",
    ]
    log = (Path(trained[1][0]["run"]) / "train.log").read_text()
    assert log.count("epoch 4/4") == 1
    assert "step = eager (auto): 2 processes train together, and compiled forms are for one" in log
    environment = json.loads((Path(trained[1][0]["run"]) / "environment.json").read_text())
    assert environment["device"]["processes"] == 2


def test_what_is_bad_in_one_process_stops_all_and_is_told_once(trained):
    error = trained[1][FIRST_SHARDED - 1]["error"]
    assert error.startswith("TrainingError: numbers went wrong in step 5 of epoch 1 (step 5 of the run): the data")
    assert "in sample 8 of train_loader's dataset" in error
    assert "the samples are those of process 1 of 2" in error
    folder = Path(error.split("the report is ")[1].split("\n")[0]).parent
    assert folder.parent.parent.name == "runs" and (folder / "report.json").exists()
    other = json.loads(Path(folder.parents[5] / "results2.json.1").read_text())
    assert other[FIRST_SHARDED - 1]["error"].startswith("ElsewhereError: numbers went wrong in step 5 of epoch 1")


def test_a_loss_that_is_bad_in_one_process_only_stops_all_at_one_step(trained, shared_project):
    other = json.loads((shared_project.path / "results2.json.1").read_text())[-1]["error"]
    for error, kind in ((trained[1][-1]["error"], "TrainingError"), (other, "ElsewhereError")):
        assert error.startswith(f"{kind}: numbers went wrong in step 2 of epoch 2 (step 8 of the run)")


def test_a_run_goes_on_with_another_number_of_processes(trained):
    whole, more, fewer = trained[0][len(SAME)]["run"], trained[1][len(SAME) + 4]["run"], trained[2][0]["run"]
    assert_close(whole, more, 1e-12)
    assert_close(whole, fewer, 1e-12)
    assert (
        "2 processes trained this run, 1 now: each step is of the same samples as it would have been; dropout and "
        "augmentation draw other numbers"
    ) in (Path(fewer) / "train.log").read_text()


@pytest.mark.slow
def test_torchrun_starts_again_after_a_kill_and_ends_with_the_same_bits(trained, shared_project):
    words = ["train.py", "Shared", *NOISY, "event=kill", "event_batch=15", "artifacts_dir=elastic", "--resume", "auto"]
    command = torchrun(*words)
    command.insert(3, "--max-restarts=1")
    done = run(shared_project, command)
    assert done.returncode == 0, done.stderr
    (again,) = (shared_project.path / "elastic" / "models" / "Shared" / "runs").iterdir()
    assert "error: process 0 of 2 waited for another one in vain" in done.stderr
    assert f"resumed run {again.name} after epoch 2 from" in (again / "train.log").read_text()
    assert_same(trained[1][len(SAME)]["run"], again)


def test_a_sharded_model_gives_what_one_process_gives(trained):
    one, sharded = trained[0][0]["run"], trained[1][FIRST_SHARDED]["run"]
    assert_close(one, sharded, 1e-12)
    codes = [json.loads((Path(run) / "metrics.json").read_text())["summary"]["code"] for run in (one, sharded)]
    assert codes[0] == pytest.approx(codes[1], rel=1e-12)  # of after_training
    last = Path(sharded) / "checkpoints" / "epoch-00004"
    shards = [f"shard-0000{number}-model-00001-of-00001.safetensors" for number in (1, 2)]
    assert sorted(path.name for path in last.rglob("*") if path.is_file()) == ["manifest.json", *shards, "state.json"]


def test_a_sharded_run_is_resumed_to_the_same_bits_and_by_any_number_of_processes(trained):
    whole, stopped, resumed, more = trained[1][FIRST_SHARDED + 1 : FIRST_SHARDED + 5]
    assert stopped == {"error": "Interrupted: SIGTERM"}
    assert_same(whole["run"], resumed["run"])
    assert_close(trained[0][len(SAME) + 3]["run"], more["run"], 1e-12)
    assert_close(trained[0][len(SAME) + 3]["run"], trained[2][1]["run"], 1e-12)
    log = (Path(trained[2][1]["run"]) / "train.log").read_text()
    assert "after epoch 1 and 2 steps from" in log


def test_a_bad_sample_of_a_sharded_run_is_named(trained):
    error = trained[1][-2]["error"]
    assert error.startswith("TrainingError: numbers went wrong in step 5 of epoch 1 (step 5 of the run): the data: ")
    assert "field 'rows' is not finite in sample 8\n" in error


def test_a_damaged_shard_is_noticed(trained, shared_project):
    run = Path(trained[1][FIRST_SHARDED]["run"])
    shard = sorted((run / "checkpoints" / "epoch-00004" / "shards").iterdir())[0]
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match="does not have the digest in manifest.json"):
        CheckpointStore(run / "checkpoints", 1, ShardReader())._read(run / "checkpoints" / "epoch-00004")


def test_units_are_what_is_in_module_lists_and_shares_nothing():
    def layer():
        return nn.Linear(2, 2)

    inner = nn.Sequential(layer(), nn.ModuleList([layer()]))  # a list inside of a unit is a part of it
    model = nn.Module()
    model.blocks = nn.ModuleList([inner, layer(), nn.ReLU(), nn.ModuleList([layer()])])
    model.head = layer()
    tied = layer()
    tied.weight = model.head.weight
    model.blocks.append(tied)
    assert units_of(model) == [inner, model.blocks[1], model.blocks[3][0]]


def test_modes_for_one_process_are_refused_before_anything_is_imported(shared_project):
    for mode in ("--dry-run", "--profile", "--replay"):
        done = shared_project.run("Shared", mode, WORLD_SIZE="2", RANK="0")
        assert done.returncode == 2
        assert done.stderr == f"error: {mode} is for one process: start it without torchrun\n"


@pytest.mark.slow
def test_further_settings_give_what_one_process_gives(shared_project):
    settings = [words for words, _ in SAME_TOO.values()]
    alone = many(shared_project, settings, 1)
    together = many(shared_project, settings, 2)
    sharded = many(shared_project, [[*words, "strategy=fsdp2"] for words in settings], 2)
    for number, (_, most) in enumerate(SAME_TOO.values()):
        assert_close(alone[number]["run"], together[number]["run"], most)
        assert_close(alone[number]["run"], sharded[number]["run"], most)


@pytest.mark.slow
def test_a_killed_process_ends_the_others(shared_project):
    done = run(shared_project, torchrun("train.py", "Shared", "event=kill", "artifacts_dir=killed", "saving_share=1"))
    assert done.returncode == 1  # torchrun's, whatever its processes' are
    assert "error: process 0 of 2 waited for another one in vain: that has ended, and its last words say" in done.stderr
    (folder,) = (shared_project.path / "killed" / "models" / "Shared" / "runs").iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["state"] == "failed" and len(metrics["history"]["train_loss"]) == 1


@pytest.mark.slow
def test_an_error_in_one_process_is_told_by_it_and_ends_the_others(shared_project):
    began = time.monotonic()
    done = run(shared_project, torchrun("train.py", "Shared", "event=raise", "artifacts_dir=raised"))
    assert done.returncode == 1 and time.monotonic() - began < 60  # not the ten minutes of peer_timeout_minutes
    assert "error in process 1: train/shared_trainer.py:" in done.stderr
    assert "ValueError: this process only" in done.stderr
    assert "error: process 0 of 2 waited for another one in vain" in done.stderr
    (folder,) = (shared_project.path / "raised" / "models" / "Shared" / "runs").iterdir()
    assert "this process only" in (folder / "train.rank1.log").read_text()


@pytest.mark.slow
def test_a_signal_to_torchrun_saves_and_leaves(shared_project):
    command = torchrun("train.py", "Shared", "epochs=100000", "artifacts_dir=signalled")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=shared_project.path, env=environment, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "epoch 1/" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode != 0
    (folder,) = (shared_project.path / "signalled" / "models" / "Shared" / "runs").iterdir()
    assert json.loads((folder / "metrics.json").read_text())["state"] == "interrupted"
    assert any((folder / "checkpoints").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [[], ["loader=dataloader", "num_workers=1", "accumulation_steps=2", "counted=off"]]
)
def test_three_processes_give_what_one_gives_and_resume_to_the_same_bits(shared_project, settings):
    (alone,) = many(shared_project, [settings], 1)
    # In float32: a float64 sum depends in its last bit on where it was looked at, with one process too.
    noisy = [*settings, "dropout=0.3", "saving_share=1", "double=off"]
    three, whole, _, resumed = many(
        shared_project, [settings, noisy, [*noisy, "event=stop"], [*noisy, "resume=latest"]], 3
    )
    assert_close(alone["run"], three["run"], 1e-12)
    assert_same(whole["run"], resumed["run"])


@pytest.mark.slow
def test_a_loop_of_the_trainer_s_own_is_refused(shared_project):
    done = run(shared_project, torchrun("train.py", "OwnLoop"))
    said = [line for line in done.stderr.splitlines() if line.startswith("error")]
    text = "OwnLoopTrainer has a train() of its own, which 2 processes can't share. Start it without torchrun."
    assert said == [f"error: {text}"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ModelAutoEncoder", "SimilarityTransformer"])
def test_the_project_s_own_trainers_run_in_two_processes(shared_project, name):
    done = run(shared_project, torchrun("train.py", name, "epochs=2", "plot_at_end=off"))
    assert done.returncode == 0, done.stderr
    assert json.loads((shared_project.runs(name)[-1] / "metrics.json").read_text())["state"] == "finished"


SRUN = """#!/usr/bin/env python3
import signal, subprocess, sys
words = [word for word in sys.argv[1:] if not word.startswith("--kill-on-bad-exit")]
nodes = [subprocess.Popen(words) for _ in range(2)]
signal.signal(signal.SIGTERM, lambda *_: [node.terminate() for node in nodes])
sys.exit(max(abs(node.wait()) for node in nodes))
"""
SCONTROL = """#!/bin/sh
if [ "$1" = show ]; then echo localhost; else echo "$@" >> requeued; fi
"""


@pytest.mark.slow
def test_the_sbatch_script_for_nodes_requeues_itself_and_goes_on(shared_project):
    """With an `srun` that starts two nodes of one process here; the run is out of time after its first epoch."""
    tools = shared_project.path / "tools"
    tools.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHON": sys.executable}
    environment |= {"SLURM_JOB_ID": "42", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "1", "SLURM_CPUS_PER_TASK": "1"}
    environment["SLURM_JOB_NODELIST"] = "localhost"
    script = ["bash", str(ROOT / "docs" / "train_nodes.sbatch"), "Shared"]
    process = subprocess.Popen(
        [*script, "epochs=100000"], cwd=shared_project.path, env=environment, stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if "epoch 1/" in line:
            break
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert (shared_project.path / "requeued").read_text() == "requeue 42\n"
    (run,) = (shared_project.path / "artifacts/jobs/42/models/Shared/runs").iterdir()
    done = len(history(run)["train_loss"])
    assert done and json.loads((run / "metrics.json").read_text())["state"] == "interrupted"
    again = subprocess.run(
        [*script, f"epochs={done + 2}"], cwd=shared_project.path, env=environment, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert len(history(run)["train_loss"]) == done + 2
