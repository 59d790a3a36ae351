"""Runs of one trainer that differ in the seed alone: what is their mean, and how far do they spread."""

import contextlib
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from constants import command
from constants.counting import counted as count_of
from storage.monitor import best_title
from storage.run_label import labelled
from storage.run_table import state_of
from storage.saved_run import (
    FINISHED,
    Run,
    RunDamagedError,
    RunNotFoundError,
    load_run,
    numbers_at,
    read_settings,
    run_age,
)
from storage.segments import read_segments
from storage.text_table import aligned

SCHEMA_VERSION = 1  # of seeds.json
PREFIX = "seeds-"  # of a group's name, so that it is no run's
FILE = "seeds.json"
_NO_MEAN = "no run came to its end, so there is no mean"
# What metrics.json says of every run's size and time: numbers, but none that a seed decides.
_BOOKKEEPING = {
    "epochs", "steps", "seconds", "steps_per_second", "parameters", "trainable", "bytes",
}  # fmt: skip


@dataclass(frozen=True)
class SeedGroup:
    """A group of runs.

    Attributes:
        path: folder of the group.
        trainer: class name of the trainer.
        how: way of training: `at once`, or `one after the other`.
        runs: saved run of each seed; None where nothing was measured.
        changed: settings with which single runs were gone on with, though the group began with others: first and last
            value by key, by seed.
    """

    path: Path
    trainer: str
    how: str
    runs: dict[int, Run | None]
    changed: dict[int, dict[str, list[str]]] = field(default_factory=dict)

    @property
    def counted(self) -> dict[int, Run]:
        """The runs that mean and spread are over: those that came to their end with the settings of the group."""
        done = {seed: run for seed, run in self.runs.items() if run is not None and run.state in FINISHED}
        return {seed: run for seed, run in done.items() if seed not in self.changed}


@dataclass(frozen=True)
class Spread:
    """Some numbers in few.

    Attributes:
        values: numbers that the spread is of.
        std: standard deviation with n - 1; None of one number, or where one is not finite.
        interval: 95 % interval of the mean, by Student's t (the numbers taken as normally distributed); None of one
            number, or where one is not finite.
    """

    values: tuple[float, ...]
    mean: float
    std: float | None
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Measure numbers, at least one."""
        values = tuple(values)
        mean, count = statistics.fmean(values), len(values)
        if count < 2 or not all(map(math.isfinite, values)):
            return cls(values, mean, None, None)
        from scipy.special import stdtrit  # a tenth of a second

        std = statistics.stdev(values)
        half = float(stdtrit(count - 1, 0.975)) * std / math.sqrt(count)
        return cls(values, mean, std, (mean - half, mean + half))


def find_group(text: str, artifacts_dir: Path) -> Path | None:
    """Find the folder of a group.

    Args:
        text: folder of the group, the seeds.json in it, the group's id, the name that it was given, or `seeds-latest`.
        artifacts_dir: folder of all runs and published models.

    Returns:
        The folder; None where the text means something else.

    Raises:
        RunNotFoundError: it is an id that no group, or several, have.
    """
    path = Path(text).expanduser()
    if path.name == FILE and path.is_file():
        return path.resolve().parent
    if (path / FILE).is_file():
        return path.resolve()
    if not text.startswith(PREFIX):
        named = [folder for folder in labelled(text, artifacts_dir) if (folder / FILE).is_file()]
        return named[0] if len(named) == 1 else None
    every = groups_in(artifacts_dir)
    found = every[-1:] if text == f"{PREFIX}latest" else [group for group in every if group.name == text]
    if len(found) == 1:
        return found[0]
    shown = "".join(f"\n  {group.parent.parent.name}  {group.name}" for group in (found or every[-5:]))
    if found:
        raise RunNotFoundError(f"several models have a group '{text}'; give the folder of one:{shown}")
    hint = f"; the newest are:{shown}" if every else f"; `{command('train')} NAME --seeds 8` makes one"
    raise RunNotFoundError(f"there is no group '{text}' in {artifacts_dir}{hint}")


def groups_in(artifacts_dir: Path) -> list[Path]:
    """Return the folders of all groups, the newest last."""
    folders = [file.parent for file in artifacts_dir.glob(f"models/*/seeds/{PREFIX}*/{FILE}")]
    return sorted(folders, key=_group_age)


def _group_age(folder: Path) -> tuple[float, int, str]:
    """Return what sorts groups by start: that of the first run, since a group's name is a local time."""
    runs = folder.parent.parent / "runs"
    with contextlib.suppress(RunDamagedError, KeyError, TypeError):
        first = next((member["run"] for member in read_group(folder)["members"] if member["run"]), None)
        if first is not None and (runs / first).is_dir():
            return run_age(runs / first)
    return run_age(folder.with_name(folder.name.removeprefix(PREFIX)))


