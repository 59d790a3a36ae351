"""The command line `python plot.py`."""

import argparse
import sys
import traceback
from pathlib import Path

from constants import ARTIFACTS_DIR
from evaluation.run_comparison import comparison_lines
from evaluation.runs import RunDamagedError, RunNotFoundError, find_run, load_run

OK, USAGE, DATA, FAILED = 0, 2, 3, 4

_EXAMPLES = """examples:
  python plot.py latest
  python plot.py ModelAutoEncoder
  python plot.py 20261121-093000 20261121-101500 --out comparison.png

exit codes: 0 done, 2 usage or no such run, 3 unreadable run, 4 the picture can't be written"""


def main(words: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        words: the arguments; None takes the process's.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python plot.py", description="Draw saved runs: losses, learning rate, every metric.", epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, a run id, a trainer's name, or latest")
    parser.add_argument("--out", type=Path, help="folder for the pictures, or one PNG; default: plots/ in the run")
    parser.add_argument("--artifacts", type=Path, default=ARTIFACTS_DIR, help="where runs are (default: artifacts/)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args(words)
    try:
        return _draw(arguments)
    except (RunNotFoundError, RunDamagedError, OSError) as error:
        if arguments.debug:
            traceback.print_exc()
        code = {RunNotFoundError: USAGE, RunDamagedError: DATA}.get(type(error), FAILED)
        sys.stderr.write(f"error: {error}\n")
        return code


def _draw(arguments: argparse.Namespace) -> int:
    folders = list(dict.fromkeys(find_run(text, arguments.artifacts) for text in arguments.runs))
    runs = [load_run(folder) for folder in folders]
    for other in runs[1:]:
        sys.stdout.write("\n".join(comparison_lines(runs[0], other)) + "\n\n")
    if not any(run.series for run in runs):
        raise RunDamagedError(f"nothing was measured in {', '.join(run.id for run in runs)}: no epoch was finished.")
    together = arguments.artifacts / "comparisons" / "_".join(run.id for run in runs)
    default = runs[0].path / "plots" if len(runs) == 1 else together

    from evaluation.run_plots import plot_runs

    for path in plot_runs(runs, arguments.out or default):
        sys.stdout.write(f"{path}\n")
    return OK
