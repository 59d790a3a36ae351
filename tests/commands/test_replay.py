"""`train.py --replay`: the bad step of a run comes again in a new process, as a table to read."""

import json
import shutil

import pytest

FAILURES = {"layer": "model.0 (Logarithm)", "sample": "sample 29", "validation": "sample 11", "loss": "loss function"}


@pytest.fixture(scope="module")
def failed(shared_project):
    """A run folder for each way of going wrong, made by a run that did."""
    found = {}
    for trouble in FAILURES:
        done = shared_project.run("Unstable", f"trouble={trouble}")
        assert done.returncode == 4, done.stdout + done.stderr
        found[trouble] = (shared_project.runs("Unstable")[-1], done.stderr)
    return found


@pytest.mark.parametrize("trouble", FAILURES)
def test_a_run_that_goes_wrong_says_where_and_its_replay_says_the_same(trouble, failed, shared_project):
    run, text = failed[trouble]
    assert text.startswith("error: numbers went wrong in ") and FAILURES[trouble] in text and "Traceback" not in text
    assert f"python train.py --replay {run}" in text
    before = sorted(path for path in run.rglob("*"))
    runs = len(shared_project.runs("Unstable"))
    done = shared_project.run("--replay", run)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "reproduced"
    assert FAILURES[trouble] in " ".join(done.stdout.split())
    assert max(map(len, lines)) <= 110 or run.name in max(lines, key=len)
    assert sorted(path for path in run.rglob("*")) == before and len(shared_project.runs("Unstable")) == runs


def test_the_table_marks_the_first_bad_layer(failed, shared_project):
    run, _ = failed["layer"]
    done = shared_project.run("unstable", "--replay", run.name)
    marked = [line for line in done.stdout.splitlines() if line.startswith(">")]
    assert len(marked) == 1 and marked[0].split()[1:3] == ["model.0", "Logarithm"]
    assert "6 NaN of 48" in marked[0] and marked[0].endswith("<- first")


@pytest.mark.parametrize("trouble", ["layer", "validation"])
def test_a_batch_that_was_not_kept_is_read_again(trouble, failed, shared_project, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(failed[trouble][0], run)
    report = json.loads((run / "failure/report.json").read_text())
    for name in ("batch.json", "batch.safetensors"):
        (run / "failure" / name).unlink()
        del report["files"][name]
    (run / "failure/report.json").write_text(json.dumps(report))
    whole = shared_project.run("--replay", failed[trouble][0]).stdout.splitlines()
    done = shared_project.run("--replay", run)
    assert done.stdout.splitlines()[1:] == whole[1:], done.stderr


def test_a_changed_setting_may_heal_it(failed, shared_project):
    run, _ = failed["layer"]
    done = shared_project.run("--replay", run, "trouble=none", "device=cpu")
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "did not come again"
    assert "gradient of" in done.stdout


@pytest.mark.slow
def test_artifacts_may_be_elsewhere(failed, shared_project, tmp_path):
    run = tmp_path / "out/models/Unstable/runs/20300101-000000"
    shutil.copytree(failed["layer"][0], run)
    done = shared_project.run("--replay", "latest", f"artifacts_dir={tmp_path / 'out'}")
    assert done.stdout.splitlines()[0] == f"replay of {run}", done.stderr


@pytest.mark.slow
def test_latest_is_the_newest_run_with_a_failure(failed, shared_project):
    assert shared_project.run("Unstable", "trouble=none").returncode == 0
    newest = max((run for run, _ in failed.values()), key=lambda run: (run.name[:15], len(run.name), run.name))
    done = shared_project.run("--replay")
    assert done.stdout.splitlines()[0] == f"replay of {newest}"
    assert shared_project.run("--replay", "precision=bf16").returncode == 0  # the setting is no run


def test_the_weights_must_fit(failed, shared_project):
    done = shared_project.run("--replay", failed["layer"][0], "layers=2")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "the weights of the failed run do not fit UnstableTrainer as it is now" in done.stderr


@pytest.mark.slow
def test_a_deep_model_is_folded_around_the_bad_layer(project):
    assert project.run("Unstable", "layers=50", "loader=tensors").returncode == 4
    done = project.run("--replay")
    lines = done.stdout.splitlines()
    assert "  ... 97 layers, 97 not finite" in lines and len(lines) < 40
    assert lines[-1] == "reproduced"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--replay", "nothing"], "no run 'nothing' to replay. Runs with a failure:"),
        (["--replay", "latest", "--dry-run"], "--replay and --dry-run don't go together"),
        (["--replay", "latest", "--resume"], "--replay and --resume don't go together"),
        (["--replay", "latest", "--profile"], "--replay and --profile don't go together"),
        (["--replay", "latest", "--config", "config.ini"], "--replay and --config don't go together"),
        (["Resumable", "--replay", "latest"], "is a run of UnstableTrainer, not of ResumableTrainer"),
        (["--replay", "latest", "epohcs=3"], "unknown key 'epohcs'; did you mean 'epochs'?"),
    ],
)
def test_mistakes_exit_with_2(words, text, failed, shared_project):
    done = shared_project.run(*words)
    assert done.returncode == 2, done.stdout
    assert text in done.stderr and "Traceback" not in done.stderr


def test_a_run_without_a_failure_is_told(project):
    assert project.run("Unstable", "trouble=none", "epochs=1").returncode == 0
    run = project.runs("Unstable")[-1]
    done = project.run("--replay", run)
    assert done.returncode == 2
    assert f"run {run.name} has no failure/ folder: its numbers did not go wrong. No run in" in done.stderr
    assert "there is no failure to replay" in project.run("--replay").stderr


@pytest.mark.parametrize(
    "name",
    [
        "weights.safetensors",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("state.json", "state.safetensors", "batch.safetensors")
        ),
    ],
)
def test_a_damaged_file_is_named(name, failed, shared_project, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(failed["layer"][0], run)
    path = run / "failure" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    done = shared_project.run("--replay", run)
    assert done.returncode == 2 and f"{path} is damaged" in done.stderr and "Traceback" not in done.stderr


def test_a_missing_file_or_a_broken_report_is_named(failed, shared_project, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(failed["layer"][0], run)
    (run / "failure/state.json").unlink()
    assert f"{run / 'failure/state.json'} can't be read" in shared_project.run("--replay", run).stderr
    report = run / "failure/report.json"
    for content in ("{", "[]", json.dumps({"schema_version": 1, "trainer": "Unstable"})):
        report.write_text(content)
        done = shared_project.run("--replay", run)
        assert done.returncode == 2 and f"{report} is damaged" in done.stderr and "Traceback" not in done.stderr
