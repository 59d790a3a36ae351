"""The benchmark of rankers: `python -m evaluation`. Splits, baselines, intervals, one table and one picture.

Each fold is a run of `train.py SimilarityTransformerTrainer` in a process of its own, which sees the fold's training
tasks and models and writes its scores of the test to rankings.json; this module starts the runs, reads the scores, and
compares.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from beautilog import logger

from constants import PROJECT_ROOT
from data.data_error import DataError
from data.ranking_world import FOLDS, SPLITS, RankingWorld, make_fold
from evaluation.ranking.baselines import baseline_scores, noise_ceiling
from evaluation.ranking.ranking_metrics import ranking_metrics
from evaluation.ranking.table_protocol import bootstrap_mean

SCHEMA_VERSION = 1
RANKERS = {"ranker": "off", "ranker, hybrid": "on"}
"""Rankers by name, with their setting of `hybrid`."""
CEILING = "ceiling of seed noise"
TRAINER = "SimilarityTransformerTrainer"
_LABELS = {
    "log_me": "LogME", "h_score": "H-score", "leep": "LEEP", "nce": "NCE", "n_leep": "N-LEEP",
    "nearest_centroid": "nearest centroid", "centroid_margin": "centroid margin", "linear_probe": "linear probe",
}  # fmt: skip
"""What baselines are called in tables and pictures."""


@dataclass(frozen=True)
class Job:
    """One run of the trainer.

    Attributes:
        split: a key of `SPLITS`.
        fold: number of the split's fold.
        ranker: a key of `RANKERS`.
    """

    split: str
    fold: int
    ranker: str

    @property
    def folder(self) -> str:
        """Name of the folder that holds its artifacts."""
        return f"{self.split}{self.fold}-{'hybrid' if RANKERS[self.ranker] == 'on' else 'alone'}"


def run_rankers(splits: Sequence[str], settings: Sequence[str], out: Path, workers: int) -> dict[Job, dict[str, Any]]:
    """Train a ranker for each fold of some splits, alone and hybrid.

    Args:
        splits: names of the splits, keys of `SPLITS`.
        settings: `key=value` for every run.
        out: folder of the runs; a fold whose scores are there already, by the same settings, is not run again.
        workers: processes at a time, each of one thread.

    Returns:
        The content of each run's rankings.json.

    Raises:
        DataError: a run failed; the text has its last lines.
    """
    jobs = [Job(split, fold, ranker) for split in splits for fold in range(FOLDS[split]) for ranker in RANKERS]
    started, done = time.monotonic(), 0
    results = {}
    with ThreadPoolExecutor(workers) as pool:
        for job, rankings in zip(jobs, pool.map(lambda job: _run(job, settings, out), jobs), strict=True):
            results[job] = rankings
            done += 1
            left = (time.monotonic() - started) / done * (len(jobs) - done)
            logger.info(
                f"split {job.split}, fold {job.fold}, {job.ranker}: done ({done}/{len(jobs)}, {left:.0f} s left)"
            )
    return results


def _run(job: Job, settings: Sequence[str], out: Path) -> dict[str, Any]:
    folder = out / "runs" / job.folder
    own = [f"split={job.split}", f"fold={job.fold}", f"hybrid={RANKERS[job.ranker]}", "plot_at_end=off", *settings]
    stamp = folder / "settings.json"
    if stamp.is_file() and json.loads(stamp.read_text()) == own and (found := _rankings(folder)):
        return found
    command = [sys.executable, str(PROJECT_ROOT / "train.py"), TRAINER, *own, f"artifacts_dir={folder.resolve()}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = _rankings(folder)
    if done.returncode or found is None:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise DataError(f"`{' '.join(command[1:])}` ended with exit code {done.returncode}:\n{tail}")
    stamp.write_text(json.dumps(own))
    return found


def _rankings(folder: Path) -> dict[str, Any] | None:
    files = sorted(folder.glob("models/*/runs/*/rankings.json"), key=lambda file: file.stat().st_mtime)
    return json.loads(files[-1].read_text()) if files else None


def compare(world: RankingWorld, rankings: dict[Job, dict[str, Any]]) -> dict[str, Any]:
    """Measure rankers and baselines on the same tasks and models.

    Args:
        world: the benchmark.
        rankings: content of rankings.json of each job, as `run_rankers` returns them.

    Returns:
        Plain data for a JSON file: for each split the tasks, and for each method the metrics of each task (means over
        the folds that it is in), their mean with a 95 % interval over tasks, and the paired difference of each ranker
        from each baseline with its interval.
    """
    content: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "splits": {}}
    for split in dict.fromkeys(job.split for job in rankings):
        rows: dict[str, dict[str, list[dict[str, float]]]] = {}  # method -> task -> a row a fold
        for job in [job for job in rankings if job.split == split]:
            fold = make_fold(world, split, job.fold)
            with_baselines = job.ranker == next(iter(RANKERS))  # once a fold
            for task in fold.test_tasks:
                name, truth = world.tasks[task].name, world.truth[task, list(fold.test_models)]
                scores = {job.ranker: np.array(rankings[job]["tasks"][name]["scores"])}
                if with_baselines:
                    scores |= baseline_scores(world, fold, task)
                    ceiling = {"weighted_kendall": noise_ceiling(world, fold, task)}
                    rows.setdefault(CEILING, {}).setdefault(name, []).append(ceiling)
                for method, own in scores.items():
                    metrics = ranking_metrics(own, truth, tolerance=float(world.tolerance[task]))
                    rows.setdefault(method, {}).setdefault(name, []).append(metrics)
        content["splits"][split] = _summarize(split, rows)
    return content


def _summarize(split: str, rows: dict[str, dict[str, list[dict[str, float]]]]) -> dict[str, Any]:
    tasks = list(next(iter(rows.values())))
    values = {
        method: {
            metric: np.array([np.mean([row[metric] for row in by_task[task]]) for task in tasks])
            for metric in by_task[tasks[0]][0]
        }
        for method, by_task in rows.items()
    }
    summary = {
        method: {metric: bootstrap_mean(numbers) for metric, numbers in own.items()} for method, own in values.items()
    }
    baselines = [method for method in values if method not in RANKERS and method != CEILING]
    differences = {
        ranker: {
            method: bootstrap_mean(values[ranker]["weighted_kendall"] - values[method]["weighted_kendall"])
            for method in baselines
        }
        for ranker in RANKERS
    }
    each = {method: own["weighted_kendall"].round(4).tolist() for method, own in values.items()}
    return {
        "what": SPLITS[split], "tasks": tasks, "weighted_kendall": each, "summary": summary, "differences": differences
    }  # fmt: skip


def table_lines(content: dict[str, Any]) -> list[str]:
    """Lay the comparison out as text."""
    lines = []
    for split, part in content["splits"].items():
        lines += [
            f"Split {split}: {part['what']}, {len(part['tasks'])} tasks",
            f"{'':28}  weighted Kendall [95 %]   NDCG@5  regret  recall@5   ranker minus it       hybrid minus it",
        ]
        order = sorted(part["summary"], key=lambda method: -part["summary"][method]["weighted_kendall"]["mean"])
        for method in order:
            lines.append(_line(method, part))
        lines.append("")
    lines += [
        "Means over tasks; intervals: bootstrap over tasks. Regret: percentage points that the first choice is below",
        "the best. recall@5: how often a best model (within the noise) is among the first five. Baselines that need a",
        "measured model are left out where none of the ranked models was measured.",
    ]
    return lines


def _line(method: str, part: dict[str, Any]) -> str:
    means = {metric: value["mean"] for metric, value in part["summary"][method].items()}
    line = f"{_LABELS.get(method, method):28}  {_interval(part['summary'][method]['weighted_kendall'])}"
    if "ndcg" not in means:
        return line
    line += f"   {means['ndcg']:6.3f}  {means['top1_regret']:6.2f}  {means['recall']:8.2f}"
    for differences in part["differences"].values():
        if method in differences:
            line += f"   {_interval(differences[method], sign='+')}"
    return line


def _interval(value: dict[str, float | None], sign: str = "") -> str:
    if value["low"] is None:
        return f"{value['mean']:{sign}.3f}"
    return f"{value['mean']:{sign}.3f} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"


def plot_comparison(content: dict[str, Any], path: Path) -> None:
    """Draw the weighted Kendall of every method with its interval, a panel a split."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from evaluation.plots.figures import PLOT_STYLE

    with matplotlib.rc_context(PLOT_STYLE):
        parts = content["splits"]
        figure = Figure(figsize=(4.6 * min(3, len(parts)), 4.4 * -(-len(parts) // 3)))
        FigureCanvasAgg(figure)
        axes = figure.subplots(-(-len(parts) // 3), min(3, len(parts)), squeeze=False).flatten()
        for axis, (split, part) in zip(axes, parts.items(), strict=False):
            _draw_split(axis, split, part)
        for axis in axes[len(parts) :]:
            axis.set_visible(False)
        figure.savefig(path)


def _draw_split(axis: Any, split: str, part: dict[str, Any]) -> None:
    methods = sorted(part["summary"], key=lambda method: part["summary"][method]["weighted_kendall"]["mean"])
    for place, method in enumerate(methods):
        value = part["summary"][method]["weighted_kendall"]
        colour = "#d1495b" if method in RANKERS else "#2e8b57" if method == CEILING else "#6b7b8c"
        if value["low"] is not None:
            axis.plot([value["low"], value["high"]], [place, place], color=colour, linewidth=2)
        axis.plot([value["mean"]], [place], "o", color=colour, markersize=5)
    axis.set_yticks(range(len(methods)), [_LABELS.get(method, method) for method in methods], fontsize=8)
    axis.axvline(0, color="#999999", linewidth=0.8)
    axis.set_title(f"{split}: {part['what']} ({len(part['tasks'])} tasks)", fontsize=10)
    axis.set_xlabel("weighted Kendall, mean and 95 % interval")
