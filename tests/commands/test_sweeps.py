"""Sweeps: what a sweep file may say, which trials come of it, and that a sweep goes on after a kill."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from commands.sweeps.spec import Dimension, SweepSpec, _Problems, _space, read_spec
from commands.sweeps.yaml_file import read_yaml
from config import ConfigError, ConfigParser
from storage.errors import ResumeError
from storage.run_folder import RunFolder

SECTION = "ModelAutoEncoderTrainer"
SPACE = {"learning_rate": Dimension("log", low=1e-4, high=1e-1), "width": Dimension("choices", ("16", "32"))}


def written(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


def problems_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_spec(written(folder, text), SECTION)
    return [line.removeprefix(f"{folder}/") for line in caught.value.problems]


def spec(**changes) -> SweepSpec:
    plain = {"name": "s", "trials": 4, "timeout_minutes": None, "sampler": "tpe", "pruner": "median",
             "prune_after_epochs": None, "seed": 0, "metric": "val_loss", "direction": "minimize",
             "space": SPACE}  # fmt: skip
    return SweepSpec(**(plain | changes))


@pytest.fixture(autouse=True)
def fresh_settings():
    ConfigParser.reset()
    yield
    ConfigParser.reset()


# ---------------------------------------------------------------------------------------------------- the sweep file


def test_a_sweep_file_is_read_as_config_ini_would_be(tmp_path):
    found = read_spec(
        written(
            tmp_path,
            "trials: 7\npruner: hyperband\nprune_after_epochs: 3\ntimeout_minutes: 1.5\n"
            "settings: {epochs: 6, align: off}\n"
            "space:\n  learning_rate: {log: [1e-5, 1e-2]}\n  code_dim: {range: [64, 512], step: 64}\n"
            "  dropout: {range: [0, 0.5]}\n  batch_size: {log: [8, 512]}\n"
            "  hidden_dims: {choices: [512, [1024, 512]]}\n  permute: [0, .1]\n  zoo: [a, /b]\n",
        ),
        SECTION,
    )
    assert (found.name, found.trials, found.pruner, found.timeout_minutes) == ("sweep", 7, "hyperband", 1.5)
    assert found.settings == {"epochs": "6", "align": "off"}
    assert found.space == {
        "learning_rate": Dimension("log", (), 1e-5, 1e-2),
        "code_dim": Dimension("range", (), 64, 512, 64, whole=True),
        "dropout": Dimension("range", (), 0.0, 0.5),
        "batch_size": Dimension("log", (), 8, 512, whole=True),
        "hidden_dims": Dimension("choices", ("512", "1024, 512")),
        "permute": Dimension("choices", ("0", ".1")),
        "zoo": Dimension("choices", (str(tmp_path / "a"), "/b")),
    }


def test_a_sweep_without_a_metric_goes_by_the_monitor(tmp_path):
    def metric_of(text: str) -> tuple[str, str]:
        found = read_spec(written(tmp_path, f"trials: 2\n{text}space: {{dropout: [0, 0.1]}}\n"), SECTION)
        return found.metric, found.direction

    assert metric_of("") == ("val_loss", "minimize")
    assert metric_of("settings: {monitor: val_accuracy}\n") == ("val_accuracy", "maximize")
    assert metric_of("settings: {monitor: val_zebra, monitor_mode: max}\n") == ("val_zebra", "maximize")
    assert metric_of("metric: val_kendall\n") == ("val_kendall", "maximize")
    assert metric_of("metric: val_kendall\ndirection: minimize\n") == ("val_kendall", "minimize")
    ConfigParser.use(overrides=["monitor=val_r2"], section=SECTION)
    assert metric_of("") == ("val_r2", "maximize")


def test_none_is_no_end_of_a_range(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("space:\n  depth: {range: [none, 5]}\n")
    problems = _Problems(path)
    assert not _space(read_yaml(path)[0], {"depth": int | None}, SECTION, path, problems)
    told = "space: 'depth' goes from none to 5: none is a choice of a list, not an end"
    assert problems.lines() == [f"{path}:2 {told}"]


def test_all_mistakes_are_told_at_once_with_line_and_key(tmp_path):
    text = """trails: 20
