"""Rankers against baselines on the same tasks and models: means, intervals, one table, one picture."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from constants.counting import counted
from data.ranking_world import SPLITS, RankingWorld, make_fold
from evaluation.plots.figures import PLOT_STYLE, new_figure
from evaluation.plots.run_pictures import Picture
from evaluation.ranking.baselines import baseline_scores, noise_ceiling
from evaluation.ranking.ranking_metrics import ranking_metrics
from evaluation.ranking.table_protocol import bootstrap_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1
RANKERS = {"ranker": "off", "ranker, hybrid": "on"}
"""Rankers by name, with their setting of `hybrid`."""
CEILING = "ceiling of seed noise"
_LABELS = {
    "log_me": "LogME", "h_score": "H-score", "leep": "LEEP", "nce": "NCE", "n_leep": "N-LEEP",
    "nearest_centroid": "nearest centroid", "centroid_margin": "centroid margin", "linear_probe": "linear probe",
}  # fmt: skip
"""What baselines are called in tables and pictures."""
_CAPTION = (
    "The ranker (red) against baselines (grey) on test tasks that it has never seen: weighted Kendall of the ranking "
    "with the measured accuracies, mean and 95 % interval over tasks. 0 is chance; green is what a ranker would reach "
    "that knows how good each model is, since measurements are noisy."
)


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


def compare(world: RankingWorld, rankings: Mapping[Job, Mapping[str, Any]]) -> dict[str, Any]:
    """Measure rankers and baselines on the same tasks and models.

    Args:
        world: the benchmark.
        rankings: content of rankings.json of each job.

    Returns:
        Plain data for a JSON file: for each split the tasks, and for each method the metrics of each task (means over
        the folds that it is in), their mean with a 95 % interval over tasks, and the paired difference of each ranker
        from each baseline with its interval.
    """
    content: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "splits": {}}
    for split in dict.fromkeys(job.split for job in rankings):
        rows: dict[str, dict[str, list[dict[str, float]]]] = {}  # method -> task -> a row a fold
        compared: set[int] = set()  # folds whose baselines are there: they are the same for all rankers
        for job in [job for job in rankings if job.split == split]:
            fold = make_fold(world, split, job.fold)
            with_baselines = job.fold not in compared
            compared.add(job.fold)
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
        if ranker in values
    }
    each = {method: own["weighted_kendall"].round(4).tolist() for method, own in values.items()}
    return {
        "what": SPLITS[split], "tasks": tasks, "weighted_kendall": each, "summary": summary, "differences": differences
    }  # fmt: skip


def table_lines(content: dict[str, Any]) -> list[str]:
    """Lay the comparison out as text."""
    lines = []
    for split, part in content["splits"].items():
        columns = "".join(f"   {ranker.rpartition(', ')[2] + ' minus it':23}" for ranker in part["differences"])
        lines += [
            f"Split {split}: {part['what']}, {counted(len(part['tasks']), 'task')}",
            f"{'':28}  weighted Kendall [95 %]   NDCG@5  regret  recall@5{columns}".rstrip(),
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
    """Draw the weighted Kendall of every method with its interval, a panel a split.

    Args:
        content: what `compare` returned.
        path: the PNG to write.
    """
    import matplotlib

    with matplotlib.rc_context(PLOT_STYLE):
        _draw(content).savefig(path)


def pictures(file: Path) -> Iterator[Picture]:
    """Draw the picture of a run.

    Args:
        file: the run's comparison.json, what `compare` returned.
    """
    yield Picture("baselines", _CAPTION, _draw(json.loads(file.read_text(encoding="utf-8"))))


def _draw(content: dict[str, Any]) -> "Figure":
    parts = content["splits"]
    alone = len(parts) == 1
    figure = new_figure(7.4 if alone else 4.6 * min(3, len(parts)), 4.4 * -(-len(parts) // 3))
    axes = figure.subplots(-(-len(parts) // 3), min(3, len(parts)), squeeze=False).flatten()
    for axis, (split, part) in zip(axes, parts.items(), strict=False):
        _draw_split(axis, split, part)
    for axis in axes[len(parts) :]:
        axis.set_visible(False)
    return figure


def _draw_split(axis: "Axes", split: str, part: dict[str, Any]) -> None:
    methods = sorted(part["summary"], key=lambda method: part["summary"][method]["weighted_kendall"]["mean"])
    for place, method in enumerate(methods):
        value = part["summary"][method]["weighted_kendall"]
        colour = "#d1495b" if method in RANKERS else "#2e8b57" if method == CEILING else "#6b7b8c"
        if value["low"] is not None:
            axis.plot([value["low"], value["high"]], [place, place], color=colour, linewidth=2)
        axis.plot([value["mean"]], [place], "o", color=colour, markersize=5)
    axis.set_yticks(range(len(methods)), [_LABELS.get(method, method) for method in methods], fontsize=8)
    axis.axvline(0, color="#999999", linewidth=0.8)
    axis.set_title(f"{split}: {part['what']} ({counted(len(part['tasks']), 'task')})", fontsize=10)
    axis.set_xlabel("weighted Kendall, mean and 95 % interval")
