"""One HTML page about a run, or about several: everything in one file, no script, nothing from elsewhere."""

from evaluation.report.write import write_report

__all__ = ["write_report"]