trials: 0
sampler: bayes
pruner: [a]
seed: 1e3
name: a/b
settings:
  epochs: 0
  epoch: 3
  dropout: 0.1
space:
  learning_rate: {log: [0, 1e-2]}
  weight_decay: {log: [1e-2, 1e-5]}
  dropuot: {range: [0, 0.5]}
  dropout: {range: [0, 1.5]}
  batch_size: {range: [16, 64], step: 0.5}
  code_dim: {range: 5}
  compression: [1]
  activation: [gelu, rleu]
  align: {range: [0, 1]}
  artifacts_dir: [a, b]
  permute: 5
  permute: [0, 0.1]
  tokenization: [neuron, flat]
"""
    ConfigParser.use(None, ["tokenization=flat"], SECTION)
    forms = "a list of choices, {range: [low, high]}, {range: [low, high], step: s} or {log: [low, high]}"
    assert problems_of(tmp_path, text) == [
        "sweep.yaml:1 unknown key 'trails'; did you mean 'trials'?",
        "sweep.yaml:2 trials: 0 must be greater than 0",
        "sweep.yaml:3 sampler: bayes must be one of tpe, random, grid",
        "sweep.yaml:4 pruner: a list must be one of median, hyperband, none",
        "sweep.yaml:5 seed: 1e3 must be an integer",
        "sweep.yaml:6 name: a/b must be the name of a folder",
        "sweep.yaml:8 settings: epochs = 0: must be an integer greater than 0",
        f"sweep.yaml:9 settings: unknown key 'epoch'; did you mean 'epochs'? ([{SECTION}])",
        "sweep.yaml:12 space: learning_rate = 0: must be a finite number greater than 0",
        "sweep.yaml:13 space: 'weight_decay' goes from 1e-2 to 1e-5: the first must be the smaller one and above 0",
        f"sweep.yaml:14 space: unknown key 'dropuot'; did you mean 'dropout'? ([{SECTION}])",
        "sweep.yaml:15 space: dropout = 1.5: must be a finite number greater than or equal to 0 and less than 1",
        "sweep.yaml:16 space: the step of 'batch_size' must be a number above 0, at most 48, and whole",
        f"sweep.yaml:17 space: 'code_dim' must be {forms}",
        "sweep.yaml:18 space: 'compression' needs two choices or more, each once",
        "sweep.yaml:19 space: activation = rleu: must be one of gelu, relu, tanh; did you mean relu?",
        "sweep.yaml:20 space: 'align' is no number, it must be true or false: give a list of choices",
        "sweep.yaml:21 space: 'artifacts_dir' must be the same for all trials: set it in config.ini or on the command "
        "line",
        "sweep.yaml:23 key 'permute' comes twice",
        "sweep.yaml:24 space: 'tokenization' is set on the command line too: remove one",
    ]


@pytest.mark.parametrize(
    "text, problem",
    [
        ("- a", "sweep.yaml must hold `key: value` lines, such as `trials: 20`"),
        ("", "sweep.yaml must hold `key: value` lines, such as `trials: 20`"),
        ("a: [1", "sweep.yaml:1 is no YAML: expected ',' or ']', but got '<stream end>'"),
        (
            "space: {epochs: &a [*a, 2]}",
            "sweep.yaml holds an alias (*name) inside of what it stands for, or too many levels",
        ),
        (
            "trials: 2\nspace: {dropout: [0.1, 0.10]}",
            "sweep.yaml:2 space: 'dropout' needs two choices or more, each once",
        ),
        (
            "trials: 2\nmetric: val_zebra\nspace: {epochs: [1, 2]}",
            "sweep.yaml:2 metric: whether val_zebra is better low or high is not known from its name: say "
            "`direction: maximize` or `direction: minimize`",
        ),
        (
            "space: {epochs: [1, 2]}",
            "sweep.yaml missing key 'trials': how many runs there shall be, such as `trials: 20`",
        ),
        (
            "trials: 2\nsampler: grid\nspace: {dropout: {range: [0, 0.5]}}",
            "sweep.yaml:3 space: 'dropout' has no end of values; a grid needs choices or a step",
        ),
        (
            "trials: 2\nsettings: {epochs: 2}\nspace: {epochs: [1, 2]}",
            "sweep.yaml:2 settings: 'epochs' is in space too: it is either set or searched",
        ),
    ],
)
def test_a_file_that_is_none(tmp_path, text, problem):
    assert problems_of(tmp_path, text) == [problem]


def test_a_grid_has_as_many_trials_as_combinations(tmp_path):
    axes = "epochs: {range: [2, 6], step: 2}, dropout: {range: [0, .3], step: .1}, align: [on, off]"
    text = f"sampler: grid\nspace: {{{axes}}}"
    found = read_spec(written(tmp_path, text), SECTION)
    assert found.trials == 3 * 4 * 2
    assert found.space["dropout"].grid() == pytest.approx([0, 0.1, 0.2, 0.3])
    assert read_spec(written(tmp_path, f"trials: 5\n{text}"), SECTION).trials == 5


# ------------------------------------------------------------------------------------------------------- the trials


def study_in(folder: Path, **changes):
    pytest.importorskip("optuna")
    from commands.sweeps.study import TrialStudy

    settings = changes.pop("settings", {"seed": "0"})
    return TrialStudy(spec(**changes), folder, settings, epochs=10)


def params_of(study, trials: int) -> list[dict]:
    """Run trials whose value is their learning rate."""
    found = []
    for _ in range(trials):
        trial = study.next_trial()
        found.append(dict(trial.params))
        study.tell(trial, trial.params["learning_rate"], epochs=3)
    return found


@pytest.mark.parametrize("trials", [3, pytest.param(14, marks=pytest.mark.slow)])  # TPE begins after ten
def test_an_interrupted_sweep_goes_on_to_the_same_trials(tmp_path, trials):
    whole = params_of(study_in(tmp_path / "a", trials=trials), trials)
    first = params_of(study_in(tmp_path / "b", trials=trials), trials - 2)
    again = study_in(tmp_path / "b", trials=trials)
    assert first + params_of(again, 2) == whole
    assert again.next_trial() is None, "as many as there shall be"
    assert len({trial["learning_rate"] for trial in whole}) == trials
    other = params_of(study_in(tmp_path / "c", trials=trials, seed=1), 1)
    assert other[0] != whole[0]
    assert again.importance() is None if trials < 10 else set(again.importance()) == {"learning_rate", "width"}


def test_a_trial_that_was_killed_is_taken_up_and_given_up_the_third_time(tmp_path):
    study = study_in(tmp_path)
    trial = study.next_trial()
    other = study_in(tmp_path)
    assert other.next_trial().number == 1, "the first is being worked on"
    for attempt in (2, 3):
        study.release(trial)  # as the end of its process does
        study = study_in(tmp_path)
        trial = study.next_trial()
        assert (trial.number, trial.user_attrs["attempts"]) == (0, attempt)
    study.release(trial)
    study = study_in(tmp_path)
    assert study.next_trial().number == 2
    assert study.trials()[0].user_attrs["error"] == "ended its process 3 times"


def test_a_sweep_that_became_another_is_refused(tmp_path):
    study_in(tmp_path, settings={"seed": "1", "epochs": "5"})
    study = study_in(
        tmp_path, settings={"seed": "0", "epochs": "5", "old": "1"}
    )  # nothing was measured: it begins anew
    study.tell(study.next_trial(), 1.0)
    study_in(tmp_path, settings={"seed": "0", "epochs": "5", "new": "1"}, trials=50, pruner="none", sampler="random")
    depth = Dimension("range", low=1, high=4, whole=True)
    space = {"learning_rate": Dimension("range", low=0.0, high=1.0), "depth": depth}
    with pytest.raises(ConfigError) as caught:
        study_in(tmp_path, settings={"seed": "0", "epochs": "6"}, space=space, direction="maximize")
    assert caught.value.problems == [
        f"sweep 's' in {tmp_path} is another one; its trials can't be compared with new ones:",
        "  metric val_loss: minimize then, maximize now",
        "  space depth: not there then, {range: [1, 4], step: 1} now",
        "  space learning_rate: {log: [0.0001, 0.1]} then, {range: [0, 1]} now",
        "  space width: [16, 32] then, not there now",
        "  setting epochs: 5 then, 6 now",
        "set them back, or give this sweep a name of its own (`name: ...` in its file)",
    ]


def test_grid_and_random_samplers(tmp_path):
    space = {
        "learning_rate": Dimension("choices", ("0.1", "0.2")),
        "width": Dimension("range", low=1, high=3, whole=True),
    }
    study = study_in(tmp_path / "grid", sampler="grid", trials=6, space=space)
    found = []
    while (trial := study.next_trial()) is not None:
        found.append((trial.params["learning_rate"], trial.params["width"]))
        study.tell(trial, error="diverged")
    assert found == [(rate, width) for rate in ("0.1", "0.2") for width in (1, 2, 3)]
    random = params_of(study_in(tmp_path / "random", sampler="random"), 3)
    assert len({trial["learning_rate"] for trial in random}) == 3


# --------------------------------------------------------------------------------------------- the command line


SWEEP = """sampler: grid
pruner: none
space:
  stop_at: ["", "30"]
  learning_rate: [0.01, 1e30]
