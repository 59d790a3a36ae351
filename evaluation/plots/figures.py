"""How all pictures look, and figures without pyplot: no display is needed and nothing global is changed."""

from typing import Any

COLOURS = ("#0b6fb8", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e0b", "#17838c", "#7a5230", "#555555")
PLOT_STYLE = {
    "figure.dpi": 110, "savefig.dpi": 110, "font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 8, "legend.handlelength": 3.2,
    "lines.linewidth": 1.6, "figure.constrained_layout.use": True,
}  # fmt: skip


def new_figure(width: float, height: float) -> Any:
    """Make a matplotlib Figure; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure
