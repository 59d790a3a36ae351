"""Trackers: what is sent, what a failure does, and that a resumed run goes on without duplicates or gaps."""

import json
import logging
import math
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from config import BaseTrainerConfig, ConfigError
from train.loop.record import RunRecord
from train.trackers import TRACKERS, RunFacts, Tracker, Trackers

ROWS = {1: {"train_loss": 3.0, "val_loss": 2.0}, 2: {"train_loss": 2.0}, 3: {"train_loss": 1.0, "val_loss": 1.5}}


@dataclass
class Notebook(Tracker):
    """A tracker that remembers, and fails where it is told to."""

    has: int = 0
    failing: set[str] = field(default_factory=set)
    seen: list = field(default_factory=list)

    def _note(self, what: str, *details) -> None:
        if what in self.failing:
            raise ConnectionError(f"no {what}\nserver is away")
        self.seen.append((what, *details))

    def start(self, run: RunFacts) -> int:
        self._note("start", run.epoch)
        return self.has

    def log(self, epoch, numbers) -> None:
        self._note("log", epoch, numbers)

    def finish(self, state, summary, pictures) -> None:
        self._note("finish", state, summary, [picture.name for picture in pictures])


class Trainer:
    """As much of a trainer as trackers look at."""

    def __init__(self, folder: Path, epoch: int = 0) -> None:
        self.config, self.model_name, self.results = (
            BaseTrainerConfig(epochs=3),
            "Tiny",
            {"score": [0.5, 1], "nan": None},
        )
        self.run_folder = types.SimpleNamespace(id="20260101-000000", path=folder)
        self.record = RunRecord()
        self.record.progress.epoch = epoch


def started(tracker: Tracker, folder: Path, epoch: int = 0) -> tuple[Trackers, Trainer]:
    trackers, trainer = Trackers(), Trainer(folder, epoch)
    trackers.add(tracker)
    trackers.on_train_begin(trainer)
    return trackers, trainer


def tell(trackers: Trackers, trainer: Trainer, rows: dict[int, dict[str, float]], step: int = 0) -> None:
    """Let epochs enter the history, and tell trackers of them."""
    trainer.record.progress.step, trainer.record.progress.epoch = step, max(rows, default=0)
    for epoch, numbers in rows.items():
        trackers.on_epoch_end(trainer, epoch, numbers)


def test_rows_of_the_history_have_their_epochs_and_come_once():
    record = RunRecord()
    record.history.update(train_loss=[3.0, 2.0], val_loss=[1.5], val_epoch=[2], learning_rate=[0.1, 0.1])
    assert record.new_rows() == {
        1: {"train_loss": 3.0, "learning_rate": 0.1}, 2: {"train_loss": 2.0, "val_loss": 1.5, "learning_rate": 0.1},
    }  # fmt: skip
    assert record.new_rows() == {}
    record.history["train_loss"].append(1.0)
    assert record.new_rows() == {3: {"train_loss": 1.0}}
    record.load_state_dict({"progress": {"epoch": 1}, "history": {"train_loss": [3.0]}, "lengths": {}, "pending": {}})
    assert record.new_rows() == {}, "what an earlier session has told"
    assert record.rows() == record.rows() == {1: {"train_loss": 3.0}}, "a resumed run tells all it has"
    record.history["train_loss"].append(2.5)
    assert record.new_rows() == {2: {"train_loss": 2.5}}
    record.history.clear()
    record.history.update(train_loss=[2.0], epoch=[10])
    record.load_state_dict(record.frozen()())
    assert record.rows() == {10: {"train_loss": 2.0}}, "epochs of a loop of the trainer's own"


