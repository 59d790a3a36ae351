"""Pictures of tokens that were trained to tell what networks are worth, beside those of the untrained encoder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.population_batches import centred
from evaluation.plots.figures import COLOURS, new_figure
from evaluation.plots.run_pictures import Picture

_KINDS = ("untrained", "trained")
_PREDICTIONS = (
    "Held-out networks, of tasks and initial states that were not trained on: what the run says of their accuracy "
    "against the measured one, both as logits less the mean of the task. Left the run as it was before training, right "
    "after it. On the line, a prediction is exact. R2: the share of the variance within tasks that is told."
)
_MAP = (
    "The tokens of the held-out networks in the plane of the first two principal components, each family's mean taken "
    "off; left before training, right after it. Colours: accuracy within the task, from worst (dark) to best (light). "
    "Where training has taught accuracy, colours change along a direction. The percentage: the share of the variance "
    "of the tokens that the plane shows."
)


def pictures(file: Path) -> Iterator[Picture]:
    """Draw the pictures of a run.

    Args:
        file: the run's tokens.npz, see `train.tokens.property_objective.PropertyObjective.report`.

    Yields:
        Predictions; the map.
    """
    with np.load(file) as stored:  # which unpickles nothing
        arrays = {name: stored[name] for name in stored.files}
    yield Picture("token_predictions", _PREDICTIONS, _draw_predictions(arrays))
    if len(arrays["test"]) > 2:
        yield Picture("token_map", _MAP, _draw_map(arrays))


def _draw_predictions(arrays: dict[str, np.ndarray]) -> Any:
    figure = new_figure(11.0, 5.2)
    truth, families = arrays["truth"], arrays["families"][arrays["test"]]
    names = list(dict.fromkeys(families.tolist()))
    low, high = float(truth.min()), float(truth.max())
    for axis, kind in zip(figure.subplots(1, 2, sharex=True, sharey=True), _KINDS, strict=True):
        predicted = centred(arrays[f"{kind}_head"][arrays["test"]], arrays["tasks"])
        axis.plot([low, high], [low, high], color="#999999", linewidth=1, linestyle="--")
        for number, name in enumerate(names):
            own = families == name
            colour = COLOURS[number % len(COLOURS)]
            axis.plot(predicted[own], truth[own], "o", color=colour, markersize=3.5, alpha=0.7, label=name)
        explained = 1 - ((truth - predicted) ** 2).sum() / max(float((truth**2).sum()), 1e-12)
        axis.set_title(f"{kind}: R2 {explained:.2f} on {len(truth)} networks", loc="left")
        axis.set_xlabel("predicted accuracy within the task, logit")
    figure.axes[0].set_ylabel("measured accuracy within the task, logit")
    figure.axes[1].legend(loc="lower right")
    return figure


def _draw_map(arrays: dict[str, np.ndarray]) -> Any:
    figure = new_figure(11.0, 5.2)
    test, truth = arrays["test"], arrays["truth"]
    families = arrays["families"][test]
    shade = truth.argsort().argsort() / max(1, len(truth) - 1)  # ranks: a few far out must not pale the others
    for axis, kind in zip(figure.subplots(1, 2), _KINDS, strict=True):
        tokens = arrays[f"{kind}_tokens"][test].astype(np.float64)
        for name in dict.fromkeys(families.tolist()):
            tokens[families == name] -= tokens[families == name].mean(0)
        left, sizes, _ = np.linalg.svd(tokens, full_matrices=False)
        places = left[:, :2] * sizes[:2]
        points = axis.scatter(places[:, 0], places[:, 1], c=shade, cmap="viridis", s=14)
        shown = (sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-12)
        axis.set_title(f"{kind} tokens: {shown:.0%} of their variance", loc="left")
        axis.set_xticks([])
        axis.set_yticks([])
    bar = figure.colorbar(points, ax=figure.axes, pad=0.01, ticks=[0, 1])
    bar.ax.set_yticklabels(["worst", "best"])
    bar.outline.set_visible(False)
    return figure