def read_group(path: Path) -> dict[str, Any]:
    """Read the seeds.json of a group as it is.

    Raises:
        RunDamagedError: it is missing, is no JSON, or has another schema.
    """
    file = path / FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA_VERSION:
            version = content["schema_version"]
            raise RunDamagedError(f"{file} has schema version {version}, this program reads {SCHEMA_VERSION}.")
        return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDamagedError.of(file, error) from error


def load_group(path: Path) -> SeedGroup:
    """Read a group, and the runs in it from their own folders.

    Args:
        path: folder of the group.

    Raises:
        RunDamagedError: a file of it can't be read.
    """
    content = read_group(path)
    try:
        members = {int(member["seed"]): member["run"] for member in content["members"]}
        return runs_as_group(path, str(content["trainer"]), str(content["how"]), members)
    except (ValueError, KeyError, TypeError) as error:
        raise RunDamagedError.of(path / FILE, error) from error


def runs_as_group(path: Path, trainer: str, how: str, members: dict[int, str | None]) -> SeedGroup:
    """Read the runs of a group.

    Args:
        path: the group's folder, beside which `runs/` is.
        trainer: class name of the runs' trainer.
        how: way of training: `at once`, or `one after the other`.
        members: run ids by seed; None of a run that has not begun.
    """
    runs: dict[int, Run | None] = {}
    for seed, run in members.items():
        folder = path.parent.parent / "runs" / str(run)
        runs[seed] = load_run(folder) if (folder / "metrics.json").is_file() else None
    changed = {seed: _changes(run) for seed, run in runs.items() if run is not None}
    return SeedGroup(path, trainer, how, runs, {seed: found for seed, found in changed.items() if found})


def _changes(run: Run) -> dict[str, list[str]]:
    """Return the settings that a run was gone on with otherwise than it began."""
    known = read_segments(run.path)
    if known.segments:
        return known.changed
    # Of a run from before segments were written, config.ini says what it began with.
    with contextlib.suppress(RunDamagedError):
        planned, done = read_settings(run.path).get("epochs", ""), run.summary.get("epochs")
        if planned.isdecimal() and isinstance(done, int) and done > int(planned):
            return {"epochs": [planned, str(done)]}
    return {}


def over_epochs(runs: Sequence[Run]) -> dict[str, list[tuple[float, Spread]]]:
    """Measure the spread of each history number at each epoch, over the runs that still have one there.

    Args:
        runs: runs that the spread is measured over.

    Returns:
        By name, for each epoch in order: the epoch, and the spread. A run that stopped early is in those up to its end.
    """
    names = dict.fromkeys(name for run in runs for name in run.series)
    found = {}
    for name in names:
        at: dict[float, list[float]] = {}
        for run in runs:
            for epoch, value in zip(*run.series.get(name, ((), ())), strict=True):
                at.setdefault(epoch, []).append(value)
        found[name] = [(epoch, Spread.of(at[epoch])) for epoch in sorted(at)]
    return found


def at_best(runs: Sequence[Run]) -> dict[str, Spread]:
    """Measure the spread of each number at each run's own best epoch, and of the numbers that its summary ends with.

    Args:
        runs: runs that the spread is measured over. A name that only some of them have is left out, and so is a whole
            number of the summary that is the same in all of them, which is a setting or a count.
    """
    rows = [_numbers_of(run) for run in runs]
    names = [name for name in (rows[0] if rows else {}) if all(name in row for row in rows)]
    found = {name: [row[name] for row in rows] for name in names}
    return {
        name: Spread.of(values)
        for name, values in found.items()
        if len(set(values)) > 1 or not all(isinstance(value, int) for value in values)
    }


