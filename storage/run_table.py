"""The table of saved runs that `python plot.py --runs` shows. Imports neither torch nor matplotlib, so it is quick."""

import json
import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from constants.metrics import Direction
from storage.monitor import Monitor, best_title
from storage.run_label import read_label
from storage.saved_run import (
    RunDamagedError,
    best_in,
    numbers_at,
    read_metrics,
    read_settings,
    run_age,
    series_of,
    trained_nothing,
)
from storage.segments import read_segments

try:
    import fcntl
except ImportError:  # Windows has none; there a run is not locked
    fcntl = None  # type: ignore[assignment]  # there is no other way to say that a module may be missing

_WIDTH = 110  # columns that the table may take
_SILENT_SECONDS = 600  # after which a run that can't be asked for a sign of life is doubted
_START = re.compile(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)(?:-\d+)?")
_LONGEST_NAME, _NOTE = 24, 24  # columns that a name may take; that are kept for a note, which may take more


@dataclass(frozen=True)
class RunRow:
    """What the table says of a run, or of a group of them.

    Attributes:
        trainer: class name of the run's trainer.
        run: id of the run, the name of its folder; of a group its id, of a sweep its name.
        name: name that the run was given, None where it was given none.
        note: note that the run was given, None where it was given none.
        start: ISO time at which the run began; None where the folder was renamed.
        epochs: number of epochs done; of a group the most of its runs.
        planned_epochs: epochs the run was to have, None where config.ini does not say.
        monitor: name of what the run is judged by.
        monitor_mode: `min` where lower is better, `max` where higher is.
        best_value: best value of what is monitored, None before the first; of a group of seeds the mean over its runs.
        best_epoch: epoch of that value, None before the first, and of a group of seeds.
        metrics: what validation measured at the best epoch, by name; of a group of seeds the means.
        seconds: training time up to the last write of metrics.json, in seconds; None before the first.
        state: running, finished, early_stopped, pruned, interrupted, failed; killed where it says running and its
            process is gone; `running?` where that can't be known and it has long been silent.
        error: error that ended a failed run; None of other runs.
        path: absolute path of the folder.
        kind: `run`, `seeds` (a group of runs that differ in the seed) or `sweep`.
        group: id of the group, or name of the sweep, that the run is of; None of other runs.
        members: ids of the runs of a group; none of a run.
        std: standard deviation of `best_value` over the runs of a group of seeds; None elsewhere.
    """

    trainer: str
    run: str
    name: str | None
    note: str | None
    start: str | None
    epochs: int
    planned_epochs: int | None
    monitor: str
    monitor_mode: Direction
    best_value: float | None
    best_epoch: int | None
    metrics: dict[str, float]
    seconds: float | None
    state: str
    error: str | None
    path: str
    kind: str = "run"
    group: str | None = None
    members: tuple[str, ...] = ()
    std: float | None = None


def list_runs(artifacts_dir: Path, by: Monitor | None = None) -> tuple[list[RunRow], list[str]]:
    """Read all runs, the newest last.

    Args:
        artifacts_dir: folder of all runs and published models.
        by: what all runs are judged by; None takes what each one monitored.

    Returns:
        The runs, and a line for each folder that is skipped.
    """
    folders = [path for path in artifacts_dir.glob("models/*/runs/*") if path.is_dir()]
    rows, skipped = [], []
    for folder in sorted(folders, key=run_age):
        try:
            row = _read_row(folder, by)
        except RunDamagedError as error:
            skipped.append(f"skipped {folder.parent.parent.name} {folder.name}: {error}")
        else:
            rows += [row] if row else []
    return rows, skipped


def best_first(rows: Sequence[RunRow]) -> list[RunRow]:
    """Sort rows, the best first, those without a value last; those judged by the same stand together."""
    monitors = list(dict.fromkeys(row.monitor for row in rows))

    def place(row: RunRow) -> tuple[int, tuple[bool, float]]:
        return monitors.index(row.monitor), Monitor(row.monitor, row.monitor_mode).sort_key(row.best_value)

    return sorted(rows, key=place)


