"""The part of a run's page that shows its segments: its start, and each time that it was gone on with."""

import shlex
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from evaluation.report.markup import Markup, joined, table, tag
from storage.segments import Segment, read_segments


def segments_part(path: Path) -> Markup | None:
    """Show the segments of a run that was gone on with; None of a run of one piece.

    Args:
        path: the run's folder.
    """
    segments = read_segments(path).segments
    if len(segments) < 2:
        return None
    head = ("segment", "started (UTC)", "ended (UTC)", "epochs", "of", "state", "host", "device", "changed settings")
    rows = [(str(number), *_cells(segment)) for number, segment in enumerate(segments, 1)]
    shown = table(head, rows, "The processes that trained this run, one after the other")
    given = [(number, each.command) for number, each in enumerate(segments, 1) if each.command]
    commands = [f"{number}: python {shlex.join(command[1:])}" for number, command in given]
    return joined([shown, *(tag("p", tag("code", command)) for command in commands), *_versions(segments)])


def _cells(segment: Segment) -> tuple[str, ...]:
    last = "?" if segment.to_epoch is None else str(segment.to_epoch)
    changed = ", ".join(f"{key} {before} -> {now}" for key, (before, now) in segment.changed.items())
    state = "killed" if segment.to_epoch is None and segment.ended is None else segment.state
    return (
        _clock(segment.started), _clock(segment.ended), f"{segment.from_epoch} to {last}", str(segment.epochs),
        state or "-", segment.host or "-", segment.device or "-", changed,
    )  # fmt: skip


def _clock(moment: str | None) -> str:
    try:
        return datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M:%S") if moment else "-"
    except ValueError:
        return "-"


def _versions(segments: tuple[Segment, ...]) -> list[Markup]:
    """Say which packages and which code were others from one segment to the next."""
    told = []
    for number, (before, now) in enumerate(pairwise(segments), 2):
        other = [
            f"{name} {before.versions[name]} -> {now.versions[name]}"
            for name in now.versions
            if name in before.versions and before.versions[name] != now.versions[name]
        ]
        if before.versions and before.commit != now.commit:
            other.append(f"commit {(before.commit or 'none')[:10]} -> {(now.commit or 'none')[:10]}")
        told += [tag("p", f"Segment {number} has other packages or code: {', '.join(other)}")] if other else []
    return told
