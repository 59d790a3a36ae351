"""The segments of a run, segments.json in its folder: its start, and each time that it was gone on with."""

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.files import write_json

FILE = "segments.json"
SCHEMA_VERSION = 1  # of segments.json
GROUP, SWEEP = "seeds", "sweep"  # what a run may be part of


@dataclass(frozen=True)
class Segment:
    """One process's part of a run.

    Attributes:
        started: ISO time in UTC.
        ended: ISO time in UTC; None while the process is at work, and where it was killed.
        state: state in which the segment ended; running where it has not.
        epochs: number of epochs that the run was to have in all.
        from_epoch: number of epochs that were done before.
        to_epoch: number of epochs that were done at its end; None where nobody wrote it.
        host: name of the machine.
        command: words of the command line.
        working_directory: folder in which the command was given.
        device: device that the model was on.
        versions: version of each package, and of Python, by name.
        commit: commit of the code; None outside a checkout.
        settings: all settings in force, as config.ini has them.
        changed: what of them changes numbers and was otherwise in the segment before: that value and this one, by key.
    """

    started: str
    epochs: int
    from_epoch: int = 0
    ended: str | None = None
    state: str = "running"
    to_epoch: int | None = None
    host: str = ""
    command: list[str] = field(default_factory=list)
    working_directory: str = ""
    device: str = ""
    versions: dict[str, str | None] = field(default_factory=dict)
    commit: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    changed: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunSegments:
    """What segments.json says.

    Attributes:
        trainer: class name of the run's trainer; empty where nobody wrote it.
        part_of: what the run is part of, `seeds` or `sweep`; empty for a run of its own.
        segments: segments in their order; none of a run from before there was such a file.
    """

    trainer: str = ""
    part_of: str = ""
    segments: tuple[Segment, ...] = ()

    @property
    def started(self) -> datetime | None:
        """When the run began, with its time zone."""
        with suppress(ValueError):
            return datetime.fromisoformat(self.segments[0].started) if self.segments else None
        return None

    @property
    def changed(self) -> dict[str, list[str]]:
        """Settings that change numbers and were changed since the run began: first and last value, by key."""
        found: dict[str, list[str]] = {}
        for segment in self.segments:
            for name, (before, now) in segment.changed.items():
                found[name] = [found.get(name, [before])[0], now]
        return {name: pair for name, pair in found.items() if pair[0] != pair[1]}


def now() -> str:
    """Return the time as segments.json has it: ISO, in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def read_segments(path: Path) -> RunSegments:
    """Read the segments of a run; what can't be read is taken for a run from before there was such a file.

    Args:
        path: the run's folder.
    """
    try:
        content = json.loads((path / FILE).read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA_VERSION:
            return RunSegments()
        known = Segment.__dataclass_fields__.keys()
        segments = [Segment(**{key: row[key] for key in row.keys() & known}) for row in content["segments"]]
        return RunSegments(str(content.get("trainer", "")), str(content.get("part_of", "")), tuple(segments))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return RunSegments()


def write_segments(path: Path, content: RunSegments) -> None:
    """Write segments.json, atomically.

    Args:
        path: the run's folder.
        content: all that it shall say.

    Raises:
        OutputError: it can't be written.
    """
    head: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "trainer": content.trainer, "part_of": content.part_of}
    write_json(path / FILE, head | {"segments": [asdict(segment) for segment in content.segments]})


def seconds_of_local(moment: str) -> float:
    """Return a local time of this machine as seconds since 1970: what run ids, which are local times, are sorted by.

    Args:
        moment: time such as `20261128-055407`.
    """
    return time.mktime(time.strptime(moment, "%Y%m%d-%H%M%S"))
