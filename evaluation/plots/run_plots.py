"""Pictures of saved runs: losses, learning rate, every metric; several runs in one picture."""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from constants.counting import counted
from evaluation.plots.figures import COLOURS, PLOT_STYLE, new_figure
from evaluation.plots.run_pictures import pictures_of
from storage.run_names import run_names
from storage.run_table import clock
from storage.saved_run import Run, numbers_at

_OFTEN, _WIDE = 60, 30  # readings that need smoothing; largest loss by smallest that needs a logarithm
_WIDE_RATES = 10  # the same of learning rates
_FEW = 5  # epochs, below which the loss by step says more than the loss by epoch
_BY_STEP = "_by_step"  # what the names of panels end with whose x axis is the step
_MOST_POINTS = 2000  # of a drawn line: more can't be seen, and take long to draw

_ABBREVIATIONS = re.compile(
    r"\b(?:ndcg|dcg|mrr|auc|auroc|auprc|f1|mse|mae|rmse|mape|iou|miou|psnr|ssim|bleu|wer|cer|fid|nll|kl|mcc|r2)\b",
    re.IGNORECASE,
)  # in titles


def plot_runs(
    runs: Sequence[Run],
    out: Path,
    draw: Callable[..., None] | None = None,
    title: str | None = None,
    more: bool = False,
) -> list[Path]:
    """Draw runs: one picture of all panels, `overview.png`, and one of each panel; of one run also its own pictures.

    Args:
        runs: one run, or several to be compared.
        out: the folder to draw into, made if it is missing; or the path of one PNG, which gets the overview alone.
        draw: draws a panel of the epochs' numbers; None draws all panels by `draw_panel`.
        title: title of the overview; None names the runs.
        more: whether to draw the loss in its other forms too, and what is constant.

    Returns:
        The files written.
    """
    import matplotlib

    panels, has_pictures = panels_of(runs, more), len(runs) == 1 and draw is None
    if draw is not None:
        panels = {name: series for name, series in panels.items() if not name.endswith(_BY_STEP)}
    draw = draw or partial(draw_panel, labels=run_names(runs))
    alone = out.suffix.lower() == ".png"
    folder = out.parent if alone else out
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(PLOT_STYLE):
        overview = out if alone else folder / "overview.png"
        shown = panels if more else {name: series for name, series in panels.items() if not _is_second(runs, name)}
        draw_overview(runs, shown, draw, title).savefig(overview)
        written = [overview]
        for name, figure in () if alone else _figures(runs, panels, draw, has_pictures):
            written.append(folder / _file_name(name, {path.name for path in written}))
            figure.savefig(written[-1])
    return written


def _is_second(runs: Sequence[Run], panel: str) -> bool:
    """Say whether a panel shows the loss a second time; a few epochs are few points, which the steps between add to."""
    return panel == "loss_by_step" and any(len(run.series.get("train_loss", ([], []))[1]) >= _FEW for run in runs)


def _figures(
    runs: Sequence[Run], panels: dict[str, list[str]], draw: Callable[..., None], has_pictures: bool
) -> Iterator[tuple[str, Any]]:
    for name, series in panels.items():
        yield name, panel_figure(runs, name, series, draw)
    for picture in pictures_of(runs[0].path) if has_pictures else ():
        yield picture.name, picture.figure


def _file_name(panel: str, taken: set[str]) -> str:
    """Name a panel's picture; two metrics may differ only in what a file name can't hold (`f1@1`, `f1/1`)."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", panel)
    names = (f"{stem}{'' if number == 1 else f'_{number}'}.png" for number in itertools.count(1))
    # Compared without case: some file systems tell `F1.png` from `f1.png`, some don't.
    return next(name for name in names if name.lower() not in {other.lower() for other in taken})


def panels_of(runs: Sequence[Run], more: bool = False) -> dict[str, list[str]]:
    """List the panels with the series in each: the loss, then every metric, train and val together.

    Args:
        runs: runs to draw.
        more: whether to list the logarithmic loss, its rolling mean and what is constant too.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.series))
    losses = [name for name in ("train_loss", "val_loss") if name in names]
    panels = {"loss": losses} if losses else {}
    if more and losses:
        panels["loss_log"] = losses
        if any(len(run.series[name][1]) >= 10 for run in runs for name in losses if name in run.series):
            panels["loss_rolling"] = losses
    if any(len(run.readings.steps) > len(run.series.get("train_loss", ([], []))[1]) for run in runs):
        panels["loss_by_step"] = ["train_loss"]  # read inside epochs too
    for name in names:
        if name not in losses:
            metric = re.sub(r"^(train|val)_", "", name)
            panels.setdefault("loss (metric)" if metric == "loss" else metric, []).append(name)
    if not more:
        panels = {name: series for name, series in panels.items() if name == "loss" or not _is_constant(runs, series)}
    further = dict.fromkeys(name for run in runs for name in run.readings.further)
    if not any(map(_rate_changes_inside_epochs, runs)):
        further.pop("learning_rate", None)  # the panel by epoch shows all
    return panels | {f"{name}{_BY_STEP}": [name] for name in further}  # what callbacks have read


