"""What tokens know of networks beside statistics, hyperparameters and probes: `python bench/model_tokens.py`.

One run: for populations of 100, 300, 1,000 and 3,000 networks an encoder is trained on the training part of a split by
task and initial state (`train.py ModelAutoEncoder objective=properties`), then every description is read by the same
regressions and held to the same test networks. Writes comparison.json into --out; a training that is there is not
done again. Some ten minutes of processor time, with the population of 3,000 another 16.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from data.network_population import Population, load_population  # noqa: E402
from data.population_batches import PopulationSplit, centred, split_population, task_numbers, within_task  # noqa: E402
from evaluation.ranking.token_comparison import (  # noqa: E402
    Reading,
    describe,
    joined_difference,
    read,
    readers,
    with_family,
)

DIFFERENCES = (
    ("token + statistics", "statistics"),
    ("token", "statistics"),
    ("token", "untrained token"),
    ("token + statistics", "untrained token + statistics"),
    ("token + probes", "probes"),
    ("token", "hyperparameters"),
)
Part = tuple[Population, PopulationSplit, dict[str, Reading]]


def main() -> int:
    """Run the comparison; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("settings", nargs="*", help="key=value for every training")
    parser.add_argument("--population", type=Path, default=ROOT / "artifacts/population")
    parser.add_argument("--sizes", default="100,300,1000,3000", help="numbers of networks")
    parser.add_argument("--splits", default="0", help="which of the five splits, such as 0,1,2,3,4")
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts/model_tokens")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for size in map(int, arguments.sizes.split(",")):
        parts = []
        for split in map(int, arguments.splits.split(",")):
            tokens = train(arguments, size, split)
            parts.append(compare(load_population(arguments.population).first(size), split, tokens))
        results[str(size)] = summary(parts)
        show(size, results[str(size)])
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "comparison.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


def train(arguments: argparse.Namespace, size: int, split: int) -> dict[str, np.ndarray]:
    """Train an encoder in a process of its own, where that is not done yet; return the arrays of its tokens.npz."""
    folder = arguments.out / "runs" / f"{size}-{split}"
    words = [
        "objective=properties", f"networks={size}", f"split={split}", f"population={arguments.population.resolve()}",
        "plot_at_end=off", *arguments.settings,
    ]  # fmt: skip
    stamp = folder / "settings.json"
    if not (stamp.is_file() and json.loads(stamp.read_text()) == words):
        command = [sys.executable, str(ROOT / "train.py"), "ModelAutoEncoder", *words, f"artifacts_dir={folder}"]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
        stamp.write_text(json.dumps(words))
    newest = sorted(folder.glob("models/*/runs/*/tokens.npz"), key=lambda file: file.stat().st_mtime)[-1]
    with np.load(newest) as stored:
        return {name: stored[name] for name in stored.files}


def compare(population: Population, turn: int, tokens: dict[str, np.ndarray]) -> Part:
    """Read every description of a population on one split."""
    split = split_population(population, turn)
    read_by = {name: readers(population, rows, split) for name, rows in describe(population).items()}
    for kind, name in (("trained", "token"), ("untrained", "untrained token")):
        read_by[name] = readers(population, with_family(population, tokens[f"{kind}_tokens"]), split)
        if kind == "trained":
            read_by[name]["head"] = tokens["trained_head"]
        for other in ("statistics", "probes"):
            read_by[f"{name} + {other}"] = read_by[name] | {f"{other} {own}": v for own, v in read_by[other].items()}
    return population, split, {name: read(population, each, split) for name, each in read_by.items()}


def summary(parts: list[Part]) -> dict[str, Any]:
    """Put the test parts of several splits together: R2 of each description, and differences with intervals."""
    content: dict[str, Any] = {"test_networks": sum(len(split.test) for _, split, _ in parts), "r2": {}, "less": {}}
    for name in parts[0][2]:
        wrong = whole = 0.0
        for population, split, readings in parts:
            truth = centred(within_task(population)[split.test], task_numbers(population)[split.test])
            wrong += float(((truth - readings[name].predicted) ** 2).sum())
            whole += float((truth**2).sum())
        content["r2"][name] = round(1 - wrong / whole, 4)
    content["alone"] = {name: reading.alone for name, reading in parts[0][2].items()}
    for first, second in DIFFERENCES:
        joined = joined_difference(parts, first, second)
        content["less"][f"{first} less {second}"] = {
            drawn: [round(number, 4) for number in three] for drawn, three in joined.items()
        }
    return content


def show(size: int, content: dict[str, Any]) -> None:
    """Print the comparison of one size."""
    print(f"\n{size} networks, {content['test_networks']} of them held out")
    for name, value in content["r2"].items():
        print(f"  {name:<32} R2 {value:6.3f}")
    for name, drawn in content["less"].items():
        told = [f"[{low:+.3f}, {high:+.3f}] over {what}" for what, (_, low, high) in drawn.items()]
        print(f"  {name:<56} {drawn['networks'][0]:+.3f}  {', '.join(told)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
