"""Writes a report: of one run into its folder, of several to a place of its own."""

import os
from collections.abc import Sequence
from pathlib import Path

from evaluation.plots.figures import PLOT_STYLE
from evaluation.report.comparison_report import comparison_page
from evaluation.report.run_report import run_page
from evaluation.report.svg import SVG_STYLE
from storage.saved_run import Run

NAME = "report.html"


def write_report(runs: Sequence[Run], out: Path) -> Path:
    """Write a page.

    Args:
        runs: one run, or several to be compared with the first.
        out: a folder, for `report.html` in it, or the path of a .html file.

    Returns:
        The file.
    """
    import matplotlib

    file = out if out.suffix.lower() in (".html", ".htm") else out / NAME
    with matplotlib.rc_context({**PLOT_STYLE, **SVG_STYLE}):
        text = run_page(runs[0]) if len(runs) == 1 else comparison_page(runs)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
    return file