def constants_of(runs: Sequence[Run]) -> dict[str, float]:
    """Return what never changed, in any of the runs, and is the same in all, by name: it has no panel."""
    names = dict.fromkeys(name for run in runs for name in run.series if name not in ("train_loss", "val_loss"))
    found = {name: {value for run in runs for value in run.series.get(name, ((), ()))[1]} for name in names}
    return {
        name: next(iter(values)) for name, values in found.items() if len(values) == 1 and _is_constant(runs, [name])
    }


def constants_line(runs: Sequence[Run]) -> str:
    """Say what `constants_of` returns; empty where that is nothing."""
    same = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in constants_of(runs).items())
    return f"constant: {same}" if same else ""


def _is_constant(runs: Sequence[Run], series: Sequence[str]) -> bool:
    """Say whether a panel would show level lines alone; one value of a metric is a point to show, of a rate not."""
    columns = [run.series[key][1] for run in runs for key in series if key in run.series]
    few = all(len(values) < 2 for values in columns) and series[0].startswith(("train_", "val_"))
    level = all(len(set(values)) == 1 and math.isfinite(values[0]) for values in columns)
    return bool(columns) and not few and level


def _rate_changes_inside_epochs(run: Run) -> bool:
    by_step, (_, by_epoch) = run.readings.further.get("learning_rate", []), run.series.get("learning_rate", ([], []))
    return len(set(by_step)) > len(set(by_epoch))