def test_numbers_are_sent_with_the_optimizer_step_and_a_summary_ends_it(tmp_path):
    tracker = Notebook()
    trackers, trainer = started(tracker, tmp_path)
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "loss.png").touch()
    tell(trackers, trainer, {1: ROWS[1], 2: ROWS[2]}, step=8)
    trackers.on_train_end(trainer, "finished")
    trackers.on_train_end(trainer, "failed")
    head, first, second, last = tracker.seen
    assert (head, first) == (("start", 0), ("log", 1, ROWS[1]))
    assert second == ("log", 2, {"train_loss": 2.0, "optimizer_step": 8})
    assert last[:2] == ("finish", "finished") and last[3] == ["loss.png"]
    assert last[2]["score"] == "0.5, 1" and last[2]["epochs"] == 2 and "nan" not in last[2]


def test_a_resumed_tracker_gets_what_it_lacks_and_nothing_twice(tmp_path):
    tracker = Notebook(has=2)
    trackers, trainer = started(tracker, tmp_path, epoch=1)
    tell(trackers, trainer, {1: ROWS[1]})
    tell(trackers, trainer, {2: ROWS[2], 3: ROWS[3]})
    assert tracker.seen == [("start", 1), ("log", 3, ROWS[3])]


def test_a_tracker_that_was_away_gets_the_epochs_of_earlier_sessions(tmp_path):
    tracker, trackers, trainer = Notebook(has=1), Trackers(), Trainer(tmp_path, epoch=2)
    trainer.record.history.update(train_loss=[3.0, 2.0], val_loss=[2.0], val_epoch=[1])
    trainer.record.progress.step = 8
    trackers.add(tracker)
    trackers.on_train_begin(trainer)
    assert tracker.seen == [("start", 2), ("log", 2, ROWS[2] | {"optimizer_step": 8})]
    tell(trackers, trainer, {3: ROWS[3]})
    trackers.on_train_end(trainer, "finished")
    assert [seen[:2] for seen in tracker.seen[2:]] == [("log", 3), ("finish", "finished")]


