"""Pictures of an ImageClassifier run: which classes are taken for which, and the images with the highest loss."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.plots.figures import new_figure
from evaluation.plots.run_pictures import Picture

_MOST_CLASSES = 30  # of the confusion matrix; of more, those that are confused most
_MOST_NUMBERS = 16  # classes up to which each cell has its number
_NAME = 18  # characters of a name beside an axis

_CONFUSION = (
    "Validation images by the class they are in (row) and the class that the best weights take them for (column). The "
    "colour is the share of the row. What is off the diagonal is wrong."
)
_WORST = (
    "The validation images with the highest loss, the worst first: what they were taken for and how surely, and the "
    "class that they are in. Wrong labels, and images that show something else, are mostly among them."
)


def pictures(file: Path) -> Iterator[Picture]:
    """Draw the pictures of a run.

    Args:
        file: the run's image_review.npz. `class_names` (K,) text; `counts` (K, K), images by true class (row) and
            predicted class (column); of the worst images `keys`, `labels`, `predicted`, `confidences`, `losses` (n,)
            and `thumbnails` (n, H, W, 3) uint8.

    Yields:
        The confusion matrix; the worst images, if there are any.
    """
    with np.load(file) as stored:  # which unpickles nothing
        arrays = {name: stored[name] for name in stored.files}
    yield Picture("confusion_matrix", _CONFUSION, _draw_confusion(arrays["counts"], arrays["class_names"]))
    if len(arrays["keys"]):
        yield Picture("worst_images", _WORST, _draw_worst(arrays))


def _short(name: object) -> str:
    text = str(name).replace("$", r"\$")
    return text if len(text) <= _NAME else f"{text[: _NAME - 1]}…"


def _draw_confusion(counts: np.ndarray, names: np.ndarray) -> Any:
    title = f"{int(np.trace(counts)):,} of {int(counts.sum()):,} right"
    if len(names) > _MOST_CLASSES:
        wrong = counts.sum(0) + counts.sum(1) - 2 * np.diag(counts)
        shown = np.sort(np.argsort(-wrong, kind="stable")[:_MOST_CLASSES])
        title += f"; the {_MOST_CLASSES} of {len(names):,} classes that are confused most"
        counts, names = counts[np.ix_(shown, shown)], names[shown]
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 2.6 + 0.3 * max(len(names), 6)
    figure = new_figure(side, side - 0.4)
    axis = figure.subplots()
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(names)), [_short(name) for name in names], rotation=90, fontsize=8)
    axis.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=8)
    axis.set_xlabel("taken for")
    axis.set_ylabel("class")
    axis.set_title(title, loc="left")
    axis.grid(visible=False)
    if len(names) <= _MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if share[row, column] > 0.6 else "black"
                axis.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8, color=colour)
    bar = figure.colorbar(image, ax=axis, pad=0.02, shrink=0.8)
    bar.outline.set_visible(False)
    bar.set_label("share of the class")
    return figure


def _draw_worst(arrays: dict[str, np.ndarray]) -> Any:
    names, across = arrays["class_names"], 6
    count = len(arrays["keys"])
    rows = -(-count // across)
    figure = new_figure(11.0, 0.3 + 2.35 * rows)
    axes = figure.subplots(rows, across, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for number, axis in enumerate(axes[:count]):
        label, predicted = names[arrays["labels"][number]], names[arrays["predicted"][number]]
        right = arrays["labels"][number] == arrays["predicted"][number]
        axis.imshow(arrays["thumbnails"][number])
        said = f"{_short(predicted)} {arrays['confidences'][number]:.0%}"
        axis.set_title(
            f"{said}, right" if right else f"{said}\nis {_short(label)}", fontsize=8, loc="left",
            fontweight="normal", color="#2e8b57" if right else "#b0303f",
        )  # fmt: skip
        key = str(arrays["keys"][number]).replace("$", r"\$")
        axis.text(0, -0.03, key if len(key) <= 26 else f"…{key[-25:]}", transform=axis.transAxes, fontsize=6, va="top")
    return figure
