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
from storage.saved_run import RunDamagedError, best_in, read_metrics, read_settings, run_age, trained_nothing
from storage.segments import read_segments

try:
    import fcntl
except ImportError:  # Windows has none; there a run is not locked
    fcntl = None  # type: ignore[assignment]  # there is no other way to say that a module may be missing

_WIDTH = 110  # columns that the table may take
_SILENT_SECONDS = 600  # after which a run that can't be asked for a sign of life is doubted
_START = re.compile(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)(?:-\d+)?")
_HEAD = ("trainer", "run", "start", "epochs", "best", "at", "time", "state")
_LEFT = ("trainer", "run", "start", "state")  # columns of words; numbers stand to the right


@dataclass(frozen=True)
class RunRow:
    """What the table says of a run.

    Attributes:
        trainer: class name of the run's trainer.
        run: id of the run, the name of its folder.
        start: ISO time at which the run began; None where the folder was renamed.
        epochs: number of epochs done.
        planned_epochs: epochs the run was to have, None where config.ini does not say.
        monitor: name of what the run is judged by.
        monitor_mode: `min` where lower is better, `max` where higher is.
        best_value: best value of what is monitored, None before the first.
        best_epoch: epoch of that value, None before the first.
        seconds: training time up to the last write of metrics.json, in seconds; None before the first.
        state: running, finished, early_stopped, pruned, interrupted, failed; killed where it says running and its
            process is gone; `running?` where that can't be known and it has long been silent.
        error: error that ended a failed run; None of other runs.
        path: absolute path of the run's folder.
    """

    trainer: str
    run: str
    start: str | None
    epochs: int
    planned_epochs: int | None
    monitor: str
    monitor_mode: Direction
    best_value: float | None
    best_epoch: int | None
    seconds: float | None
    state: str
    error: str | None
    path: str


def list_runs(artifacts_dir: Path, names: Sequence[str] = ()) -> tuple[list[RunRow], list[str]]:
    """Read all runs, the newest last.

    Args:
        artifacts_dir: folder of all runs and published models.
        names: names of the trainers or models to list, in any case; none takes all.

    Returns:
        The runs, and a line for each folder that is skipped.
    """
    wanted = {name.lower().removesuffix("trainer") for name in names}
    folders = [path for path in artifacts_dir.glob("models/*/runs/*") if path.is_dir()]
    rows, skipped = [], []
    for folder in sorted(folders, key=run_age):
        if wanted and folder.parent.parent.name.lower() not in wanted:
            continue
        try:
            row = _read_row(folder)
        except RunDamagedError as error:
            skipped.append(f"skipped {folder.parent.parent.name} {folder.name}: {error}")
        else:
            rows += [row] if row else []
    return rows, skipped


def models_with_runs(artifacts_dir: Path) -> list[str]:
    """Name the models that have a folder of runs."""
    return sorted({path.parent.parent.name for path in artifacts_dir.glob("models/*/runs/*") if path.is_dir()})


def table_of_runs(rows: Sequence[RunRow]) -> str:
    """Write runs as aligned lines of at most 110 columns, with a head."""
    title = best_title(Monitor(row.monitor, row.monitor_mode) for row in rows)
    head = tuple(title if name == "best" else name for name in _HEAD)
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    spare = _WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(spare, len(_HEAD[0])))
    return "\n".join(_line(line, widths) for line in cells) + "\n"


def json_of_runs(rows: Iterable[RunRow]) -> str:
    """Write runs as a JSON list."""
    return json.dumps([asdict(row) for row in rows], indent=1) + "\n"


def _read_row(folder: Path) -> RunRow | None:
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
        return _row(folder, content, settings)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunDamagedError.of(folder / "metrics.json", error) from error


def _row(folder: Path, content: dict[str, Any], settings: dict[str, str]) -> RunRow:
    summary, history = (content.get(name) or {} for name in ("summary", "history"))
    monitor, best_epoch, best_value = best_in({"best": None} | content)
    epochs, seconds = summary.get("epochs"), summary.get("seconds")
    done = int(len(history.get("train_loss", [])) if epochs is None else epochs)
    planned = settings.get("epochs", "")
    return RunRow(
        trainer=str(content["trainer"]),
        run=folder.name,
        start=start_of(folder),
        epochs=done,
        planned_epochs=max(int(planned), done) if planned.isdecimal() else None,  # once it stayed as the run began
        monitor=monitor.name,
        monitor_mode=monitor.mode,
        best_value=best_value,
        best_epoch=best_epoch,
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


def _cells(row: RunRow) -> tuple[str, ...]:
    return (
        row.trainer.removesuffix("Trainer") or row.trainer,
        row.run,
        row.start[:16].replace("T", " ") if row.start else "-",
        f"{row.epochs}/{'?' if row.planned_epochs is None else row.planned_epochs}",
        "-" if row.best_value is None else f"{row.best_value:.6g}",
        "-" if row.best_epoch is None else str(row.best_epoch),
        "-" if row.seconds is None else clock(row.seconds),
        row.state,
    )


def clock(seconds: float) -> str:
    """Write a time span as a clock does, so that a column of them lines up: `0:38`, `2:07:31`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    parts = []
    for title, cell, width in zip(_HEAD, cells, widths, strict=True):
        short = cell if len(cell) <= width else f"{cell[: width - 2]}.."
        parts.append(short.ljust(width) if title in _LEFT else short.rjust(width))
    return "  ".join(parts).rstrip()
