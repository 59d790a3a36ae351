"""Rank the models of public tables, each dataset left out once: `python bench/rank_tables.py [FOLDER] [--json OUT]`.

With `--few-results`, what a few measurements are worth on each table instead.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from data.data_error import DataError  # noqa: E402
from data.performance_table import read_performance_table  # noqa: E402
from evaluation.ranking.few_measurements import few_results_lines, try_few_results  # noqa: E402
from evaluation.ranking.table_protocol import RANKER, STATIC, evaluate_table, results_json, summarize  # noqa: E402

_PARTS = {"models": "_models", "scores": "_scores", "distances": "_dataset_distances"}


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT.parent / "shared" / "benchmarks")
    parser.add_argument("--only", help="names of tables that hold this text")
    parser.add_argument("--few-results", action="store_true", help="regret after 1, 3 and 5 measurements")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    files = sorted(arguments.folder.glob("*.csv"))
    if not files:
        sys.stderr.write(f"there are no tables (*.csv) in {arguments.folder}; name their folder.\n")
        return 2
    apart = (*_PARTS.values(), "_datasets")
    tables = [file for file in files if not file.stem.endswith(apart) and (arguments.only or "") in file.stem]
    if arguments.few_results:
        return _few_results(tables)
    print(
        "Mean over datasets, each left out once; where there are scores, over the datasets that have them.\n"
        f"Weighted Kendall and Pearson; difference: {RANKER} - {STATIC}, 95 % bootstrap interval over datasets.\n\n"
        f"{'table':38} {'datasets':>8}  {'static':>11}  {'best score':>11}  {'ranker':>11}  "
        f"{'difference in weighted Kendall':>31}  {'in Pearson':>23}  seconds"
    )
    found = {}
    for file in tables:
        others = {kind: file.with_name(file.stem + end + ".csv") for kind, end in _PARTS.items()}
        try:
            table = read_performance_table(file, **{kind: path for kind, path in others.items() if path.exists()})
        except DataError as error:
            print(f"{file.stem:38} {error}")
            continue
        results = evaluate_table(table)
        found[file.stem] = results_json(results)
        print(_line(file.stem, summarize(results), results.seconds), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def _few_results(files: list[Path]) -> int:
    for file in files:
        table = read_performance_table(file)
        print("\n".join(few_results_lines(list(try_few_results(table)), table)), end="\n\n", flush=True)
    return 0


def _line(name: str, summaries: dict, seconds: float) -> str:
    summary = summaries.get("scored", summaries["all"])
    means = summary["means"]
    scores = {method: row for method, row in means.items() if method not in (STATIC, RANKER)}
    # The best score is chosen by the result itself: kind to the scores.
    best = max(scores, key=lambda method: scores[method]["weighted_kendall"], default=None)

    def pair(method: str | None) -> str:
        return f"{means[method]['weighted_kendall']:.3f} {means[method]['pearson']:.3f}" if method else "-"

    def difference(metric: str) -> str:
        ends = summary["differences"][metric]
        interval = "" if ends["low"] is None else f" [{ends['low']:+.3f}, {ends['high']:+.3f}]"
        return f"{ends['mean']:+.3f}{interval}"

    return (
        f"{name:38} {len(summary['datasets']):>8}  {pair(STATIC):>11}  {pair(best):>11}  {pair(RANKER):>11}  "
        f"{difference('weighted_kendall'):>31}  {difference('pearson'):>23}  {seconds:7.1f}"
        + (f"  best score: {best}" if best else "")
    )


if __name__ == "__main__":
    sys.exit(main())