def test_a_failing_tracker_is_warned_of_once_and_catches_up(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    tracker = Notebook(failing={"start"})
    trackers, trainer = started(tracker, tmp_path)
    tell(trackers, trainer, {1: ROWS[1]})
    tracker.failing = {"log"}
    tell(trackers, trainer, {2: ROWS[2]})
    warned = [record.getMessage() for record in caplog.records]
    assert warned == ["Notebook failed, training goes on and will try again: ConnectionError: no start server is away"]
    tracker.failing = set()
    tell(trackers, trainer, {3: ROWS[3]})
    assert tracker.seen == [("start", 0), *(("log", epoch, ROWS[epoch]) for epoch in (1, 2, 3))]
    tracker.failing = {"log", "finish"}
    tell(trackers, trainer, {4: {"train_loss": 1.0}})
    trackers.on_train_end(trainer, "finished")
    assert [record.getMessage() for record in caplog.records][1:] == ["Notebook lacks 1 epoch of run 20260101-000000"]


def test_what_is_told_of_an_epoch_in_two_parts_waits_as_a_whole(tmp_path):
    tracker = Notebook(failing={"start"})
    trackers, trainer = started(tracker, tmp_path)
    tell(trackers, trainer, {1: {"train_loss": 3.0}})
    tracker.failing = set()
    tell(trackers, trainer, {1: {"val_loss": 2.0}})
    assert tracker.seen == [("start", 0), ("log", 1, ROWS[1])]


def test_a_slow_tracker_takes_its_share_of_the_time_and_no_more(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("train.checkpointing.saver.time.monotonic", lambda: clock[0])

    class Slow(Notebook):
        def _note(self, what, *details):
            clock[0] += 1.0
            super()._note(what, *details)

    tracker, trackers, trainer = Slow(), Trackers(share=0.1), Trainer(tmp_path)
    trackers.add(tracker)
    trackers.on_train_begin(trainer)  # one second: the next nine are the run's
    for epoch in (1, 2):
        tell(trackers, trainer, {epoch: ROWS[epoch]})
    assert [seen[0] for seen in tracker.seen] == ["start"]
    clock[0] += 9.0
    tell(trackers, trainer, {3: ROWS[3]})
    assert [seen[1] for seen in tracker.seen] == [0, 1, 2, 3]
    tell(trackers, trainer, {4: {}})
    trackers.on_train_end(trainer, "finished")
    assert [seen[1] for seen in tracker.seen] == [0, 1, 2, 3, 4, "finished"]


def test_a_tracker_of_ones_own_is_a_key_and_a_line_in_the_table(monkeypatch):
    module = types.ModuleType("my_tracker")
    module.MyTracker = lambda value: Notebook(has=int(value))
    monkeypatch.setitem(sys.modules, "my_tracker", module)
    monkeypatch.setitem(TRACKERS, "batch_size", "my_tracker:MyTracker")
    channels = Trackers.of(BaseTrainerConfig(batch_size=7))._channels
    assert [(channel.name, channel.tracker.has) for channel in channels] == [("batch_size", 7)]
    assert Trackers.of(BaseTrainerConfig(batch_size=7, saving_share=0.5))._share == 0.5


def test_a_missing_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(
        ConfigError, match=r"^mlflow = sqlite:///m\.db needs .*: pip install mlflow, or set mlflow = off"
    ):
        Trackers.of(BaseTrainerConfig(mlflow="sqlite:///m.db"))


@pytest.mark.slow
def test_a_missing_package_is_told_before_anything_is_trained(shared_project):
    (shared_project.path / "wandb.py").write_text("raise ModuleNotFoundError(\"No module named 'wandb'\")")
    done = shared_project.run("FeatureFusion", "wandb=offline")
    (shared_project.path / "wandb.py").unlink()
    assert done.returncode == 2
    assert done.stderr == (
        "error: wandb = offline needs a package that can't be imported (No module named 'wandb'): "
        "pip install wandb, or set wandb = off.\n"
    )
    assert shared_project.runs("FeatureFusion") == []


def test_mlflow_wants_a_uri():
    with pytest.raises(ConfigError) as caught:
        Trackers.of(BaseTrainerConfig(mlflow="on"))
    assert str(caught.value) == (
        "mlflow = on: must be off or a tracking URI, such as http://localhost:5000 or sqlite:///mlflow.db"
    )


# ------------------------------------------------------------------------------------- each against a small fake


class FakeMlflow(types.ModuleType):
    """What of mlflow is used: one store for all clients."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.runs: dict[str, dict] = {}
        self.entities = types.SimpleNamespace(
            Param=lambda key, value: (key, value),
            Metric=lambda key, value, timestamp, step: types.SimpleNamespace(key=key, value=value, step=step),
        )
        self.MlflowClient = lambda tracking_uri: self

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return name

    def create_run(self, experiment, run_name, tags):
        run = f"r{len(self.runs)}"
        self.runs[run] = {"experiment": experiment, "metrics": [], "params": [], "status": "RUNNING", "files": []}
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run))

    def update_run(self, run, status):
        self.runs[run]["status"] = status

    def get_metric_history(self, run, key):
        return [metric for metric in self.runs[run]["metrics"] if metric.key == key]

    def log_batch(self, run, metrics=(), params=()):
        assert len(params) <= 100
        self.runs[run]["metrics"] += metrics
        self.runs[run]["params"] += params

    def set_tag(self, run, key, value):
        self.runs[run][key] = value

    def log_artifact(self, run, path, folder):
        self.runs[run]["files"].append(f"{folder}/{Path(path).name}")

    def set_terminated(self, run, status):
        self.runs[run]["status"] = status


def test_mlflow_goes_on_with_the_same_run(tmp_path, monkeypatch):
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    for epoch, state in ((0, "interrupted"), (1, "finished")):  # the second comes from an older checkpoint
        trackers = Trackers.of(BaseTrainerConfig(mlflow="http://nowhere"))
        trainer = Trainer(tmp_path, epoch)
        trackers.on_train_begin(trainer)
        tell(trackers, trainer, {1: ROWS[1], 2: ROWS[2]} if state == "interrupted" else ROWS)
        trackers.on_train_end(trainer, state)
        assert fake.runs["r0"]["status"] == ("KILLED" if state == "interrupted" else "FINISHED")
    assert list(fake.runs) == ["r0"]
    assert [(metric.step, metric.value) for metric in fake.get_metric_history("r0", "train_loss")] == [
        (1, 3.0), (2, 2.0), (3, 1.0),
    ]  # fmt: skip
    assert ("batch_size", "32") in fake.runs["r0"]["params"] and fake.runs["r0"]["state"] == "finished"
    assert json.loads((tmp_path / "mlflow.json").read_text()) == {"uri": "http://nowhere", "run_id": "r0"}
    other = Trackers.of(BaseTrainerConfig(mlflow="http://elsewhere", saving_share=1.0))
    other.on_train_begin(Trainer(tmp_path, 3))
    assert list(fake.runs) == ["r0", "r1"], "another server has no such run"


class FakeWandb(types.ModuleType):
    """What of wandb is used: offline, a folder for each session."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.sessions: list[dict] = []
        self.Settings = lambda **options: options
        self.Image = lambda path: Path(path).name

    def init(self, **options):
        folder = Path(options["dir"]) / "wandb" / f"offline-run-{len(self.sessions)}"
        folder.mkdir()
        self.sessions.append({"folder": folder, "rows": [], "options": options, "summary": {}})
        session = self.sessions[-1]
        return types.SimpleNamespace(
            step=self.step, summary=session["summary"], finish=lambda exit_code: session.update(exit=exit_code),
            log=lambda numbers, step: session["rows"].append((step, numbers)),
        )  # fmt: skip

    step = 0


def test_wandb_goes_on_with_the_same_run_and_sends_again_what_a_kill_cut_off(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    history = {1: [ROWS[1]], 2: [ROWS[1], ROWS[2]], 3: [ROWS[1], ROWS[2], ROWS[3]]}
    for epoch, end in ((1, "interrupted"), (2, None), (3, "finished")):
        trackers = Trackers.of(BaseTrainerConfig(wandb="offline"))
        trainer = Trainer(tmp_path, epoch - 1)
        trackers.on_train_begin(trainer)
        tell(trackers, trainer, dict(enumerate(history[epoch], start=1)))
        if end:  # else it is killed
            trackers.on_train_end(trainer, end)
    kept = [session for session in fake.sessions if session["folder"].exists()]
    assert [session["options"]["id"] for session in kept] == 2 * [fake.sessions[0]["options"]["id"]]
    assert [step for session in kept for step, _ in session["rows"]] == [1, 2, 3]
    assert kept[-1]["summary"]["state"] == "finished" and kept[-1]["exit"] == 0
    assert fake.sessions[0]["options"]["mode"] == "offline" and fake.sessions[0]["options"]["config"]["epochs"] == 3
    fake.step = 3  # online the server says what it has: epochs 1 and 2
    online = Trackers.of(BaseTrainerConfig(wandb="on", saving_share=1.0))
    online.on_train_begin(trainer)
    tell(online, trainer, ROWS)
    assert [step for step, _ in fake.sessions[-1]["rows"]] == [3]


# ----------------------------------------------------------------------------- the real packages, where they are


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would show of a run."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_each_epoch_once_after_a_kill(tmp_path):
    pytest.importorskip("tensorboard")
    from train.trackers.tensorboard import TensorBoardTracker

    first = TensorBoardTracker(True)
    assert first.start(RunFacts("a", "Tiny", tmp_path, {"epochs": 3}, 0)) == 0
    for epoch in (1, 2, 3):
        first.log(epoch, {"train_loss": 10.0 * epoch})
    first._writer.flush()  # and never closed
    second = TensorBoardTracker(True)
    assert second.start(RunFacts("a", "Tiny", tmp_path, {"epochs": 3}, 2)) == 2, "what it has, up to the checkpoint"
    for epoch in (3, 4):
        second.log(epoch, {"train_loss": 1.0 * epoch, "val_loss": math.nan})
    second.finish("finished", {"best_metric": "val_loss", "best_value": 0.25, "epochs": 4}, [])
    found = scalars(tmp_path)
    assert found["train/loss"] == [(1, 10.0), (2, 20.0), (3, 3.0), (4, 4.0)]
    assert found["best/val_loss"] == [(4, 0.25)] and [step for step, _ in found["val/loss"]] == [3, 4]


def available() -> list[str]:
    """Settings that turn on all trackers that are installed."""
    import importlib.util

    settings = {"tensorboard": "on", "wandb": "offline", "mlflow": "sqlite:///mlflow.db"}
    return [f"{name}={value}" for name, value in settings.items() if importlib.util.find_spec(name)]


@pytest.fixture(scope="module")
def tracked(shared_project) -> Path:
    """A run with every tracker that is installed."""
    pytest.importorskip("tensorboard")
    done = shared_project.run("FeatureFusion", "plot_at_end=on", *available(), cwd=shared_project.path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no chatter"
    return shared_project.runs("FeatureFusion")[-1]


def test_tensorboard_has_the_history_the_plots_and_the_settings(tracked):
    history = json.loads((tracked / "metrics.json").read_text())["history"]
    found = scalars(tracked)
    for name, tag in (("train_loss", "train/loss"), ("val_loss", "val/loss"), ("learning_rate", "learning_rate")):
        assert [value for _, value in found[tag]] == pytest.approx(history[name]), name
        assert [step for step, _ in found[tag]] == [1, 2, 3, 4]
    assert found["optimizer_step"] == [(1, 4.0), (2, 8.0), (3, 12.0), (4, 16.0)]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tracked / "tensorboard"))
    events.Reload()
    assert "plots/overview" in events.Tags()["images"]
    assert "_hparams_/session_start_info" in events.summary_metadata


@pytest.mark.slow
def test_trackers_change_no_bit_of_the_run_and_a_dry_run_tells_them_nothing(tracked, shared_project):
    dry = shared_project.run("FeatureFusion", "--dry-run", *available())
    assert dry.returncode == 0, dry.stderr
    assert shared_project.runs("FeatureFusion")[-1] == tracked
    plain = shared_project.run("FeatureFusion")
    assert plain.returncode == 0 and not (shared_project.runs("FeatureFusion")[-1] / "tensorboard").exists()
    weights = [run / "model.safetensors" for run in shared_project.runs("FeatureFusion")[-2:]]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.slow
def test_all_real_trackers_show_a_killed_and_resumed_run_as_one(project):
    pytest.importorskip("tensorboard")
    settings = ["epochs=6", *available()]
    killed = project.run("Resumable", *settings, "stop_at=45", "stop_signal=SIGKILL", cwd=project.path)
    assert killed.returncode == -9
    run = project.runs("Resumable")[-1]
    newest = sorted((run / "checkpoints").glob("epoch-*"))[-1]
    for path in newest.iterdir():  # the run goes on from an older checkpoint, and does an epoch again
        path.write_bytes(b"")
    resumed = project.run("Resumable", *settings, "--resume", cwd=project.path)
    assert resumed.returncode == 0, resumed.stderr
    losses = json.loads((run / "metrics.json").read_text())["history"]["train_loss"]
    expected = [(epoch, pytest.approx(loss)) for epoch, loss in enumerate(losses, start=1)]
    assert scalars(run)["train/loss"] == expected
    if "mlflow=sqlite:///mlflow.db" in settings:
        import mlflow

        client = mlflow.MlflowClient(f"sqlite:///{project.path}/mlflow.db")
        identity = json.loads((run / "mlflow.json").read_text())["run_id"]
        history = client.get_metric_history(identity, "train_loss")
        assert [(metric.step, metric.value) for metric in history] == expected
        assert client.get_run(identity).info.status == "FINISHED"
    if "wandb=offline" in settings:
        folders = [path for path in (run / "wandb").glob("offline-run-*") if path.is_dir()]
        assert len(folders) == 1 and folders[0].name.endswith(json.loads((run / "wandb/run.json").read_text())["id"])