def table_of_runs(rows: Sequence[RunRow]) -> str:
    """Write runs as aligned lines of at most 110 columns, without the notes, with a head.

    Names and notes have columns where a run has one, metrics where all rows are of one trainer; what does not fit is
    left out, the least telling first.
    """
    columns, notes = _columns(rows), [row.note or "" for row in rows]
    reserved = min(_NOTE, max(map(len, notes))) + 2 if any(notes) else 0
    metrics = [column.title for column in columns if column.optional and column.title != "start"]
    for left_out in ("start", *reversed(metrics)):
        if _together(columns) + reserved <= _WIDTH:
            break
        columns = [column for column in columns if column.title != left_out]
    spare = _WIDTH - reserved - _together(columns[1:]) - 2
    columns[0] = columns[0].cut(max(spare, len(columns[0].title)))
    rest = _WIDTH - _together(columns) - 2
    if any(notes):
        columns.append(_Column("note", notes, left=True).cut(max(rest, _NOTE)))
    lines = zip(*(column.lines() for column in columns), strict=True)
    return "\n".join("  ".join(line).rstrip() for line in lines) + "\n"


@dataclass(frozen=True)
class _Column:
    """A column of the table; words stand to the left, numbers to the right."""

    title: str
    cells: list[str]
    left: bool = False
    optional: bool = False

    @property
    def width(self) -> int:
        return max(map(len, (self.title, *self.cells)))

    def cut(self, width: int) -> "_Column":
        cells = [cell if len(cell) <= width else f"{cell[: width - 2]}.." for cell in self.cells]
        return _Column(self.title, cells, self.left, self.optional)

    def lines(self) -> list[str]:
        width = self.width
        return [cell.ljust(width) if self.left else cell.rjust(width) for cell in (self.title, *self.cells)]


def _together(columns: Sequence[_Column]) -> int:
    return sum(column.width for column in columns) + 2 * (len(columns) - 1)


def _columns(rows: Sequence[RunRow]) -> list[_Column]:
    title = best_title(Monitor(row.monitor, row.monitor_mode) for row in rows)
    runs = [row.run if row.kind == "run" else f"{row.run} ({len(row.members)} runs)" for row in rows]
    starts = [row.start[:16].replace("T", " ") if row.start else "-" for row in rows]
    epochs = [f"{row.epochs}/{'?' if row.planned_epochs is None else row.planned_epochs}" for row in rows]
    names = _Column("name", [row.name or "" for row in rows], left=True).cut(_LONGEST_NAME)
    return [
        _Column("trainer", [row.trainer.removesuffix("Trainer") or row.trainer for row in rows], left=True),
        _Column("run", runs, left=True),
        *([names] if any(names.cells) else []),
        _Column("start", starts, left=True, optional=True),
        _Column("epochs", epochs),
        _Column(title, [_best(row, title) for row in rows]),
        _Column("at", ["-" if row.best_epoch is None else str(row.best_epoch) for row in rows]),
        *_metric_columns(rows),
        _Column("time", ["-" if row.seconds is None else clock(row.seconds) for row in rows]),
        _Column("state", [row.state for row in rows], left=True),
    ]


def _metric_columns(rows: Sequence[RunRow]) -> list[_Column]:
    """Show what a trainer itself measures, where all rows are of one."""
    if len({row.trainer for row in rows}) > 1:
        return []
    names = dict.fromkeys(name for row in rows for name in row.metrics if name != row.monitor)
    return [
        _Column(name, [f"{row.metrics[name]:.4g}" if name in row.metrics else "-" for row in rows], optional=True)
        for name in names
    ]


def _best(row: RunRow, title: str) -> str:
    if row.best_value is None:
        return "-"
    spread = f" ± {row.std:.2g}" if row.std is not None else ""
    return f"{row.best_value:.6g}{spread}" + (f" {row.monitor}" if title == "best" else "")


