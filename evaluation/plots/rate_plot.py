"""The picture of a learning rate range test: loss against rate, with the suggestion."""

import json
from pathlib import Path

from evaluation.plots.run_plots import PLOT_STYLE

_RAW, _SMOOTH, _CHOSEN, _OTHER, _END = "#b9c7d3", "#0b6fb8", "#d1495b", "#2e8b57", "#555555"


def plot_range_test(measured: Path, out: Path) -> None:
    """Draw a range test.

    Args:
        measured: path of find_lr.json, as `--find-lr` writes it.
        out: the PNG to write.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    test = json.loads(measured.read_text(encoding="utf-8"))
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(7.6, 4.6))
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        rates, losses, smoothed = test["rates"], test["losses"], test["smoothed"]
        axis.plot(rates, losses, color=_RAW, linewidth=1.0, label="loss of each step")
        if smoothed:
            axis.plot(rates, smoothed, color=_SMOOTH, linewidth=2.0, label="smoothed")
        for name, colour, marker in (("steepest", _OTHER, "v"), ("valley", _CHOSEN, "o")):
            if test[name] is not None:
                at = rates.index(test[name])
                what = "suggested (valley)" if name == "valley" else "steepest descent"
                axis.plot(
                    [rates[at]], [smoothed[at]], marker, color=colour, markersize=9, markeredgecolor="white", zorder=5,
                    linestyle="none", label=f"{what}: {rates[at]:.2g}",
                )  # fmt: skip
        if test["diverged"] is not None:
            axis.axvline(test["diverged"], color=_END, linestyle="--", linewidth=1.2,
                         label=f"diverged: {test['diverged']:.2g}")  # fmt: skip
        axis.set_xscale("log")
        axis.set_xlabel("learning rate")
        axis.set_ylabel("training loss, batches at one level")
        low, high = _limits(losses, smoothed)
        axis.set_ylim(low, high)
        no_suggestion = "" if test["valley"] is not None else ", no suggestion"
        axis.set_title(f"{test['trainer']}: learning rate range test{no_suggestion}", loc="left")
        axis.legend(loc="best")
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out)


def _limits(losses: list[float], smoothed: list[float]) -> tuple[float | None, float | None]:
    """Choose what is shown of the losses: the last ones before the end may be a thousand times the others."""
    if not smoothed:
        return None, None
    start, low = max(smoothed[:10]), min(min(smoothed), min(losses))
    reach = max(start - low, 0.05 * abs(start), 1e-12)
    return low - 0.1 * reach, max(start + 0.6 * reach, max(losses[:10]) + 0.1 * reach)
