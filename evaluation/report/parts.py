"""Parts that reports of one run and of several share: state, tiles, pictures."""

import math
from collections.abc import Sequence
from typing import Any

from evaluation.plots.figures import new_figure
from evaluation.plots.run_plots import constants_line, draw_panel, panel_title, panels_of
from evaluation.report.markup import Markup, joined, tag
from evaluation.report.svg import inline_svg
from storage.run_names import run_names
from storage.run_table import state_of
from storage.saved_run import Run

_TONES = {"finished": "good", "early_stopped": "good", "failed": "bad", "killed": "bad"}


def state_badge(run: Run) -> Markup:
    """Show how a run is."""
    state = state_of(run.path, run.state)
    return tag("span", state.replace("_", " "), class_=f"state {_TONES.get(state, 'warn')}")


def tiles(rows: Sequence[tuple[str, str, str]]) -> Markup:
    """Show a few numbers large: name, value, and a remark that may be empty."""
    boxes = [
        tag("div", tag("dt", name), tag("dd", value, tag("small", remark) if remark else None))
        for name, value, remark in rows
    ]
    return tag("dl", *boxes, class_="tiles")


def plots(runs: Sequence[Run]) -> Markup | None:
    """Draw the panels of runs; None where nothing was measured."""
    figures, labels = [], run_names(runs)
    for number, (name, series) in enumerate(panels_of(runs).items()):
        drawn = new_figure(5.6 if len(runs) == 1 else 6.4, 3.5)
        draw_panel(drawn.subplots(), runs, name, series, labels)
        label = f"{panel_title(runs, name, series)}, by {'step' if name.endswith('_by_step') else 'epoch'}"
        figures.append(tag("figure", inline_svg(drawn, f"plot{number}", label)))
    if not figures:
        return None
    told = constants_line(runs)
    below = tag("p", f"{told[:1].upper()}{told[1:]}.", class_="faint") if told else None
    return joined([tag("div", *figures, class_="plots lines"), below])


def number(value: Any, digits: int = 6) -> str:
    """Write a number short; `-` where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}"


def last_of(run: Run, name: str) -> float | None:
    """Return the last value of a series, None where it has none."""
    return run.series[name][1][-1] if name in run.series else None


def lines(texts: Sequence[str]) -> Markup:
    """Show lines as they are on a terminal."""
    return tag("pre", joined(texts, "\n"), class_="wrapped", tabindex=0)