def _numbers_of(run: Run) -> dict[str, float]:
    numbers = {"best_epoch": float(run.best_epoch)} if run.best_epoch is not None else {}
    numbers |= numbers_at(run.series, run.best_epoch)
    for name in ("val_loss", run.monitor.name):  # what counts most first
        if name in numbers:
            numbers = {name: numbers.pop(name)} | numbers
    for name, value in run.summary.items():
        if name not in _BOOKKEEPING and isinstance(value, int | float) and not isinstance(value, bool):
            numbers.setdefault(name, value)
    return numbers


def content_of(group: SeedGroup, members: dict[int, str | None], **more: Any) -> dict[str, Any]:
    """Return what seeds.json says of a group.

    Args:
        group: the group with its runs as they are now.
        members: run ids by seed; None of a run that has not begun.
        more: further entries at the top level of seeds.json.
    """
    counted = list(group.counted.values())
    history = {
        name: {
            "epoch": [epoch for epoch, _ in column],
            "mean": [spread.mean for _, spread in column],
            "std": [spread.std for _, spread in column],
            "min": [min(spread.values) for _, spread in column],
            "max": [max(spread.values) for _, spread in column],
            "runs": [len(spread.values) for _, spread in column],
        }
        for name, column in over_epochs(counted).items()
    }
    best = {
        name: {"mean": spread.mean, "std": spread.std, "interval_95": spread.interval, "values": spread.values}
        for name, spread in at_best(counted).items()
    }
    head = {"schema_version": SCHEMA_VERSION, "trainer": group.trainer, "group": group.path.name, "how": group.how}
    states = {seed: "waiting" if run is None else run.state for seed, run in group.runs.items()}
    listed = [{"seed": seed, "run": run, "state": states[seed]} for seed, run in members.items()]
    return head | more | {"members": listed, "counted": list(group.counted), "best": best, "history": history}


def table_lines(group: SeedGroup) -> list[str]:
    """Write a group as two tables: each run, then mean and spread of each number."""
    counted = list(group.counted.values())
    lines = aligned(
        [
            ("seed", "run", "epochs", best_title(run.monitor for run in group.runs.values() if run), "at", "state"),
            *(_member_row(seed, run, group.changed.get(seed, {})) for seed, run in group.runs.items()),
        ],
        left=(1, 5),
    )
    without = len(group.runs) - len(counted)
    why = "which came to no end" + (", or were gone on with other settings" if group.changed else "")
    left_out = f"; {without} of {len(group.runs)} left out, {why}" if without else ""
    title = f"{count_of(len(counted), 'seed')}, each at its own best epoch{left_out}"
    if not counted:
        return [*lines, "", f"all runs are left out, {why}: so there is no mean" if group.changed else _NO_MEAN]
    rows = [("", "mean", "std", "95 % interval of the mean", "lowest", "highest")]
    for name, spread in at_best(counted).items():
        interval = "-" if spread.interval is None else f"{spread.interval[0]:.6g} to {spread.interval[1]:.6g}"
        std = "-" if spread.std is None else f"{spread.std:.3g}"
        rows.append(
            (name, f"{spread.mean:.6g}", std, interval, f"{min(spread.values):.6g}", f"{max(spread.values):.6g}")
        )
    return [*lines, "", title, *aligned(rows, left=(0,))]


def _member_row(seed: int, run: Run | None, changed: dict[str, list[str]]) -> tuple[str, ...]:
    if run is None:
        return (str(seed), "-", "-", "-", "-", "waiting")
    loss = "-" if run.best_value is None else f"{run.best_value:.6g}"
    at = "-" if run.best_epoch is None else str(run.best_epoch)
    state = state_of(run.path, run.state) if run.state == "running" else run.state
    if changed:
        state += f", left out: gone on with {', '.join(f'{key} {a} -> {b}' for key, (a, b) in changed.items())}"
    return (str(seed), run.id, str(run.summary.get("epochs", "-")), loss, at, state)
