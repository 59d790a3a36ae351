"""The command line `python plot.py`: pictures, a table, and comparisons of saved runs."""

import argparse
import os
import sys
import traceback
from pathlib import Path

from constants import ARTIFACTS_DIR, command
from constants.argument_parser import BriefParser
from constants.commit import ShowVersion
from evaluation.run_listing import list_command
from storage.run_comparison import comparison_lines
from storage.saved_run import RunDamagedError, RunNotFoundError, find_run, load_run
from storage.seed_groups import SeedGroup, find_group, load_group, table_lines
from storage.sweeps import load_sweep, sweep_lines

OK, USAGE, DATA, FAILED = 0, 2, 3, 4

_EXAMPLES = """examples:
  python plot.py latest
  python plot.py ModelAutoEncoder
  python plot.py 20261121-093000 20261121-101500 --out comparison.png
  python plot.py latest --report
  python plot.py --sweep artifacts/sweeps/ModelAutoEncoder/sweep
  python plot.py seeds-latest
  python plot.py --runs
  python plot.py --runs ModelAutoEncoder --json
  python plot.py --runs SimilarityTransformer --best val_weighted_kendall

exit codes: 0 done, 2 usage or no such run, 3 unreadable run, 4 the picture can't be written"""


def main(words: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        words: command-line arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    arguments = _parse(words)
    try:
        code = list_command(arguments) if arguments.runs else _sweep(arguments) if arguments.sweep else _draw(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of the same at its end
        return OK
    except (RunNotFoundError, RunDamagedError, OSError) as error:
        if arguments.debug:
            traceback.print_exc()
        code = {RunNotFoundError: USAGE, RunDamagedError: DATA}.get(type(error), FAILED)
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{error.filename}: {error.strerror}. --out chooses another place for the pictures."
        sys.stderr.write(f"error: {text}\n")
        return code


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = BriefParser(
        prog=command("plot"), epilog=_EXAMPLES.replace("python plot.py", command("plot")),
        description="Draw saved runs: losses, learning rate, every metric; of several, say what differs. Or list them.",
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument(
        "run", nargs="*", metavar="RUN",
        help="a run folder, a run id, the name that a run was given, a trainer's name, or latest; several are compared "
        "with the first; or a group of seeds: its folder, its id, or seeds-latest",
    )  # fmt: skip
    parser.add_argument("--report", action="store_true", help="write one HTML page instead: report.html in the run")
    parser.add_argument(
        "--more", action="store_true", help="draw the logarithmic loss, its rolling mean and what is constant too"
    )
    parser.add_argument("--runs", action="store_true", help="list all runs, or those of the trainers or names given")
    parser.add_argument(
        "--best", nargs="?", const="", metavar="METRIC",
        help="with --runs: the best first, by a metric such as val_accuracy, or by what each run monitors; METRIC:min "
        "and METRIC:max say the direction",
    )  # fmt: skip
    parser.add_argument(
        "--unfold", action="store_true", help="with --runs: each run of a group of seeds or a sweep in its own line"
    )
    parser.add_argument("--sweep", type=Path, metavar="FOLDER", help="show the table of a sweep and draw its picture")
    parser.add_argument("--json", action="store_true", help="with --runs: as a JSON list")
    parser.add_argument("--out", type=Path, help="folder for the pictures, or one PNG (with --report: one .html)")
    parser.add_argument("--artifacts", type=Path, default=ARTIFACTS_DIR, help="where runs are (default: artifacts/)")
    parser.add_argument("--version", action=ShowVersion)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_intermixed_args(words)
    if not arguments.runs and not arguments.run and not arguments.sweep:
        parser.error("the following arguments are required: RUN (or --runs, which lists them)")
    if arguments.sweep and (arguments.runs or arguments.run):
        parser.error("--sweep goes alone: it draws the trials of a sweep, no runs")
    if arguments.json and not arguments.runs:
        parser.error("--json needs --runs")
    if not arguments.runs and (arguments.best is not None or arguments.unfold):
        parser.error(f"{'--unfold' if arguments.unfold else '--best'} needs --runs")
    if arguments.report and arguments.runs:
        parser.error("--report and --runs don't go together: use one at a time")
    if arguments.report and arguments.sweep:
        parser.error("--report and --sweep don't go together: a page is about runs")
    if arguments.report and arguments.out and arguments.out.suffix.lower() == ".png":
        parser.error("--report writes a page: --out takes a folder, or a name that ends in .html")
    if arguments.out and arguments.runs:
        parser.error("--runs draws nothing, so --out has no meaning with it")
    return arguments


def _sweep(arguments: argparse.Namespace) -> int:
    sweep = load_sweep(arguments.sweep)
    lines = sweep_lines(sweep)
    if any(trial.value is not None for trial in sweep.trials):
        from evaluation.plots.sweep_plot import plot_sweep

        lines += ["", str(plot_sweep(sweep, arguments.out))]
    sys.stdout.write("\n".join(lines) + "\n")
    return OK


def _draw(arguments: argparse.Namespace) -> int:
    groups = [group for text in arguments.run if (group := find_group(text, arguments.artifacts))]
    if groups and len(arguments.run) > 1:
        raise RunNotFoundError("a group of seeds is drawn alone: give it without further runs or groups")
    if groups and arguments.report:
        raise RunNotFoundError("--report is about runs: give those of the group; without it the group is drawn")
    if groups:
        return _draw_group(load_group(groups[0]), arguments)
    folders = list(dict.fromkeys(find_run(text, arguments.artifacts) for text in arguments.run))
    runs = [load_run(folder) for folder in folders]
    together = arguments.artifacts / "comparisons" / "_".join(run.id for run in runs)
    if arguments.report:
        from evaluation.report import write_report  # matplotlib takes a second to import

        path = write_report(runs, arguments.out or (runs[0].path if len(runs) == 1 else together))
        sys.stdout.write(f"{path}\n")
        return OK
    if len(runs) > 1:
        sys.stdout.write("\n".join(comparison_lines(runs)) + "\n\n")
    if not any(run.series for run in runs):
        raise RunDamagedError(f"nothing was measured in {', '.join(run.id for run in runs)}: no epoch was finished.")
    default = runs[0].path / "plots" if len(runs) == 1 else together

    from evaluation.plots.run_plots import plot_runs

    for path in plot_runs(runs, arguments.out or default, more=arguments.more):
        sys.stdout.write(f"{path}\n")
    return OK


def _draw_group(group: SeedGroup, arguments: argparse.Namespace) -> int:
    sys.stdout.write("\n".join(table_lines(group)) + "\n")
    if not group.counted:
        raise RunDamagedError(f"there is nothing to draw: no run of {group.path.name} came to its end.")

    from evaluation.plots.seed_plots import plot_group

    for path in plot_group(group, arguments.out or group.path / "plots"):
        sys.stdout.write(f"{path}\n")
    return OK
