"""Picture of a ranker's run: where it puts the models, against where they belong."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from constants.counting import counted
from evaluation.plots.figures import new_figure
from evaluation.plots.run_pictures import Picture
from evaluation.ranking.ranking_metrics import pearson

_BINS = 12  # of a histogram's side, at most
_MOST_TASKS = 40  # that a row each can be read of

_CAPTION = (
    "Test tasks. Left: each task is a row, its models stand in the order in which the ranker puts them, and the colour "
    "says where they belong: a good ranker's rows go from dark to light. The number is Kendall's tau. Right: how often "
    "a model that belongs at a rank is put at which one; a good ranker's counts lie on the diagonal."
)


def pictures(file: Path) -> Iterator[Picture]:
    """Draw the picture of a run.

    Args:
        file: the run's rankings.json: `models`, and by task's name `scores` and `accuracy` of each model.
    """
    tasks = json.loads(file.read_text(encoding="utf-8"))["tasks"]
    usable = {name: task for name, task in tasks.items() if len(task["scores"]) > 1}
    if usable:
        yield Picture("predicted_ranks", _CAPTION, _draw(usable))


def _draw(tasks: dict[str, dict[str, list[float]]]) -> Any:
    from scipy.stats import kendalltau, rankdata  # scipy's statistics take most of a second to import

    predicted = [rankdata(-np.array(task["scores"])) for task in tasks.values()]  # of each model, 1 is the best
    true = [rankdata(-np.array(task["accuracy"])) for task in tasks.values()]
    pairs = list(zip(predicted, true, strict=True))
    kendall = np.nan_to_num([kendalltau(*pair).statistic for pair in pairs])  # 0 where one says nothing
    spearman = np.array([pearson(*pair) for pair in pairs])  # of ranks
    shown = np.argsort(-kendall, kind="stable")
    if len(shown) > _MOST_TASKS:  # evenly from the best to the worst
        shown = shown[np.linspace(0, len(shown) - 1, _MOST_TASKS).astype(int)]
    figure = new_figure(12.0, max(5.0, 1.6 + 0.22 * len(shown)))
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    _draw_tasks(left, [list(tasks)[place] for place in shown], [pairs[place] for place in shown], kendall[shown])
    _draw_histogram(right, pairs)
    of = f" ({len(shown)} of {len(tasks)})" if len(shown) < len(tasks) else ""
    left.set_title(f"Test tasks{of}, by how well their models are ranked", fontsize=10, fontweight="normal", loc="left")
    figure.suptitle(
        f"Mean over {counted(len(tasks), 'test task')}: Kendall {kendall.mean():.3f}, Spearman {spearman.mean():.3f}",
        fontsize=12,
    )
    return figure


def _draw_tasks(axis: Any, names: list[str], pairs: list[tuple[np.ndarray, np.ndarray]], kendall: np.ndarray) -> None:
    most = max(len(true) for _, true in pairs)
    rows = np.full((len(pairs), most), math.nan)
    for row, (predicted, true) in zip(rows, pairs, strict=True):
        row[: len(true)] = true[np.argsort(predicted, kind="stable")]
    image = axis.imshow(rows, cmap="viridis", vmin=1, vmax=most, aspect="auto", interpolation="nearest",
                        extent=(0.5, most + 0.5, len(pairs) - 0.5, -0.5))  # fmt: skip
    labels = [f"{_short(name)}  {value:+.2f}" for name, value in zip(names, kendall, strict=True)]
    axis.set_yticks(range(len(pairs)), labels, fontsize=8)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("predicted rank (1 is the best)")
    axis.grid(visible=False)
    axis.figure.colorbar(image, ax=axis, label="true rank", pad=0.01, aspect=30).outline.set_visible(False)


def _draw_histogram(axis: Any, pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    predicted, true = (np.concatenate(column) for column in zip(*pairs, strict=True))
    most = float(max(predicted.max(), true.max()))
    edges = np.linspace(0.5, most + 0.5, min(_BINS, int(most)) + 1)
    counts, _, _ = np.histogram2d(true, predicted, bins=(edges, edges))
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axis.imshow(share, cmap="Blues", aspect="equal", interpolation="nearest", vmin=0,
                        extent=(edges[0], edges[-1], edges[-1], edges[0]))  # fmt: skip
    axis.plot(edges[[0, -1]], edges[[0, -1]], color="#d1495b", linewidth=1, linestyle="--")
    axis.set_title("All test tasks", fontsize=10, fontweight="normal", loc="left")
    axis.set_xlabel("predicted rank")
    axis.set_ylabel("true rank")
    axis.grid(visible=False)
    label = "share of the models of a true rank"
    axis.figure.colorbar(image, ax=axis, label=label, pad=0.02, shrink=0.8).outline.set_visible(False)


def _short(name: str) -> str:
    # A dollar sign would begin a formula.
    return (name if len(name) <= 28 else f"{name[:25]}...").replace("$", r"\$")