def json_of_runs(rows: Iterable[RunRow]) -> str:
    """Write runs as a JSON list."""
    return json.dumps([asdict(row) for row in rows], indent=1) + "\n"


def _read_row(folder: Path, by: Monitor | None) -> RunRow | None:
    """Read a run; None for a measurement, which trains nothing."""
    settings = read_settings(folder)
    if (folder / "metrics.json").exists():
        content = read_metrics(folder)
    elif trained_nothing(folder):
        return None
    elif settings:  # its first epoch is going on, or was its last
        content = {"trainer": settings.get("", folder.parent.parent.name), "state": "running"}
    else:
        raise RunDamagedError("it is no run: neither metrics.json nor config.ini is in it.")
    try:
        return _row(folder, content, settings, by)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunDamagedError.of(folder / "metrics.json", error) from error


def _row(folder: Path, content: dict[str, Any], settings: dict[str, str], by: Monitor | None) -> RunRow:
    summary, history = (content.get(name) or {} for name in ("summary", "history"))
    series = series_of(history)
    monitor, best_epoch, best_value = best_in({"best": None} | content)
    if by is not None and by != monitor:
        monitor, (places, values) = by, series.get(by.name, ([], []))
        best_value = monitor.best(values)
        best_epoch = None if best_value is None else int(places[values.index(best_value)])
    at_best = numbers_at(series, best_epoch)
    epochs, seconds = summary.get("epochs"), summary.get("seconds")
    done = int(len(history.get("train_loss", [])) if epochs is None else epochs)
    planned, label = settings.get("epochs", ""), read_label(folder)
    return RunRow(
        trainer=str(content["trainer"]),
        run=folder.name,
        name=label.name,
        note=label.note,
        start=start_of(folder),
        epochs=done,
        planned_epochs=max(int(planned), done) if planned.isdecimal() else None,  # once it stayed as the run began
        monitor=monitor.name,
        monitor_mode=monitor.mode,
        best_value=best_value,
        best_epoch=best_epoch,
        metrics={name: value for name, value in at_best.items() if name.startswith("val_") and value == value},
        seconds=None if seconds is None else float(seconds),
        state=state_of(folder, str(content["state"])),
        error=None if content.get("error") is None else str(content["error"]),
        path=str(folder.absolute()),
    )


def start_of(folder: Path) -> str | None:
    """Return the ISO time at which a run began, in this machine's time zone; None where nothing says it.

    Args:
        folder: folder of the run.
    """
    started = read_segments(folder).started
    if started is not None:
        return started.astimezone().replace(tzinfo=None).isoformat(timespec="seconds")
    start = _START.fullmatch(folder.name)
    return "{}-{}-{}T{}:{}:{}".format(*start.groups()) if start else None


def state_of(folder: Path, said: str) -> str:
    """Say how a run is: metrics.json can't tell that its process was killed, or that it was resumed a minute ago."""
    held = _is_locked(folder)
    if held:
        return "running"
    if said != "running":
        return said
    return "killed" if held is False else "running?" if _silent(folder) else "running"


def _is_locked(folder: Path) -> bool | None:
    """Say whether a process trains in a folder (storage/file_lock.py); None where that can't be known.

    The lock is asked for as a trainer does, exclusively: where a file system refuses that, trainers run without, and
    their absence proves nothing. It is held for microseconds; a `--resume` in them would be told to wait.
    """
    if fcntl is None:
        return None
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False


def _silent(folder: Path) -> bool:
    """Say whether a run has written nothing for long."""
    files = [path for name in ("metrics.json", "train.log", "config.ini") if (path := folder / name).exists()]
    return time.time() - max((file.stat().st_mtime for file in files), default=0.0) > _SILENT_SECONDS


def clock(seconds: float) -> str:
    """Write a time span as a clock does, so that a column of them lines up: `0:38`, `2:07:31`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
