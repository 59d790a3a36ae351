"""Saved runs: find them and read their metrics.json. Nothing here knows a live trainer."""

import contextlib
import json
import math
import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from constants import command
from constants.nearest import nearest
from constants.renamed import present_name
from storage.monitor import Monitor
from storage.run_label import RunLabel, labelled, names_given, read_label
from storage.segments import read_segments, seconds_of_local

FINISHED = ("finished", "early_stopped")  # states of a run that came to its end
METRICS_SCHEMA_VERSION = 1  # of metrics.json: written by train/base_trainer.py, read here
_TRIALS = ("profile", "find_lr")  # folders of --profile and --find-lr
_RUN_ID = re.compile(r"(\d{8}-\d{6})(?:-(\d+))?")
_SECTION = re.compile(r"^\[(\w+)\]$", re.MULTILINE)
_SETTING = re.compile(r"^(\w+) =[ \t]*(.*)$", re.MULTILINE)  # as a trainer writes them, one a line


class RunNotFoundError(Exception):
    """A name that no saved run has."""


class RunDamagedError(Exception):
    """A run of which a file can't be read."""

    @classmethod
    def of(cls, file: Path, error: Exception | str) -> "RunDamagedError":
        """Say which file it is, and why."""
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        return cls(f"cannot read {file}: {reason}. A trainer writes it; run it again.")


