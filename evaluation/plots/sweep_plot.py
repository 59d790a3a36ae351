"""The picture of a sweep: parallel coordinates, a line for each trial."""

import itertools
import math
from pathlib import Path
from typing import Any

from constants.counting import counted
from evaluation.plots.run_plots import PLOT_STYLE
from storage.sweeps import Sweep

_MOST_TICKS = 12  # of a categorical axis; more can't be read
_APART = 0.06  # of an axis: the least distance between two numbers at it
_LARGE_RATIO = 30  # of largest and smallest value, from which on a metric's axis is logarithmic
_JITTER = 0.025  # of a categorical axis, so that lines through one choice can be told apart


def plot_sweep(sweep: Sweep, out: Path | None = None) -> Path:
    """Draw a sweep.

    Args:
        sweep: a sweep that `load_sweep` has read.
        out: a PNG, or a folder for it; None takes the sweep's own folder.

    Returns:
        The file written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    file = (out or sweep.path) if (out or sweep.path).suffix.lower() == ".png" else (out or sweep.path) / "trials.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(max(6.5, 1.9 * (len(sweep.space) + 1) + 1.2), 4.8))
        FigureCanvasAgg(figure)
        _draw(figure.subplots(), sweep, figure)
        figure.savefig(file)
    return file


def _draw(axis: Any, sweep: Sweep, figure: Any) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    shown = [trial for trial in sweep.trials if trial.value is not None and math.isfinite(trial.value)]
    metric = _metric_scale([trial.value for trial in shown if trial.state == "complete"])
    scales = [*sweep.space.values(), metric]
    sign = -1 if sweep.direction == "maximize" else 1
    colours = colormaps["viridis" if sign > 0 else "viridis_r"]
    norm = (LogNorm if metric["kind"] == "log" else Normalize)(metric["low"], metric["high"])
    # Pruned ones first and the best last, so that it lies on top.
    for trial in sorted(shown, key=lambda trial: (trial.state == "complete", -sign * trial.value)):
        values = [*(trial.params.get(key) for key in sweep.space), trial.value]
        heights = [_height(scale, value, trial.number) for scale, value in zip(scales, values, strict=True)]
        x, y = _smooth([min(1.0, max(0.0, height)) for height in heights])
        whole, best = trial.state == "complete", trial is sweep.best
        axis.plot(
            x, y, color="#d1495b" if best else colours(norm(trial.value)) if whole else "#999999",
            alpha=1.0 if best else 0.8 if whole else 0.3, linewidth=2.6 if best else 1.4 if whole else 0.9,
            label=f"best: trial {trial.number}, {sweep.metric} {trial.value:.6g}" if best else None,
        )  # fmt: skip
    for place, (name, scale) in enumerate(zip([*sweep.space, sweep.metric], scales, strict=True)):
        _draw_scale(axis, place, name, _ticks(scale), side=1 if place == len(sweep.space) else -1)
    axis.set(xlim=(-0.35, len(sweep.space) + 0.35), ylim=(-0.04, 1.04), xticks=[], yticks=[])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    pruned = sum(trial.state == "pruned" for trial in sweep.trials)
    grey = f" (grey: {pruned} pruned)" if pruned else ""
    figure.suptitle(f"{sweep.trainer}, sweep {sweep.name}: {counted(len(sweep.trials), 'trial')}{grey}", fontsize=12)
    if sweep.best is not None:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0))
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axis, fraction=0.03, pad=0.01)
    bar.set_label(sweep.metric)
    bar.outline.set_visible(False)


def _metric_scale(values: list[float]) -> dict[str, Any]:
    """Return the scale of what is compared, from the complete trials: logarithmic where it spans much."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low == high:
        low, high = low - abs(low) * 0.01 - 1e-9, high + abs(high) * 0.01 + 1e-9
    return {"kind": "log" if low > 0 and high / low > _LARGE_RATIO else "range", "low": low, "high": high}


def _draw_scale(axis: Any, place: int, name: str, ticks: list[tuple[float, str]], side: int) -> None:
    """Draw one upright axis with its name above it and its values to its left (`side` -1) or right (1)."""
    axis.plot([place, place], [0, 1], color="#333333", linewidth=1.0, zorder=3)
    axis.annotate(name, (place, 1), (0, 12), textcoords="offset points", ha="center", fontsize=9, fontweight="bold")
    for height, text in ticks:
        axis.plot([place + 0.02 * side, place], [height, height], color="#333333", linewidth=0.8, zorder=3)
        axis.annotate(
            text, (place, height), (5 * side, 0), textcoords="offset points", va="center", fontsize=8, zorder=4,
            ha="left" if side > 0 else "right",
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
        )  # fmt: skip


def _height(scale: dict[str, Any], value: Any, number: int) -> float:
    """Where a trial's line crosses a scale, 0 at the foot and 1 at the top."""
    if scale["kind"] == "choices":
        known = scale["choices"]
        # Spread by the trial's number, so that a picture drawn again is the same.
        spread = ((number * 0.618) % 1 - 0.5) * 2 * _JITTER
        return _step(known.index(value) if value in known else 0, len(known)) + spread
    low, high = scale["low"], scale["high"]
    if scale["kind"] == "log":
        return math.log(value / low) / math.log(high / low) if value > 0 else 0.0
    return (value - low) / (high - low)


def _ticks(scale: dict[str, Any]) -> list[tuple[float, str]]:
    """Return heights and texts: every choice, or both ends and round numbers between them."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if scale["kind"] == "choices":
        choices = scale["choices"]
        every = math.ceil(len(choices) / _MOST_TICKS)
        return [(_step(number, len(choices)), text) for number, text in enumerate(choices) if number % every == 0]
    low, high = scale["low"], scale["high"]
    locator = LogLocator() if scale["kind"] == "log" else MaxNLocator(5)
    heights = {float(value): _height(scale, float(value), 0) for value in locator.tick_values(low, high)}
    # A round number next to an end would be written over it.
    between = [value for value, height in heights.items() if _APART < height < 1 - _APART]
    digits = 4 if scale["kind"] == "log" else max(4, 2 + math.ceil(math.log10(max(abs(low), abs(high)) / (high - low))))
    return [(_height(scale, value, 0), f"{value:.{digits}g}") for value in (low, *between, high)]


def _step(number: int, count: int) -> float:
    """Where a choice is on its axis: some way from both ends, so that its lines have room."""
    return (number + 0.5) / count


def _smooth(points: list[float], steps: int = 24) -> tuple[list[float], list[float]]:
    """Join points by curves that cross each axis level, which are easier to follow than straight lines."""
    x, y = [0.0], [points[0]]
    for place, (left, right) in enumerate(itertools.pairwise(points)):
        for step in range(1, steps + 1):
            part = step / steps
            ease = part * part * (3 - 2 * part)
            x.append(place + part)
            y.append(left + (right - left) * ease)
    return x, y
