"""Which of several runs is best, by what they monitor, and by how much."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from storage.monitor import Monitor
from storage.saved_run import Run, numbers_at
from storage.text_table import aligned

_MOST_METRICS = 4  # columns of further metrics


@dataclass(frozen=True)
class Standing:
    """One run among several.

    Attributes:
        run: the run.
        name: what it is called beside the others.
        value: its best value of what all are judged by; None where it was never measured.
        epoch: epoch of that value, None where there is none.
        behind: how much worse it is than the best; 0 of the best itself, None where there is no value.
    """

    run: Run
    name: str
    value: float | None
    epoch: float | None
    behind: float | None


def common_monitor(runs: Sequence[Run]) -> Monitor:
    """Return what several runs are judged by: what the first one monitors that was measured in all, else in it."""
    monitors = list(dict.fromkeys(run.monitor for run in runs))
    return next((monitor for monitor in monitors if all(monitor.name in run.series for run in runs)), monitors[0])


def standings(runs: Sequence[Run], names: Sequence[str]) -> list[Standing]:
    """Put runs in order, the best first, those without a value last.

    Args:
        runs: runs to compare.
        names: what each is called.
    """
    monitor = common_monitor(runs)
    found = []
    for run, name in zip(runs, names, strict=True):
        epochs, values = run.series.get(monitor.name, ([], []))
        best = monitor.best(values)
        epoch = None if best is None else epochs[values.index(best)]
        found.append(Standing(run, name, best, epoch, None))
    found.sort(key=lambda standing: monitor.sort_key(standing.value))
    first = found[0].value
    return [
        Standing(item.run, item.name, item.value, item.epoch, abs(item.value - first))
        if item.value is not None and first is not None
        else item
        for item in found
    ]


def verdict_line(runs: Sequence[Run], names: Sequence[str]) -> str:
    """Say in a sentence which of several runs is best and by how much, or why that can't be said.

    Args:
        runs: runs to compare, at least two.
        names: what each is called.
    """
    monitor, order = common_monitor(runs), standings(runs, names)
    missing = [item.name for item in order if item.value is None]
    if missing:
        return f"no winner: {monitor.name} was never measured in {' and '.join(missing)}{_others(runs, monitor)}"
    best, second = order[0], order[1]
    if best.value is None or second.value is None:
        raise ValueError("all runs have a value here")
    if best.value == second.value:
        equal = [item for item in order if item.value == best.value]
        who = "both have" if len(order) == 2 else f"{' and '.join(item.name for item in equal)} have"
        at = " and ".join(f"{item.epoch:g}" for item in equal)
        return f"no winner: {who} {monitor.name} {best.value:.6g} (at epochs {at})"
    gap = _gap(best.value, second.value, monitor)
    against = f"{second.name} with {_number(second.value, best.value)} at epoch {second.epoch:g}"
    going = [item.name for item in order if item.run.state == "running"]
    still = f"; {' and '.join(going)} {'is' if len(going) == 1 else 'are'} still running" if going else ""
    first = f"{best.name} with {monitor.name} {_number(best.value, second.value)} at epoch {best.epoch:g}"
    return f"winner: {first}, {gap} than {against}{_others(runs, monitor)}{still}"


def verdict_lines(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Say which of several runs is best, and show all in order with what else was measured at each run's best epoch.

    Args:
        runs: runs to compare, at least two.
        names: what each is called.
    """
    monitor, metrics = common_monitor(runs), further_metrics(runs)
    if len(runs) == 2 and not metrics:
        return [verdict_line(runs, names)]
    rows = [("", monitor.name, "at epoch", "behind", *metrics)]
    for item in standings(runs, names):
        there = at_epoch(item)
        cells = [_cell(item.value), _cell(item.epoch), f"{item.behind:.3g}" if item.behind else ""]
        rows.append((item.name, *cells, *(_cell(there.get(name)) for name in metrics)))
    return [verdict_line(runs, names), *(f"  {line}" for line in aligned(rows, left=(0,)))]


def further_metrics(runs: Sequence[Run]) -> list[str]:
    """Return what validation measured in several runs beside that by which they are judged: the first few names."""
    names = dict.fromkeys(name for run in runs for name in run.series if name.startswith("val_"))
    monitor = common_monitor(runs).name
    return [name for name in names if name != monitor][:_MOST_METRICS]


def at_epoch(item: Standing) -> dict[str, float]:
    """Return all that was measured at a run's best epoch, by name."""
    return numbers_at(item.run.series, None if item.epoch is None else int(item.epoch))


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _gap(best: float, second: float, monitor: Monitor) -> str:
    percent = abs(best - second) / abs(second) * 100 if second and math.isfinite(second) else 0.0
    share = f" ({percent:.2g} %)" if percent else ""
    return f"{'lower' if monitor.mode == 'min' else 'higher'} by {abs(best - second):.3g}{share}"


def _number(value: float, other: float) -> str:
    """Write a number with as many digits as tell it from another one, at least six."""
    return next(
        (text for digits in range(6, 18) if (text := f"{value:.{digits}g}") != f"{other:.{digits}g}"), repr(value)
    )


def _others(runs: Sequence[Run], monitor: Monitor) -> str:
    """Say where a run was judged by something else while it trained."""
    other = list(dict.fromkeys(run.monitor.name for run in runs if run.monitor != monitor))
    told = f" (while training, another was judged by {' and '.join(other)})" if other else ""
    if "loss" in monitor.name and len({run.trainer for run in runs}) > 1:
        told += " (the losses of different trainers need not mean the same)"
    return told