@dataclass(frozen=True)
class Readings:
    """The training loss by step, as the loop read it: lists of one length.

    Attributes:
        steps: optimizer steps of the run at each reading, rising.
        steps_of_epoch: optimizer steps at each reading, counted from the start of the epoch.
        losses: mean training loss of the epoch up to each reading; NaN where it was not finite.
        further: numbers that callbacks have added to readings, by name; NaN where a reading has no such number.
    """

    steps: list[int] = field(default_factory=list)
    steps_of_epoch: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    further: dict[str, list[float]] = field(default_factory=dict)

    def between(self) -> tuple[list[int], list[float]]:
        """Return mean losses from each reading of an epoch to the next one, with the steps of the later ones.

        An epoch's end may come a few steps after a reading, too few for a mean: that reading is passed over.
        """
        rows = list(zip(self.steps, self.steps_of_epoch, self.losses, strict=True))
        spans = [after[0] - before[0] for before, after in pairwise(rows)]
        usual = sorted(spans)[len(spans) // 2] if spans else 0
        pairs = zip(rows, [*rows[1:], None], strict=False)
        rows = [row for row, after in pairs if not _is_close(row, after, usual / 2)]
        steps, means, last = [], [], None
        for step, count, mean in rows:
            total, known = 0.0, 0
            if last is not None and last[0] == step - count:  # the same epoch
                _, total, known = last
            steps.append(step)
            means.append((mean * count - total) / max(1, count - known))
            last = (step - count, mean * count, count)
        return steps, means


def _is_close(row: tuple[int, int, float], after: tuple[int, int, float] | None, near: float) -> bool:
    """Say whether a reading is followed in its epoch by one that is near."""
    return after is not None and after[0] - after[1] == row[0] - row[1] and after[0] - row[0] < near


@dataclass(frozen=True)
class Run:
    """A saved run.

    Attributes:
        path: folder of the run.
        trainer: class name of the run's trainer.
        state: running, finished, early_stopped, pruned, interrupted or failed.
        series: epochs and values by history name (both lists of one length; a value that was not finite is NaN).
        monitor: what the run is judged by; the validation loss in older runs.
        best_epoch: epoch of the best value of what is monitored, None before the first.
        best_value: best value of what is monitored, None before the first.
        summary: totals of the run, such as `epochs`, `steps` and `seconds`.
        readings: the training loss by step; empty for a loop of the trainer's own, and in older runs.
        label: name and note that the run was given.
    """

    path: Path
    trainer: str
    state: str
    series: dict[str, tuple[list[float], list[float]]]
    best_epoch: int | None
    best_value: float | None
    summary: dict[str, Any]
    readings: Readings = field(default_factory=Readings)
    monitor: Monitor = field(default_factory=Monitor)
    label: RunLabel = field(default_factory=RunLabel)

    @property
    def id(self) -> str:
        """The run's name."""
        return self.path.name


def find_run(text: str, artifacts_dir: Path) -> Path:
    """Find the folder of a run.

    Args:
        text: a run folder or its metrics.json, a run id, the name that a run was given, the name of a trainer or model
            (its newest run), or `latest`.
        artifacts_dir: folder of all runs and published models.

    Returns:
        The folder.

    Raises:
        RunNotFoundError: there is none, or several have that id.
    """
    path = Path(text).expanduser()
    if path.name == "metrics.json" and path.is_file():
        return path.resolve().parent
    if (path / "metrics.json").is_file():
        return path.resolve()
    runs = sorted((file.parent for file in artifacts_dir.glob("models/*/runs/*/metrics.json")), key=run_age)
    model = text.lower().removesuffix("trainer")
    found = (
        runs[-1:] if text == "latest"
        else [run for run in runs if run.name == text]
        or [run for run in labelled(text, artifacts_dir) if run in runs]
        or [run for run in runs if run.parent.parent.name.lower() == model][-1:]
    )  # fmt: skip
    if len(found) == 1:
        return found[0]
    shown = "".join(f"\n  {run.parent.parent.name}  {run.name}" for run in (found or runs[-5:]))
    if found:
        raise RunNotFoundError(f"several models have a run '{text}'; give the folder of one:{shown}")
    begun = [file.parent for file in artifacts_dir.glob("models/*/runs/*/config.ini") if file.parent.name == text]
    begun += [path] if (path / "config.ini").is_file() else []
    if begun:
        raise RunNotFoundError(_why_nothing(begun[0]))
    if (path / "trials.json").is_file():
        raise RunNotFoundError(f"{text} is a sweep, no run: `{command('plot')} --sweep {text}` shows it")
    near = nearest(
        text, [*names_given(artifacts_dir), *dict.fromkeys(run.parent.parent.name for run in runs)], cutoff=0.7
    )
    newest = f"; did you mean {near}? The newest runs are:" if near else "; the newest runs are:"
    hint = f"{newest}{shown}" if runs else f"; there are no runs yet: `{command('train')} NAME` makes one"
    raise RunNotFoundError(f"there is no run '{text}' in {artifacts_dir}{hint}")


def _why_nothing(path: Path) -> str:
    """Say why a folder that a trainer has made is none that can be drawn."""
    for name in _TRIALS:
        if (path / name).is_dir():
            return f"{path} is of --{name.replace('_', '-')}, which trains no run; what it found is in {path / name}"
    return f"nothing was measured in {path.name}: there is no metrics.json in {path}"


def trained_nothing(path: Path) -> bool:
    """Say whether a run folder is that of a measurement, not of a training: there is nothing to resume or to show."""
    return any((path / name).is_dir() for name in _TRIALS)


def may_be_run(path: Path) -> bool:
    """Say whether a folder may be that of a training: by its name, or by what is in it."""
    names = ("config.ini", "metrics.json", "checkpoints")
    named = _RUN_ID.fullmatch(path.name) is not None or any((path / name).exists() for name in names)
    return named and path.is_dir() and not trained_nothing(path)


def was_pruned(path: Path) -> bool:
    """Say whether a sweep has ended a run early."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a run of a moment ago, or a damaged one
        return json.loads((path / "metrics.json").read_text(encoding="utf-8")).get("state") == "pruned"
    return False


def run_age(path: Path) -> tuple[float, int, str]:
    """Return what sorts run folders by start: the recorded time, in UTC; of older runs the name, which is a local time.

    So `20260101-000000-10` comes after `20260101-000000-9`. A folder that says neither is as old as its files.
    """
    match, started = _RUN_ID.fullmatch(path.name), read_segments(path).started
    number = int(match[2] or 1) if match else 0
    if started is not None:
        return started.timestamp(), number, path.name
    if match:
        with contextlib.suppress(ValueError, OverflowError):
            return seconds_of_local(match[1]), number, path.name
    files = [path / name for name in ("environment.json", "metrics.json")]
    oldest = next((file for file in files if file.exists()), path)
    return (oldest.stat().st_mtime if oldest.exists() else 0.0), number, path.name


def trainer_of(path: Path) -> str:
    """Return the present name of the trainer whose run a folder is; empty where nothing says so.

    Args:
        path: the run's folder.
    """
    name = read_segments(path).trainer
    if not name:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            name = json.loads((path / "metrics.json").read_text(encoding="utf-8")).get("trainer")
    return present_name(name) if isinstance(name, str) else ""


def load_run(path: Path) -> Run:
    """Read a run.

    Args:
        path: folder of the run.

    Raises:
        RunDamagedError: metrics.json is missing, is no JSON, or has another schema.
    """
    content = read_metrics(path)
    try:
        monitor, epoch, value = best_in(content)
        return Run(
            path=path,
            trainer=str(content["trainer"]),
            state=str(content["state"]),
            series=series_of(content["history"]),
            best_epoch=epoch,
            best_value=value,
            monitor=monitor,
            label=read_label(path),
            summary=dict(content["summary"]),
            readings=_readings(content.get("readings") or {}),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunDamagedError.of(path / "metrics.json", error) from error


def best_in(content: dict[str, Any]) -> tuple[Monitor, int | None, float | None]:
    """Return what metrics.json says is best: what is monitored, and its best epoch and value, None before the first.

    Args:
        content: content of a metrics.json; older ones know the lowest validation loss alone.
    """
    monitor = Monitor(content.get("monitor", "val_loss"), content.get("monitor_mode", "min"))
    best = content["best"] or {}
    epoch, value = best.get("epoch"), best.get("value", best.get("val_loss"))
    return monitor, None if epoch is None else int(epoch), None if value is None else float(value)


def numbers_at(series: dict[str, tuple[list[float], list[float]]], epoch: int | None) -> dict[str, float]:
    """Return what a history says of one epoch, by name.

    Args:
        series: epochs and values by name, as a `Run` has them.
        epoch: number of the epoch; None gives nothing.
    """
    return {name: values[epochs.index(epoch)] for name, (epochs, values) in series.items() if epoch in epochs}


def read_metrics(path: Path) -> dict[str, Any]:
    """Read the metrics.json of a run as it is.

    Args:
        path: the run's folder.

    Returns:
        The content of metrics.json.

    Raises:
        RunDamagedError: it is missing, is no JSON, or has another schema.
    """
    file = path / "metrics.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content["schema_version"]
        if version != METRICS_SCHEMA_VERSION:
            raise RunDamagedError(f"{file} has schema version {version}, this program reads {METRICS_SCHEMA_VERSION}.")
        return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDamagedError.of(file, error) from error


def read_settings(path: Path) -> dict[str, str]:
    """Read the settings of a run that are in force, or were when it ended.

    Args:
        path: the run's folder.

    Returns:
        Key and value as config.ini has them, and the trainer's name under the key ""; empty where there is no file.

    Raises:
        RunDamagedError: it can't be read.
    """
    file = path / "config.ini"
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunDamagedError.of(file, error) from error
    return settings_in(text)


def settings_in(text: str) -> dict[str, str]:
    """Take a config.ini of a run apart, as `read_settings` returns it."""
    section = _SECTION.search(text)
    return ({"": section[1]} if section else {}) | dict(_SETTING.findall(text))


def read_environment(path: Path) -> dict[str, Any]:
    """Read where and from what a run was made.

    Args:
        path: the run's folder.

    Returns:
        The content of environment.json; empty where there is none.

    Raises:
        RunDamagedError: it can't be read.
    """
    file = path / "environment.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunDamagedError.of(file, error) from error
    if not isinstance(content, dict):
        raise RunDamagedError.of(file, f"it holds a {type(content).__name__}")
    return content


def chosen_threads(path: Path) -> int:
    """Return how many CPU threads a run took by itself (`threads = 0`); 0 where a person chose, or nobody knows.

    Args:
        path: the run's folder, or one that is none.
    """
    try:
        if read_settings(path).get("threads") != "0":
            return 0
        threads = read_environment(path)["device"]["threads"]
    except (RunDamagedError, KeyError, TypeError):  # what is damaged is told where it matters
        return 0
    return threads if isinstance(threads, int) else 0


def _readings(lists: dict[str, list[Any]]) -> Readings:
    names = ("step", "step_of_epoch", "train_loss")
    rows = list(zip(*(lists.get(name, []) for name in names), strict=True))
    return Readings(
        [int(step) for step, _, _ in rows],
        [int(count) for _, count, _ in rows],
        [_number(loss) for _, _, loss in rows],
        {name: [_number(value) for value in values] for name, values in lists.items() if name not in names},
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def series_of(history: dict[str, list[Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Give each list of a history its epochs: `val_...` those in val_epoch, others those in epoch, or 1, 2, 3, ...

    Args:
        history: entry `history` of a metrics.json.

    Returns:
        Epochs and values by name, two lists of one length; a value that was not finite is NaN.
    """
    validated = [float(epoch) for epoch in history.get("val_epoch", [])]
    trained = [float(epoch) for epoch in history.get("epoch", [])]  # a trainer with a loop of its own may write it
    series = {}
    for name, values in history.items():
        if name in ("val_epoch", "epoch") or not values:
            continue
        numbers = [math.nan if value is None else float(value) for value in values]
        known = validated if name.startswith("val_") and validated else trained
        epochs = known if len(known) == len(values) else range(1, len(values) + 1)
        series[name] = ([float(epoch) for epoch in epochs], numbers)
    return series