def draw_overview(
    runs: Sequence[Run],
    panels: dict[str, list[str]],
    draw: Callable[..., None] | None = None,
    title: str | None = None,
) -> Any:
    """Draw all panels into one matplotlib Figure; see `plot_runs`."""
    draw = draw or partial(draw_panel, labels=run_names(runs))
    columns = len(panels) if len(panels) <= 3 else 2 if len(panels) == 4 else 3
    columns = max(1, columns)
    rows = max(1, math.ceil(len(panels) / columns))
    figure = new_figure(5.2 * columns, 3.6 * rows + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (name, series) in zip(axes, panels.items(), strict=False):
        draw(axis, runs, name, series)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(title or _title(runs), fontsize=12)
    return figure


def panel_figure(runs: Sequence[Run], name: str, series: Sequence[str], draw: Callable[..., None]) -> Any:
    """Draw one panel into a matplotlib Figure of its own, by a function that takes what `draw_panel` takes first."""
    figure = new_figure(7.2, 4.4)
    draw(figure.subplots(), runs, name, series)
    return figure


def draw_panel(axis: Any, runs: Sequence[Run], name: str, series: Sequence[str], labels: Sequence[str]) -> None:
    """Draw one panel of all runs.

    Args:
        axis: matplotlib Axes.
        runs: runs to draw; one without the series is left out.
        name: name of the panel.
        series: names in the runs' histories of the series of the panel.
        labels: what each run is called beside the others, as `run_names` says.
    """
    if name == "loss_by_step":
        _draw_steps(axis, runs, labels)
        return
    if name.endswith(_BY_STEP) and any(name.removesuffix(_BY_STEP) in run.readings.further for run in runs):
        _draw_readings(axis, runs, labels, name)
        return
    for number, run in enumerate(runs):
        colour = COLOURS[number % len(COLOURS)]
        for key in series:
            if key in run.series:
                label = _label(labels[number], key, several=len(runs) > 1, alone=len(series) == 1)
                _draw_line(axis, run, key, name, colour, label, len(runs) > 1)
        _mark_best(axis, run, name, series, colour, alone=len(runs) == 1)
    panel_frame(axis, runs, name, series)
    if not any(math.isfinite(value) for line in axis.lines for value in line.get_ydata()):
        axis.text(0.5, 0.5, "no finite value", transform=axis.transAxes, ha="center", color="#777777")
        axis.set_xticks([])
        axis.set_yticks([])
    if len(runs) > 1 or len(axis.get_legend_handles_labels()[0]) > 1:
        crowded = len(runs) * len(series) > 6
        place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if crowded else {"loc": "best"}
        axis.legend(**place)


def panel_frame(axis: Any, runs: Sequence[Run], name: str, series: Sequence[str]) -> None:
    """Give a panel its title and axes; for the arguments see `draw_panel`."""
    axis.set_title(panel_title(runs, name, series))
    axis.set_xlabel("epoch")
    axis.set_ylabel("loss" if name.startswith("loss") else name.replace("_", " "))
    if is_logarithmic(runs, name, series):
        log_axis(axis, [value for run in runs for key in series for value in run.series.get(key, ([], []))[1]])
    _whole_numbers(axis, [epoch for run in runs for key in series for epoch in run.series.get(key, ([], []))[0]])


def is_logarithmic(runs: Sequence[Run], name: str, series: Sequence[str]) -> bool:
    """Say whether a panel has a logarithmic axis: losses and rates that span much, and are above 0."""
    if name not in ("loss", "loss_log", "learning_rate"):
        return False
    values = [value for run in runs for key in series for value in run.series.get(key, ([], []))[1]]
    known = [value for value in values if math.isfinite(value)]
    if not known or min(known) <= 0:
        return False
    return name == "loss_log" or max(known) > (_WIDE if name == "loss" else _WIDE_RATES) * min(known)


def log_axis(axis: Any, values: Sequence[float]) -> None:
    """Make the y axis logarithmic, with plain numbers at its ticks, of which a short range has some too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    known = [value for value in values if value > 0 and math.isfinite(value)]
    axis.set_yscale("log")
    span = math.log10(max(known) / min(known))
    axis.yaxis.set_major_locator(
        MaxNLocator(5) if span < 0.7 else LogLocator(subs=(1.0, 2.0, 5.0) if span < 2 else (1.0,), numticks=12)
    )
    axis.yaxis.set_minor_locator(NullLocator() if span < 2 else LogLocator(subs=tuple(range(2, 10)), numticks=12))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axis.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))


def _whole_numbers(axis: Any, places: Sequence[float]) -> None:
    """Let the x axis have whole numbers alone; of a single one nothing beside it."""
    if len(set(places)) == 1:
        axis.set_xlim(places[0] - 1, places[0] + 1)
        axis.set_xticks([places[0]])
    else:
        axis.xaxis.get_major_locator().set_params(integer=True)


def panel_title(runs: Sequence[Run], name: str, series: Sequence[str]) -> str:
    """Say what a panel shows."""
    windows = sorted({_window(run.series[key][1]) for run in runs for key in series if key in run.series})
    titles = {
        "loss": "Loss",
        "loss_log": "Loss, logarithmic",
        "loss_rolling": f"Loss, mean of the last {' or '.join(map(str, windows))}",
        "loss_by_step": "Training loss by step",
    }
    words = name.replace("_", " ").capitalize()
    return titles.get(name, _ABBREVIATIONS.sub(lambda found: found[0].upper(), words))


def _draw_steps(axis: Any, runs: Sequence[Run], labels: Sequence[str]) -> None:
    """Draw the training loss between the steps at which it was read, and where it is read often its rolling mean."""
    values: list[float] = []
    for number, run in enumerate(runs):
        steps, means = run.readings.between()
        if not steps:
            continue
        values += means
        colour, often = COLOURS[number % len(COLOURS)], len(means) >= _OFTEN
        apart = max(1, math.ceil(len(steps) / _MOST_POINTS))
        axis.plot(steps[::apart], means[::apart], color=colour, linewidth=0.9 if often else 1.6,
                  alpha=0.35 if often else 1.0, label=None if often else labels[number])  # fmt: skip
        if often:
            rolling = _rolling(means, _window(means))
            label = labels[number] if len(runs) > 1 else f"mean of the last {counted(_window(means), 'reading')}"
            axis.plot(steps[::apart], rolling[::apart], color=colour, label=label)
    axis.set_title(panel_title(runs, "loss_by_step", ()))
    axis.set_xlabel("optimizer step")
    axis.set_ylabel("loss, mean since the reading before")
    known = [value for value in values if not math.isnan(value)]
    if known and min(known) > 0 and max(known) > _WIDE * min(known):
        log_axis(axis, known)
    axis.xaxis.get_major_locator().set_params(integer=True)
    if len(runs) > 1 or len(values) >= _OFTEN:
        axis.legend(loc="best")


def _draw_readings(axis: Any, runs: Sequence[Run], labels: Sequence[str], name: str) -> None:
    """Draw what a callback has added to the readings of the loss."""
    key, values = name.removesuffix(_BY_STEP), []
    for number, run in enumerate(runs):
        steps, read = run.readings.steps, run.readings.further.get(key, [])
        apart = max(1, math.ceil(len(steps) / _MOST_POINTS))
        if read:
            axis.plot(steps[::apart], read[::apart], color=COLOURS[number % len(COLOURS)], linewidth=1.3,
                      marker="o" if len(read) <= 12 else None, markersize=3.5, label=labels[number])  # fmt: skip
        values += [value for value in read if not math.isnan(value)]
    words = re.sub(r" mb$", " (MB)", key.replace("_", " "))
    axis.set_title(f"{words[:1].upper()}{words[1:]} by step")
    axis.set_xlabel("optimizer step")
    axis.set_ylabel(words)
    if values and min(values) > 0 and max(values) > _WIDE * min(values):
        log_axis(axis, values)
    axis.xaxis.get_major_locator().set_params(integer=True)
    if len(runs) > 1:
        axis.legend(loc="best")


def _label(run: str, key: str, several: bool, alone: bool) -> str:
    """Name a line: the part of the run that it is of, and of several runs the run."""
    part = "validation" if key.startswith("val_") else "training" if key.startswith("train_") else key.replace("_", " ")
    return part if not several else run if alone else f"{run}, {part}"


def _draw_line(axis: Any, run: Run, key: str, panel: str, colour: str, label: str, several: bool) -> None:
    epochs, values = run.series[key]
    values = smoothed(panel, values)
    step = max(1, math.ceil(len(values) / _MOST_POINTS))
    is_val = key.startswith("val_")
    if not several and is_val:
        colour = COLOURS[1]
    axis.plot(
        epochs[::step], values[::step], color=colour, linestyle="--" if is_val and several else "-",
        marker="o" if len(values) <= 12 else None, markersize=3.5, label=label,
    )  # fmt: skip


def _mark_best(axis: Any, run: Run, panel: str, series: Sequence[str], colour: str, alone: bool) -> None:
    """Mark the best epoch, in the panel of what is monitored and in those of the loss."""
    name = run.monitor.name if run.monitor.name in series else "val_loss"
    value = numbers_at(run.series, run.best_epoch).get(name)
    if name not in series or value is None or run.best_epoch is None or panel == "loss_rolling":
        return
    is_monitored = name == run.monitor.name
    label = f"best: {value:.4g} at epoch {run.best_epoch}"
    label = label if is_monitored else f"epoch {run.best_epoch}, of the best {run.monitor.name}"
    axis.plot([run.best_epoch], [value], "*", color=colour if not alone else "#222222", markersize=13,
              markerfacecolor="none", markeredgewidth=1.3, label=label if alone else None, zorder=5)  # fmt: skip


def smoothed(panel: str, values: Sequence[float]) -> Sequence[float]:
    """Return a series as its panel shows it: of `loss_rolling` its rolling mean."""
    return _rolling(values, _window(values)) if panel == "loss_rolling" else values


def _window(values: Sequence[float]) -> int:
    """How many values a rolling mean takes together."""
    return max(3, len(values) // 20)


def _rolling(values: Sequence[float], window: int) -> list[float]:
    """Mean of the last `window` values (of fewer at the start); NaN is left out."""
    sums = [0.0, *itertools.accumulate(0.0 if math.isnan(value) else value for value in values)]
    counts = [0, *itertools.accumulate(not math.isnan(value) for value in values)]
    ends = range(1, len(values) + 1)
    parts = [(sums[end] - sums[max(0, end - window)], counts[end] - counts[max(0, end - window)]) for end in ends]
    return [total / count if count else math.nan for total, count in parts]


def _title(runs: Sequence[Run]) -> str:
    trainers = ", ".join(dict.fromkeys(run.trainer for run in runs))
    constant = f"\n{told}" if (told := constants_line(runs)) else ""
    if len(runs) > 1:
        return f"{trainers}: {counted(len(runs), 'run')}{constant}"
    run, seconds = runs[0], runs[0].summary.get("seconds")
    took = f", took {clock(seconds)}" if isinstance(seconds, int | float) else ""
    called = f"{run.label.name}, run {run.id}" if run.label.name else f"run {run.id}"
    return f"{trainers}, {called} ({run.state.replace('_', ' ')}{took}){constant}"