settings: {stop_signal: SIGTERM}
"""


@pytest.fixture(scope="module")
def swept(shared_project):
    """A sweep whose third trial sends its process SIGTERM in its third epoch, and the same command again."""
    pytest.importorskip("optuna")
    (shared_project.path / "signals.yaml").write_text(SWEEP)
    command = ("Resumable", "--sweep", "signals.yaml")
    return [shared_project.run(*command, cwd=shared_project.path) for _ in range(2)]


@pytest.fixture(scope="module")
def folder(shared_project):
    return shared_project.path / "artifacts/sweeps/Resumable/signals"


def test_a_sweep_is_interrupted_and_goes_on(swept, shared_project, folder):
    first, second = swept
    assert first.returncode == 143 and first.stderr == "error: interrupted by SIGTERM; the same command goes on\n"
    assert "trial 3 of 4: stop_at = 30, learning_rate = 0.01" in first.stdout
    assert second.returncode == 0 and second.stderr == "", second.stderr
    runs = shared_project.runs("Resumable")
    assert len(runs) == 4, "the third trial has gone on in its run"
    assert f"resumed run {runs[2].name} after epoch 2 and 2 steps" in second.stdout
    rows = json.loads((folder / "trials.json").read_text())["trials"]
    assert [(row["number"], row["state"], row["epochs"], row["run"]) for row in rows] == [
        (1, "complete", 4, runs[0].name), (2, "failed", 0, runs[1].name),
        (3, "complete", 4, runs[2].name), (4, "failed", 0, runs[3].name),
    ]  # fmt: skip
    assert rows[0]["value"] == rows[2]["value"], "to the last bit, interrupted or not"
    states = [json.loads((run / "metrics.json").read_text())["state"] for run in runs]
    assert states == ["finished", "failed", "finished", "failed"]


def test_a_sweep_ends_with_a_table_the_best_settings_and_the_best_weights(swept, shared_project, folder):
    lines = swept[1].stdout.splitlines()
    table = lines[next(number for number, line in enumerate(lines) if line.startswith("trial  val_loss")) :]
    runs = shared_project.runs("Resumable")
    value = f"{json.loads((folder / 'trials.json').read_text())['trials'][0]['value']:.6g}"
    assert [line.split() for line in table[:3]] == [
        ["trial", "val_loss", "stop_at", "learning_rate", "epochs", "state", "run"],
        ["1", value, "0.01", "4", "complete", runs[0].name],
        ["3", value, "30", "0.01", "4", "complete", runs[2].name],
    ]
    assert "sweep signals: 4 of 4 trials (2 complete, 2 failed), finished" in table
    assert any(
        re.match(r"trial 2 and 4 failed: TrainingError: numbers went wrong in step 2", line) for line in table
    ), table
    published = shared_project.path / "artifacts/models/Resumable/model.safetensors"
    assert published.read_bytes() == (runs[0] / "model.safetensors").read_bytes()
    best = (folder / "best.ini").read_text().splitlines()
    assert best[1:5] == ["[ResumableTrainer]", "; found by the sweep", "learning_rate = 0.01", 'stop_at = ""']
    assert (folder / "trials.png").stat().st_size > 10_000 and not (folder / "running" / "0").exists()


def test_mistakes_cost_no_import_of_torch(shared_project):
    (shared_project.path / "wrong.yaml").write_text("trials: 2\nspace: {epohcs: [1, 2]}\n")
    (shared_project.path / "torch").mkdir()
    (shared_project.path / "torch/__init__.py").write_text("raise AssertionError('imported')")
    try:
        cold = {"TORCH_NONE": "1", "cwd": shared_project.path}  # a start that does not have torch yet
        wrong = shared_project.run("Resumable", "--sweep", "wrong.yaml", **cold)
        missing = shared_project.run("Resumable", "--sweep", "none.yaml", **cold)
        both = shared_project.run("Resumable", "--sweep", "wrong.yaml", "--dry-run", **cold)
    finally:
        (shared_project.path / "torch/__init__.py").unlink()
        (shared_project.path / "torch").rmdir()
    assert (wrong.returncode, missing.returncode, both.returncode) == (2, 2, 2)
    assert both.stderr == "error: --dry-run and --sweep don't go together: use one at a time\n"
    if "needs Optuna" not in wrong.stderr:
        assert wrong.stderr == (
            "error: wrong.yaml:2 space: unknown key 'epohcs'; did you mean 'epochs'? ([ResumableTrainer])\n"
        )
        assert missing.stderr == "error: none.yaml can't be read: No such file or directory\n"


@pytest.mark.slow
def test_a_finished_sweep_says_so_and_its_best_settings_can_be_run(swept, shared_project, folder):
    again = shared_project.run("Resumable", "--sweep", "signals.yaml", cwd=shared_project.path)
    assert again.returncode == 0 and "trial 1 of" not in again.stdout
    assert "4 of 4 trials (2 complete, 2 failed), finished" in again.stdout
    assert len(shared_project.runs("Resumable")) == 4
    alone = shared_project.run("Resumable", "--config", folder / "best.ini")
    assert alone.returncode == 0, alone.stderr
    weights = [shared_project.runs("Resumable")[number] / "model.safetensors" for number in (0, -1)]
    assert weights[0].read_bytes() == weights[1].read_bytes(), "a trial gives what a run by itself gives"


@pytest.mark.slow
def test_pruning_ends_runs_and_the_history_may_be_the_metric(project):
    pytest.importorskip("optuna")
    (project.path / "s.yaml").write_text(
        "trials: 8\nmetric: val_size\ndirection: maximize\nprune_after_epochs: 2\n"
        "space: {learning_rate: {log: [1e-6, 3e-1]}}\nsettings: {epochs: 6}\n"
    )
    done = project.run("Resumable", "--sweep", "s.yaml", cwd=project.path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((project.path / "artifacts/sweeps/Resumable/s/trials.json").read_text())["trials"]
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert pruned and all(2 <= row["epochs"] < 6 for row in pruned)
    for row in rows:
        content = json.loads(
            (project.path / "artifacts/models/Resumable/runs" / row["run"] / "metrics.json").read_text()
        )
        assert content["state"] == {"pruned": "pruned", "complete": "finished"}[row["state"]]
        assert row["value"] == max(content["history"]["val_size"])
    (project.path / "t.yaml").write_text("trials: 2\nmetric: val_top\ndirection: maximize\nspace: {seed: [1, 2]}\n")
    wrong = project.run("Resumable", "--sweep", "t.yaml", cwd=project.path)
    assert wrong.returncode == 2
    assert wrong.stderr == (
        "error: metric: the runs have no 'val_top' in their history; they have train_loss, train_size, "
        "learning_rate, val_size, val_loss\n"
    )
    (project.path / "t.yaml").write_text("trials: 1\nmetric: val_size\ndirection: maximize\nspace: {seed: [1, 2]}\n")
    right = project.run("Resumable", "--sweep", "t.yaml", cwd=project.path)
    assert right.returncode == 0 and "1 of 1 trial (1 complete), finished" in right.stdout, "it could be corrected"


@pytest.mark.slow
def test_a_killed_sweep_and_two_processes_at_once(project):
    pytest.importorskip("optuna")
    (project.path / "s.yaml").write_text(SWEEP.replace("1e30", "0.02").replace("SIGTERM", "SIGKILL"))
    command = ("Resumable", "--sweep", "s.yaml")
    assert project.run(*command, cwd=project.path).returncode == -signal.SIGKILL
    several = [
        subprocess.Popen([sys.executable, "train.py", *command], cwd=project.path, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    texts = [process.communicate(timeout=300)[0] for process in several]
    again = project.run(*command, cwd=project.path)  # of a trial that killed its process a second time
    assert again.returncode == 0, texts
    rows = json.loads((project.path / "artifacts/sweeps/Resumable/s/trials.json").read_text())["trials"]
    assert [row["number"] for row in rows] == [1, 2, 3, 4]
    assert {row["state"] for row in rows} == {"complete"}, texts
    assert len({row["run"] for row in rows}) == 4 == len(project.runs("Resumable"))


def test_a_device_that_is_not_there_costs_no_trial(tmp_path):
    pytest.importorskip("optuna")
    from commands.sweeps.sweep import run_sweep

    (tmp_path / "s.yaml").write_text("trials: 9\nspace: {seed: {range: [0, 9]}}\nsettings: {device: cuda:99}\n")
    ConfigParser.use(None, [f"artifacts_dir={tmp_path / 'artifacts'}"], SECTION)
    with pytest.raises(ConfigError, match="device = 'cuda:99' can't be used here"):
        run_sweep(type(SECTION, (), {}), tmp_path / "s.yaml")
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.slow
def test_a_trainer_that_always_fails_stops_its_sweep(project):
    pytest.importorskip("optuna")
    (project.path / "s.yaml").write_text("trials: 9\nspace: {seed: {range: [0, 9]}}\nsettings: {learning_rate: 1e30}\n")
    done = project.run("Resumable", "--sweep", "s.yaml", cwd=project.path)
    assert done.returncode == 4 and len(project.runs("Resumable")) == 3
    assert "the first 3 trials have all failed: the sweep stops" in done.stdout


def test_the_latest_run_to_resume_is_not_one_that_a_sweep_has_pruned(tmp_path):
    runs = tmp_path / "models" / "Own" / "runs"
    for name, state in (("20260101-000000", "interrupted"), ("20260102-000000", "pruned")):
        (runs / name / "checkpoints").mkdir(parents=True)
        (runs / name / "metrics.json").write_text(json.dumps({"state": state}))
    assert RunFolder.find(tmp_path, "Own", "latest").id == "20260101-000000"
    assert RunFolder.find(tmp_path, "Own", "20260102-000000").id == "20260102-000000"
    (runs / "20260101-000000").rename(tmp_path / "elsewhere")
    with pytest.raises(ResumeError, match="no run 'latest' to resume"):
        RunFolder.find(tmp_path, "Own", "latest")
