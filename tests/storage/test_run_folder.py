"""Which run `--resume` goes on with, and what is written beside it, through the command line."""

import json
import shutil
from pathlib import Path

import pytest

WORDS = ("FeatureFusion", "epochs=1")


def metrics(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def segments(run: Path) -> dict:
    return json.loads((run / "segments.json").read_text())


@pytest.fixture(scope="module")
def finished(shared_project) -> Path:
    """A run of one epoch."""
    assert shared_project.run(*WORDS).returncode == 0
    return shared_project.runs("FeatureFusion")[-1]


# ---------------------------------------------------------------------------------------------- a run that was moved


@pytest.mark.parametrize("place", ["keep/deep/run", "keep/models/FeatureFusion/runs/20200101-000000", "here/run"])
def test_a_run_that_was_moved_writes_nothing_beside_itself(shared_project, finished, place, tmp_path):
    moved = tmp_path / place
    shutil.copytree(finished, moved)
    strangers = [moved.parent.parent / name for name in ("model.safetensors", f".model.safetensors.{moved.name}.x.tmp")]
    for stranger in strangers:
        stranger.write_text("precious")
    published = shared_project.path / "artifacts/models/FeatureFusion/model.safetensors"
    before = published.read_bytes()
    done = shared_project.run("FeatureFusion", "epochs=2", "--resume", moved)
    assert done.returncode == 0, done.stderr
    assert (
        f"not published, as this run is none of artifacts_dir's: its weights are {moved}/model.safetensors"
        in done.stdout
    )
    assert [stranger.read_text() for stranger in strangers] == ["precious"] * 2
    assert published.read_bytes() == before
    assert metrics(moved)["summary"]["epochs"] == 2
    there = {path.name for path in moved.parent.parent.iterdir()}
    assert there == {stranger.name for stranger in strangers} | {moved.parent.name}


def test_a_project_that_was_moved_publishes_as_before(project):
    assert project.run(*WORDS).returncode == 0
    other = project.path.with_name("elsewhere")
    project.path.rename(other)
    project.path = other
    (run,) = project.runs("FeatureFusion")
    done = project.run("FeatureFusion", "epochs=3", "--resume")
    assert done.returncode == 0, done.stderr
    assert "not published" not in done.stdout
    published = other / "artifacts/models/FeatureFusion/model.safetensors"
    assert published.read_bytes() == (run / "model.safetensors").read_bytes()


# ------------------------------------------------------------------------------------------- a run of another trainer


def test_a_run_of_another_trainer_is_refused(project):
    """Of the same model and optimizer, so that its checkpoints would fit."""
    source = (project.path / "train/feature_fusion_trainer.py").read_text()
    (project.path / "train/twin_trainer.py").write_text(
        source.replace("class FeatureFusionTrainer", "class TwinTrainer")
    )
    assert project.run(*WORDS, "--name", "base").returncode == 0
    (run,) = project.runs("FeatureFusion")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = project.run("Twin", "epochs=2", "--resume", run)
    assert done.returncode == 2
    assert f"error: {run} is a run of FeatureFusionTrainer, not of TwinTrainer" in done.stderr
    assert f"`python train.py FeatureFusion --resume {run}` goes on with it" in done.stderr
    assert project.run("Twin", "epochs=2", "--resume", "base").stderr == done.stderr
    assert {path: path.read_bytes() for path in before} == before
    (run / "segments.json").unlink()  # as runs of earlier versions are
    assert project.run("Twin", "epochs=2", "--resume", run).returncode == 2
    assert not (project.path / "artifacts/models/Twin").exists()


# -------------------------------------------------------------------------------------------------- which is the latest


def test_the_latest_is_the_one_that_began_last_wherever_its_clock_was(project):
    assert project.run(*WORDS, "learning_rate=0.1", TZ="Asia/Tokyo").returncode == 0
    assert project.run(*WORDS, "learning_rate=0.2", TZ="UTC").returncode == 0
    later, earlier = project.runs("FeatureFusion")  # by their names, which are local times
    assert segments(earlier)["segments"][0]["settings"]["learning_rate"] == "0.1"
    done = project.run("FeatureFusion", "epochs=2", "--resume", TZ="UTC")
    assert f"resumed run {later.name} after epoch 1" in done.stdout
    shown = project.run("latest", script="plot.py", TZ="America/New_York")
    assert f"/{later.name}/plots/" in shown.stdout and earlier.name not in shown.stdout
    table = project.run("--runs", script="plot.py", TZ="UTC").stdout
    assert table.index(earlier.name) < table.index(later.name)
    rows = json.loads(project.run("--runs", "--json", script="plot.py", TZ="UTC").stdout)
    assert rows[0]["start"] <= rows[1]["start"], "the times at which they began, in the reader's time zone"


def test_runs_of_earlier_versions_are_sorted_by_their_names(tmp_path):
    from storage.run_folder import RunFolder

    for name in ("20260101-000000", "20260101-000000-2", "20260101-000000-10", "20251231-235959"):
        (tmp_path / "models/Old/runs" / name / "checkpoints").mkdir(parents=True)
    assert RunFolder.find(tmp_path, "Old", "latest").id == "20260101-000000-10"


@pytest.mark.slow
def test_parts_of_a_group_or_a_sweep_are_not_the_latest(project):
    assert project.run(*WORDS).returncode == 0
    (own,) = project.runs("FeatureFusion")
    assert project.run(*WORDS, "--seeds", 2).returncode == 0
    members = [run for run in project.runs("FeatureFusion") if run != own]
    done = project.run("FeatureFusion", "epochs=2", "--resume")
    assert done.returncode == 0 and f"resumed run {own.name} after epoch 1" in done.stdout
    shutil.rmtree(own)
    for known_by in ("themselves", "seeds.json"):
        if known_by == "seeds.json":  # runs of earlier versions say nothing
            for member in members:
                (member / "segments.json").unlink()
        done = project.run("FeatureFusion", "epochs=2", "--resume")
        assert done.returncode == 2
        assert f"{members[-1].name} is part of the group seeds-" in done.stderr
        assert "which goes on with `--seeds N --resume`" in done.stderr
    done = project.run("FeatureFusion", "epochs=2", "--resume", members[0].name)
    assert done.returncode == 0, "a path or an id is meant"
    for segments_there in (True, False):  # of earlier versions' runs, epochs beyond those planned tell it
        if not segments_there:
            settings = (members[0] / "config.ini").read_text()
            (members[0] / "config.ini").write_text(settings.replace("epochs = 2\n", "epochs = 1\n"))
            (members[0] / "segments.json").unlink()
        group = project.run("FeatureFusion", "--seeds", 2, "--resume")
        assert group.returncode == 4, "the group has a member that is not like the others"
        assert "finished, left out: gone on with epochs 1 -> 2" in group.stdout
        assert "1 seed, each at its own best epoch; 1 of 2 left out" in group.stdout
        (content,) = project.path.glob("artifacts/models/FeatureFusion/seeds/*/seeds.json")
        assert json.loads(content.read_text())["counted"] == [1]
    assert project.run(*WORDS, "--resume", "auto").returncode == 0
    assert len(project.runs("FeatureFusion")) == 3, "it started a new one"


# ------------------------------------------------------------------------------------------------------------- segments


def test_each_segment_is_written_down(project):
    assert project.run(*WORDS).returncode == 0
    (run,) = project.runs("FeatureFusion")
    assert project.run("FeatureFusion", "epochs=3", "learning_rate=0.5", "--resume").returncode == 0
    found = segments(run)
    assert (found["trainer"], found["part_of"]) == ("FeatureFusionTrainer", "")
    first, second = found["segments"]
    for segment, state, begin, end, planned in ((first, "finished", 0, 1, 1), (second, "finished", 1, 3, 3)):
        assert (segment["state"], segment["from_epoch"], segment["to_epoch"]) == (state, begin, end)
        assert segment["epochs"] == planned == int(segment["settings"]["epochs"])
        assert segment["started"] < segment["ended"] and segment["started"].endswith("+00:00")
        assert segment["host"] and segment["versions"]["torch"] and segment["device"] == "cpu"
    assert first["changed"] == {} and second["changed"] == {"epochs": ["1", "3"]}
    assert second["command"][1:] == ["train.py", "FeatureFusion", "epochs=3", "learning_rate=0.5", "--resume"] or (
        second["command"][-4:] == ["FeatureFusion", "epochs=3", "learning_rate=0.5", "--resume"]
    )
    text = (run / "config.ini").read_text()
    assert "epochs = 3\n" in text
    assert "learning_rate = 0.01\n" in text, "another one has no effect: the optimizer's state goes on"
    table = project.run("--runs", script="plot.py").stdout
    assert "3/3" in table and "3/1" not in table
    assert project.run(run, "--report", script="plot.py").returncode == 0
    page = (run / "report.html").read_text()
    assert "epochs 1 -&gt; 3" in page and "<td>1 to 3</td>" in page and "<td>0 to 1</td>" in page
