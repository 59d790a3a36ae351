"""Rows of the table of runs with those that belong together as one: a group of seeds, the trials of a sweep."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from storage.monitor import Monitor
from storage.run_label import read_label
from storage.run_table import RunRow
from storage.saved_run import FINISHED, RunDamagedError
from storage.seed_groups import groups_in, read_group


@dataclass(frozen=True)
class _Group:
    """Runs that belong together.

    Attributes:
        path: folder of the group or sweep.
        kind: `seeds` or `sweep`.
        runs: folders of its runs.
        state: state of the group, where its file says it.
    """

    path: Path
    kind: str
    runs: list[Path]
    state: str | None = None


def with_groups(rows: Sequence[RunRow], artifacts_dir: Path) -> list[RunRow]:
    """Note in each row the group of seeds, or the sweep, that its run is of.

    Args:
        rows: rows as `list_runs` gives them.
        artifacts_dir: folder of all runs and published models.
    """
    groups = _groups_by_run(artifacts_dir)
    return [replace(row, group=groups[row.path].path.name) if row.path in groups else row for row in rows]


def folded(rows: Sequence[RunRow], artifacts_dir: Path) -> list[RunRow]:
    """Put one row in place of the runs of a group of seeds, or of the trials of a sweep, where the last of them was.

    Args:
        rows: rows as `list_runs` gives them.
        artifacts_dir: folder of all runs and published models.
    """
    groups = _groups_by_run(artifacts_dir)
    members: dict[Path, list[RunRow]] = {}
    for row in rows:
        if row.path in groups:
            members.setdefault(groups[row.path].path, []).append(row)
    found = []
    for row in rows:
        group = groups.get(row.path)
        if group is None:
            found.append(row)
        elif members[group.path][-1] is row:
            found.append(_together(group, members[group.path]))
    return found


def _together(group: _Group, rows: Sequence[RunRow]) -> RunRow:
    monitor = Monitor(rows[0].monitor, rows[0].monitor_mode)
    best = min(rows, key=lambda row: monitor.sort_key(row.best_value))
    label, seconds = read_label(group.path), [row.seconds for row in rows if row.seconds is not None]
    row = replace(
        best,
        run=group.path.name,
        name=label.name,
        note=label.note,
        start=rows[0].start,
        epochs=max(row.epochs for row in rows),
        seconds=sum(seconds) if seconds else None,
        state=_state(group, rows),
        error=next((row.error for row in rows if row.error), None),
        path=str(group.path),
        kind=group.kind,
        members=tuple(row.run for row in rows),
    )
    if group.kind == "sweep":  # which is after its best run
        return row
    counted = [other for other in rows if other.state in FINISHED and other.best_value is not None]
    values = [other.best_value for other in counted if other.best_value is not None]
    names = [
        name for name in (counted[0].metrics if counted else {}) if all(name in other.metrics for other in counted)
    ]
    return replace(
        row,
        best_value=statistics.fmean(values) if values else None,
        std=statistics.stdev(values) if len(values) > 1 else None,
        best_epoch=None,
        metrics={name: statistics.fmean(other.metrics[name] for other in counted) for name in names},
    )


def _state(group: _Group, rows: Sequence[RunRow]) -> str:
    states = [row.state for row in rows]
    if "running" in states:
        return "running"
    if group.state not in (None, "running"):
        return str(group.state)
    ended = all(state in (*FINISHED, "pruned", "failed") for state in states)
    return "finished" if ended and group.kind == "sweep" else "killed" if "killed" in states else "interrupted"


def _groups_by_run(artifacts_dir: Path) -> dict[str, _Group]:
    """Find the groups of seeds, and the sweeps, by the folders of their runs; one that can't be read folds nothing."""
    found = []
    for path in groups_in(artifacts_dir):
        try:
            content = read_group(path)
            names = [member["run"] for member in content["members"] if member["run"]]
        except (RunDamagedError, KeyError, TypeError):
            continue
        runs = [(path.parent.parent / "runs" / name).absolute() for name in names]
        found.append(_Group(path.absolute(), "seeds", runs, content.get("state")))
    for file in sorted(artifacts_dir.glob("sweeps/*/*/trials.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            names = [trial["run"] for trial in content["trials"] if trial["run"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        folder = artifacts_dir / "models" / file.parent.parent.name / "runs"
        found.append(_Group(file.parent.absolute(), "sweep", [(folder / name).absolute() for name in names]))
    return {str(run): group for group in found for run in group.runs}
