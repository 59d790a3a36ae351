"""Pictures of a group of seeds: the mean, a band of one standard deviation, and each run as a faint line.

Mean and band are over the runs that are still there. Where some have stopped early the mean is dashed, and the picture
says how many are left: those that go on are a choice of their own, not the group.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from constants.counting import counted as count_of
from evaluation.plots.figures import COLOURS
from evaluation.plots.run_plots import is_logarithmic, panel_frame, plot_runs, smoothed
from storage.saved_run import Run
from storage.seed_groups import SeedGroup, over_epochs

_MOST_MARKS = 6  # of the number of runs, in a panel


def plot_group(group: SeedGroup, out: Path) -> list[Path]:
    """Draw a group: one picture of all panels, `overview.png`, and one of each panel.

    Args:
        group: group with at least one run that came to its end.
        out: the folder to draw into, made if it is missing; or the path of one PNG, which gets the overview alone.

    Returns:
        The files written.
    """
    counted = list(group.counted.values())
    lost = [run for run in group.runs.values() if run is not None and run.series and run not in counted]
    title = f"{group.trainer}: mean and standard deviation over {count_of(len(counted), 'seed')}"
    if lost:
        title += f" ({len(group.runs)} were asked for; dotted: those that came to no end)"
    return plot_runs(counted, out, partial(_draw_panel, lost=lost), title)


def _draw_panel(axis: Any, runs: Sequence[Run], name: str, series: Sequence[str], lost: Sequence[Run]) -> None:
    spreads, positive = over_epochs(runs), is_logarithmic(runs, name, series)
    for number, key in enumerate(key for key in series if key in spreads):
        is_val = key.startswith("val_")
        colour = COLOURS[1 if is_val else 0] if len(series) <= 2 else COLOURS[number % len(COLOURS)]
        part = "validation" if is_val else "training" if key.startswith("train_") else key.replace("_", " ")
        for run in [*runs, *lost]:
            epochs, values = run.series.get(key, ((), ()))
            style = {"linestyle": ":"} if run in lost else {}
            axis.plot(epochs, smoothed(name, values), color=colour, alpha=0.25, linewidth=0.8, **style)
        _draw_mean(axis, name, spreads[key], colour, part, len(runs))
        _draw_band(axis, name, spreads[key], colour, None if number else "± 1 standard deviation", positive)
    _mark_counts(axis, spreads, series)
    panel_frame(axis, runs, name, series)
    axis.legend(loc="best")


def _draw_mean(axis: Any, panel: str, column: Sequence[tuple[float, Any]], colour: str, label: str, runs: int) -> None:
    """Draw the mean; dashed where it is only over those that are left, and none of a single one."""
    epochs = [epoch for epoch, _ in column]
    means = smoothed(panel, [spread.mean for _, spread in column])
    whole = sum(len(spread.values) == runs for _, spread in column)
    several = sum(len(spread.values) > 1 for _, spread in column) or len(column)
    marker = {"marker": "o" if len(epochs) <= 12 else None, "markersize": 3.5}
    axis.plot(epochs[:whole], means[:whole], color=colour, label=label, **marker)
    axis.plot(epochs[max(0, whole - 1) : several], means[max(0, whole - 1) : several], color=colour, linestyle="--")


def _draw_band(
    axis: Any, panel: str, column: Sequence[tuple[float, Any]], colour: str, label: str | None, positive: bool
) -> None:
    several = [(epoch, spread) for epoch, spread in column if spread.std is not None]
    if not several:
        return
    # On a logarithmic axis a band that goes below 0 ends at the lowest run.
    low = [max(s.mean - s.std, min(s.values)) if positive else s.mean - s.std for _, s in several]
    high = [spread.mean + spread.std for _, spread in several]
    epochs = [epoch for epoch, _ in several]
    low, high = smoothed(panel, low), smoothed(panel, high)
    axis.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0, label=label)


def _mark_counts(axis: Any, spreads: dict[str, Any], series: Sequence[str]) -> None:
    """Say from which epoch on fewer runs are left, where some stopped early."""
    column = max((spreads[key] for key in series if key in spreads), key=len)
    counts = [(epoch, len(spread.values)) for epoch, spread in column]
    changes = [now for before, now in itertools.pairwise(counts) if now[1] != before[1]]
    step = -(-len(changes) // _MOST_MARKS) or 1
    for epoch, left in changes[::-step][::-1]:
        axis.axvline(epoch, color="#777777", linewidth=0.7, linestyle=":")
        axis.annotate(f"{left} left", (epoch, 1.0), xycoords=("data", "axes fraction"), xytext=(2, -2),
                      textcoords="offset points", fontsize=7, color="#555555", va="top")  # fmt: skip
