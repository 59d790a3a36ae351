"""The settings with which a run is gone on with, and the command that a stopped run tells, through the command line."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def settings(run: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+) = (.*)$", (run / "config.ini").read_text(), re.MULTILINE))


def metrics(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def test_the_runs_own_settings_go_on(project):
    """Those of its command line too; what config.ini has now is told, and the command line wins."""
    words = ("FeatureFusion", "epochs=3", "dropout=0.3", "batch_size=20", "seed=7")
    assert project.run(*words).returncode == 0
    (whole,) = project.runs("FeatureFusion")
    assert project.run(*words[:1], *words[2:], "epochs=1").returncode == 0
    run = project.runs("FeatureFusion")[-1]
    config = project.path / "config.ini"
    config.write_text(config.read_text().replace("[FeatureFusionTrainer]", "[FeatureFusionTrainer]\nbatch_size = 50"))
    done = project.run("FeatureFusion", "epochs=3", "--resume", run.name)
    assert done.returncode == 0, done.stderr
    told = (
        "the run's own settings go on; config.ini has others, which are not used: batch_size = 50 (the run: 20), "
        "seed = 0 (the run: 7), dropout = 0.1 (the run: 0.3). To use one, name it on the command line: batch_size=50"
    )
    assert told in done.stdout
    assert "settings that differ from the run's: epochs 1 -> 3" in done.stdout
    assert metrics(run)["history"] == metrics(whole)["history"]
    assert settings(run) == settings(whole)
    refused = project.run("FeatureFusion", "batch_size=50", "--resume", run.name)
    assert refused.returncode == 2 and "batch_size is 50, the run has 20" in refused.stderr


def test_settings_that_can_not_be_taken_from_the_run_come_from_config_ini(project):
    """A key that is new, one that is gone, a value that is no longer allowed, a place that is no longer there."""
    assert project.run("FeatureFusion", "epochs=1", "dropout=0.3").returncode == 0
    (run,) = project.runs("FeatureFusion")
    text = (run / "config.ini").read_text().replace("dropout = 0.3", "dropout = high").replace("hidden_dim = 8\n", "")
    (run / "config.ini").write_text(text + "a_key_of_before = 3\n")
    done = project.run("FeatureFusion", "epochs=2", "--resume")
    assert done.returncode == 0, done.stderr
    assert "dropout high -> 0.1" in done.stdout
    assert (settings(run)["dropout"], settings(run)["hidden_dim"]) == ("0.1", "8")
    assert metrics(run)["summary"]["epochs"] == 2


def test_a_stopped_run_tells_the_whole_command(project):
    """Which is typed as it is told, in a shell, from the folder where the run was started."""
    folder = project.path / "a folder"
    folder.mkdir()
    (folder / "my settings.ini").write_text((project.path / "config.ini").read_text())
    words = (
        "--config",
        "a folder/my settings.ini",
        "artifacts_dir=a folder/out",
        "epochs=2",
        "stop_at=20",
        "loader=made",
    )
    stopped = project.run("Resumable", *words)
    assert stopped.returncode == 143
    told = re.fullmatch(r"error: interrupted by SIGTERM; go on with: (.*)\n", stopped.stderr)
    assert told, stopped.stderr
    (run,) = (folder / "out/models/Resumable/runs").iterdir()
    _, script, *rest = shlex.split(told[1])
    assert script == str(project.path / "train.py")
    assert rest == [
        "Resumable", "--resume", run.name, "--config", "a folder/my settings.ini", "artifacts_dir=a folder/out"
    ]  # fmt: skip
    done = subprocess.run(told[1], shell=True, cwd=project.path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert metrics(run)["state"] == "finished" and metrics(run)["summary"]["epochs"] == 2
    assert (folder / "out/models/Resumable/model.safetensors").exists()
    assert settings(run)["loader"] == "made"


STOPPED_OUTSIDE = """
import os, signal, sys
place, number = sys.argv[1], getattr(signal, sys.argv[2])

def stop(*_, **__):
    os.kill(os.getpid(), number)

if place == "import":
    import commands.command_line as line
    line._import_quickly = stop
elif place == "build":
    import train.session as session
    session.machine_for = stop
elif place == "publish":
    from storage.run_folder import RunFolder
    RunFolder.publish = stop
elif place == "check":
    import commands.check.data as data
    from commands.check import checklist
    checklist.CHECKLIST = ((checklist.SAMPLES_FIT, stop), *checklist.CHECKLIST[1:])
from commands.command_line import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 138)])
@pytest.mark.parametrize("place", ["import", "build", "publish", "check"])
def test_a_signal_outside_of_the_loop_ends_in_words(place, name, code, shared_project):
    (shared_project.path / "stopped.py").write_text(STOPPED_OUTSIDE)
    before = shared_project.runs("FeatureFusion")
    option = ["--check"] if place == "check" else []
    done = shared_project.run(place, name, "FeatureFusion", "epochs=1", *option, script="stopped.py")
    assert done.returncode == code, done.stderr
    text = f"error: interrupted by {name}"
    new = [run for run in shared_project.runs("FeatureFusion") if run not in before]
    if place == "publish":
        assert done.stderr.startswith(f"{text}; go on with: ") and done.stderr.endswith(f" --resume {new[0].name}\n")
        assert metrics(new[0])["state"] == "interrupted"
    else:
        assert done.stderr == f"{text}\n", "there is nothing to go on with"
        assert not any((run / "metrics.json").exists() for run in new)
