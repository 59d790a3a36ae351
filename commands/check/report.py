"""A verdict, and how the lines of a check look."""

import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from constants.counting import counted
from storage.log_lines import wants_colours

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "FAILED", "skipped"
_NAME_WIDTH = 32
_INDENT = 9 + _NAME_WIDTH + 2
_COLOURS = {OK: "32", WARNING: "33", FAILED: "1;31", SKIPPED: "2"}
_SHOWN = 4  # names in a list of them


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        mark: ok, warning, FAILED or skipped.
        text: the figures, or the reason; may have several lines.
    """

    mark: str
    text: str


def ok(text: str) -> Verdict:
    """All is well."""
    return Verdict(OK, text)


def warning(text: str) -> Verdict:
    """It may be well; a person should look."""
    return Verdict(WARNING, text)


def failed(text: str) -> Verdict:
    """It is wrong."""
    return Verdict(FAILED, text)


def skipped(text: str) -> Verdict:
    """It could not be looked at, or there is nothing to look at."""
    return Verdict(SKIPPED, text)


def line(name: str, verdict: Verdict) -> str:
    """Write a verdict as a line in three columns; at a terminal it is wrapped to its width, and the mark coloured.

    NO_COLOR leaves the colour out.
    """
    parts = verdict.text.split("\n")
    mark = f"{verdict.mark:<9}"
    if sys.stdout.isatty():
        width = max(40, shutil.get_terminal_size().columns - _INDENT - 1)
        parts = [row for part in parts for row in textwrap.wrap(part, width, break_long_words=False) or [""]]
    if wants_colours():
        mark = f"\x1b[{_COLOURS[verdict.mark]}m{mark}\x1b[0m"
    rest = "".join(f"\n{'':<{_INDENT}}{part.strip()}" for part in parts[1:])
    return f"{mark}{name:<{_NAME_WIDTH}}  {parts[0]}{rest}"


def summary(verdicts: Sequence[Verdict], took: str) -> str:
    """Count the verdicts in one line."""
    counts = Counter(verdict.mark for verdict in verdicts)
    told = f"{counts[OK]} ok, {counted(counts[WARNING], 'warning')}, {counts[FAILED]} failed, {counts[SKIPPED]} skipped"
    advice = ": mend what failed before a long run" if counts[FAILED] else ""
    return f"{told} in {took}{advice}"


def listed(names: Sequence[object]) -> str:
    """Write the first few of some names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more
