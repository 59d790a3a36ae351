"""`python train.py NAME --seeds N` in new processes."""

import json
import re
from pathlib import Path

import pytest
import torch

from commands.seeds.group import find_unfinished
from storage.errors import ResumeError
from storage.run_folder import RunFolder
from train.contract import TrainerType
from train.errors import TrainerContractError
from train.registry import TrainerRegistry


def group_of(project, model: str) -> tuple[Path, dict]:
    folder = max((project.path / "artifacts/models" / model / "seeds").iterdir())  # the newest
    return folder, json.loads((folder / "seeds.json").read_text())


def metrics(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture(scope="module")
def in_turn(shared_project):
    """Three short runs from seed 5 on, of which one goes wrong."""
    done = shared_project.run("Seeded", "--seeds", 3, "seed=5", "epochs=3", "bad_seed=6")
    assert done.returncode == 4, done.stderr
    return done, *group_of(shared_project, "Seeded")


def test_one_after_the_other_with_the_reason(shared_project, in_turn):
    done, _, content = in_turn
    runs = shared_project.runs("Seeded")
    assert [member["seed"] for member in content["members"]] == [5, 6, 7]
    assert [member["run"] for member in content["members"]] == [run.name for run in runs[:3]]
    assert content["how"] == "one after the other" and "recording the loss functions takes about" in content["why"]
    assert f"3 seeds one after the other: {content['why']}" in done.stdout
    assert "seed = 7" in (runs[2] / "config.ini").read_text() and not (runs[2] / "plots").exists()


def test_group_holds_mean_and_spread_without_the_seed_that_failed(in_turn):
    done, folder, content = in_turn
    runs = [folder.parent.parent / "runs" / content["members"][number]["run"] for number in (0, 2)]
    last = [metrics(run)["history"]["val_loss"][2] for run in runs]
    assert content["state"] == "failed" and content["history"]["val_loss"]["runs"] == [2, 2, 2]
    assert content["history"]["val_loss"]["mean"][2] == pytest.approx(sum(last) / 2)
    assert content["best"]["val_loss"]["values"] == [metrics(run)["best"]["val_loss"] for run in runs]
    assert (folder / "plots/overview.png").stat().st_size > 10_000
    assert "2 seeds, each at its own best epoch; 1 of 3 left out, which came to no end" in done.stdout
    assert "seed 6 failed: numbers went wrong in step " in done.stdout and str(folder / "seeds.json") in done.stdout


def test_best_weights_are_published(in_turn):
    done, folder, content = in_turn
    values = dict(zip(content["counted"], content["best"]["val_loss"]["values"], strict=True))
    best = min(values, key=values.get)
    assert f"published: the weights of seed {best}, whose val_loss is the best" in done.stdout
    run = next(member["run"] for member in content["members"] if member["seed"] == best)
    model = folder.parent.parent
    assert (model / "model.safetensors").read_bytes() == (model / "runs" / run / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_each_seed_is_a_run_as_it_is_alone(project):
    done = project.run("OwnLoop", "--seeds", 2, "seed=5", "epochs=3")
    assert (
        done.returncode == 0 and "2 seeds one after the other: OwnLoopTrainer has a train() of its own" in done.stdout
    )
    alone = project.run("OwnLoop", "seed=6", "epochs=3")
    assert alone.returncode == 0, alone.stderr
    _, second, last = project.runs("OwnLoop")
    assert metrics(last)["history"] == metrics(second)["history"]
    assert (last / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def at_once(shared_project):
    """Four seeds, of which one goes wrong; in float64, so that differences show what they come from."""
    done = shared_project.run("Seeded", "--seeds", 4, "bad_seed=2", "double=on", "epochs=300")
    assert done.returncode == 4, done.stderr
    return done, *group_of(shared_project, "Seeded")


@pytest.mark.slow
def test_at_once_a_member_that_fails_is_told_and_left_out(at_once):
    done, _, content = at_once
    assert content["how"] == "at once" and "4 seeds at once" in done.stdout and content["counted"] == [0, 1, 3]
    states = [member["state"] for member in content["members"]]
    assert states == ["early_stopped", "early_stopped", "failed", "early_stopped"] and content["state"] == "failed"
    assert "seed 2 failed: numbers went wrong in step " in done.stdout
    assert "3 seeds, each at its own best epoch; 1 of 4 left out, which came to no end" in done.stdout
    assert "early stopping" not in done.stdout, "what a member says is in its own log"


@pytest.mark.slow
def test_at_once_a_member_is_what_it_is_alone(shared_project, at_once):
    _, folder, content = at_once
    alone = shared_project.run("Seeded", "seed=1", "double=on", "epochs=300", "step=eager")
    assert alone.returncode == 0, alone.stderr
    member = folder.parent.parent / "runs" / content["members"][1]["run"]
    one, other = metrics(shared_project.runs("Seeded")[-1]), metrics(member)
    assert one["best"]["epoch"] == other["best"]["epoch"] and one["state"] == other["state"]
    assert one["history"].keys() == other["history"].keys()
    for name, values in one["history"].items():
        assert other["history"][name] == pytest.approx(values, rel=1e-12), name
    assert "early stopping: 3 validations without improvement" in (member / "train.log").read_text()
    assert "seed = 1" in (member / "config.ini").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "1"], "argument --seeds: '1' is no number of seeds; a spread needs at least 2"),
        (["--seeds", "2", "--profile"], "error: --profile and --seeds don't go together: use one at a time"),
        pytest.param(
            ["--seeds", "3", "seed=4294967294"],
            "error: --seeds 3 counts up from seed = 4294967294, beyond the largest, 4294967295.",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--seeds", "3", "--resume", "seeds-7"],
            "error: no group of seeds 'seeds-7' of SeededTrainer in ",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_cannot_be_is_refused(shared_project, words, message):
    done = shared_project.run("Seeded", *words)
    assert done.returncode == 2 and message in done.stderr


def test_resume_leaves_alone_what_is_done_or_would_fail_again(tmp_path):
    model = tmp_path / "models/Seeded"
    states = ["finished", "early_stopped", "failed", "failed", "interrupted", None]
    for number, state in enumerate(states):
        if state is not None:
            run = model / "runs" / f"run-{number}"
            run.mkdir(parents=True)
            content = {"trainer": "T", "state": state, "schema_version": 1, "best": None, "history": {}, "summary": {}}
            (run / "metrics.json").write_text(json.dumps(content))
    (model / "runs/run-2/failure").mkdir()  # its numbers went wrong; run-3 met a full disk
    folder = model / "seeds/seeds-20260101-000000"
    folder.mkdir(parents=True)
    members = [{"seed": 3 + n, "run": f"run-{n}" if state else None} for n, state in enumerate(states)]
    content = {"schema_version": 1, "trainer": "SeededTrainer", "how": "at once", "members": members}
    (folder / "seeds.json").write_text(json.dumps(content))
    group = find_unfinished("SeededTrainer", range(3, 10), "latest", tmp_path)
    assert [member.ended for member in group.members] == [True, True, True, False, False, False, False]
    assert [member.run for member in group.members] == ["run-0", "run-1", "run-2", "run-3", "run-4", None, None]
    assert find_unfinished("SeededTrainer", range(3, 10), "seeds-latest", tmp_path) == group
    with pytest.raises(ResumeError, match=r"A group of seeds goes on with --seeds N --resume seeds-20260101-000000\.$"):
        RunFolder.find(tmp_path, "Seeded", "seeds-20260101-000000")
    assert find_unfinished("OtherTrainer", range(3, 10), "auto", tmp_path) is None
    with pytest.raises(
        ResumeError, match=r"has the seeds 3 to 8, --seeds 2 with seed = 3 asks for 3 to 4: give --seeds 6"
    ):
        find_unfinished("SeededTrainer", range(3, 5), "seeds-20260101-000000", tmp_path)


@pytest.mark.slow
def test_a_group_that_was_stopped_goes_on(project):
    stopped = project.run("Resumable", "--seeds", 3, "stop_at=20", "loader=tensors")
    assert stopped.returncode == 143
    assert re.search(
        r"interrupted by SIGTERM; go on with: \S*python\S* \S*train.py Resumable --seeds 3 --resume\n", stopped.stderr
    )
    folder, content = group_of(project, "Resumable")
    assert content["state"] == "interrupted"
    first, *_ = project.runs("Resumable")
    other = project.run("Resumable", "--seeds", 2, "--resume", "seed=1")
    assert other.returncode == 2 and f"error: group {folder.name} has the seeds 0 to 2, --seeds 2" in other.stderr
    changed = project.run("Resumable", "--seeds", 4, "--resume", "loader=made")
    assert changed.returncode == 2
    assert (
        f"error: group {folder.name} began with other settings; its runs can't be averaged with new ones:\n"
        "  loader: tensors then, made now\nleave them out ("
    ) in changed.stderr
    done = project.run("Resumable", "--seeds", 4, "--resume")
    assert done.returncode == 0, done.stderr
    content = group_of(project, "Resumable")[1]
    assert content["why"] == "each run goes on where its own checkpoint is"
    assert [member["state"] for member in content["members"]] == ["finished"] * 4
    assert content["members"][0]["run"] == first.name
    alone = project.run("Resumable", "loader=tensors")
    assert alone.returncode == 0 and metrics(first)["history"] == metrics(project.runs("Resumable")[-1])["history"]


def test_the_seed_is_that_of_the_section_which_the_trainer_reads(tmp_path, monkeypatch):
    """Its config class may have another name than itself. The initial weights follow from that seed."""
    (tmp_path / "own_trainer.py").write_text(
        "class OwnTrainer(BaseTrainer):\n    def __init__(self):\n        self.config = ConfigParser.get(OtherConfig)\n"
    )
    registry = TrainerRegistry(tmp_path)
    assert [registry.section_of(type(name, (), {})) for name in ("OwnTrainer", "Unknown")] == ["Other", "Unknown"]
    asked = []
    monkeypatch.setattr("train.contract.TRAINER_REGISTRY", registry)
    monkeypatch.setattr("train.contract.ConfigParser.peek", lambda *given: asked.append(given) or 5)
    built = TrainerType("OwnTrainer", (), {"__init__": lambda self: setattr(self, "first", torch.initial_seed())})
    with pytest.raises(TrainerContractError, match="must call super"):
        built()
    assert asked == [("Other", "seed")] and torch.initial_seed() == 5


@pytest.mark.slow
def test_seeds_of_a_trainer_whose_section_has_another_name(project):
    path = project.path / "train" / "seeded_trainer.py"
    path.write_text(path.read_text().replace("class SeededTrainer(", "class OtherTrainer("))
    done = project.run("Other", "--seeds", 2, "epochs=1")
    assert done.returncode == 0, done.stderr
    assert len({metrics(run)["history"]["val_loss"][0] for run in project.runs("Other")}) == 2


@pytest.mark.slow
def test_a_trainer_with_the_settings_of_another(project):
    source = (project.path / "train/seeded_trainer.py").read_text()
    (project.path / "train/twin_trainer.py").write_text(source.replace("class SeededTrainer", "class TwinTrainer"))
    done = project.run("Twin", "--seeds", 2, "seed=3", "epochs=2")
    assert done.returncode == 0, done.stderr
    assert project.run("Seeded", "seed=4", "epochs=2").returncode == 0
    # The same initial weights too, which come from the seed before the trainer's config is read.
    assert metrics(project.runs("Twin")[1])["history"] == metrics(project.runs("Seeded")[0])["history"]
