"""`python -m evaluation`: the benchmark of rankers; with `--table`, rankers of a table of the user's own."""

import argparse
import json
import sys
from pathlib import Path

import constants
from config import ConfigError
from constants import command
from constants.argument_parser import BriefParser
from constants.commit import ShowVersion
from data.data_error import DataError
from evaluation.ranking.table_protocol import add_table_arguments, run_table
from evaluation.ranking.table_recommend_command import add_recommend_arguments, run_table_recommendation
from storage.log_lines import use_log_lines

_DESCRIPTION = """Compare rankers with baselines on tasks, domains and models that they have never seen.

Without --table: the shipped benchmark. Trains a ranker for every fold, prints one table, and writes protocol.json and
protocol.png. With --table: every dataset of a CSV of your own is left out once. With --table and --recommend: all
models of the table ranked for one dataset, by what you have measured on it, and which to measure next."""


def main(words: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        words: command-line arguments; None takes those of the process.

    Returns:
        The exit code: 0 done, 2 usage, 3 data.
    """
    use_log_lines()
    parser = BriefParser(
        prog=command("evaluate"), description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of SimilarityTransformerTrainer")
    parser.add_argument("--splits", default="A,B,C,D,E", help="which of A, B, C, D, E (default: all)")
    parser.add_argument(
        "--out", type=Path, default=constants.ARTIFACTS_DIR / "protocol", help="folder for runs, table and picture"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes at a time (default: 2)")
    parser.add_argument("--version", action=ShowVersion)
    add_table_arguments(parser)
    add_recommend_arguments(parser)
    arguments = parser.parse_intermixed_args(words)
    _refuse_what_does_not_go_together(parser, arguments)
    try:
        if arguments.recommend is not None or arguments.few_results:
            return run_table_recommendation(arguments)
        return run_table(arguments) if arguments.table else _run_benchmark(parser, arguments)
    except ConfigError as error:
        return _report(error, 2)
    except (DataError, OSError) as error:
        return _report(error, 3)


def _refuse_what_does_not_go_together(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if arguments.table and arguments.settings:
        parser.error(f"{arguments.settings[0]}: settings are of the shipped benchmark; --table has none")
    of_tables = ("recommend", "known", "top", "models", "scores", "distances", "metadata", "metric", "json")
    if not arguments.table and (given := [name for name in of_tables if getattr(arguments, name) is not None]):
        hint = "; the shipped benchmark writes protocol.json into --out" if "json" in given else ""
        parser.error(f"--{given[0]} needs --table{hint}")
    if arguments.few_results and not arguments.table:
        parser.error("--few-results needs --table")
    if arguments.few_results and arguments.recommend is not None:
        parser.error("--few-results tries every dataset, --recommend ranks for one: choose one of the two")
    if arguments.family is not None and not arguments.few_results:
        parser.error("--family needs --few-results")
    if arguments.recommend is None and (given := [name for name in ("known", "top") if getattr(arguments, name)]):
        parser.error(f"--{given[0]} needs --recommend DATASET, the dataset that models are ranked for")
    if arguments.top is not None and arguments.top < 1:
        parser.error(f"--top {arguments.top}: at least 1 is needed")


def _run_benchmark(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from data.image_encoder import load_encoder
    from data.ranking_world import SPLITS, load_world
    from evaluation.ranking.comparison import compare, plot_comparison, table_lines
    from evaluation.ranking.protocol import run_rankers

    splits = [split.strip().upper() for split in arguments.splits.split(",")]
    if unknown := [split for split in splits if split not in SPLITS]:
        parser.error(f"--splits: there is no split {unknown[0]!r}; allowed: {', '.join(SPLITS)}")
    if arguments.workers < 1:
        parser.error(f"--workers {arguments.workers}: at least 1 is needed")
    chosen = dict(setting.partition("=")[::2] for setting in arguments.settings)
    if taken := {"split", "fold", "hybrid", "artifacts_dir"} & chosen.keys():
        parser.error(f"{taken.pop()}=... is set by the benchmark itself")
    world = load_world(load_encoder(chosen.get("encoder", "data.image_encoder:GradientEncoder")))
    rankings = run_rankers(splits, arguments.settings, arguments.out, arguments.workers)
    content = compare(world, rankings) | {"settings": arguments.settings}
    (arguments.out / "protocol.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    plot_comparison(content, arguments.out / "protocol.png")
    sys.stdout.write("\n".join(table_lines(content)) + "\n")
    sys.stdout.write(f"\nwritten: {arguments.out / 'protocol.json'}, {arguments.out / 'protocol.png'}\n")
    return 0


def _report(error: Exception, code: int) -> int:
    sys.stderr.write(f"error: {error}\n")
    return code
