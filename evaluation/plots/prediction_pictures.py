"""Draws what a model made of some samples: images, curves, or scores of classes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from evaluation.plots.figures import COLOURS, PLOT_STYLE, new_figure
from storage.files import write_atomically

_MOST_CLASSES = 1000  # a longer row of scores is no classification
_SHOWN = 3  # classes of a sample


def draw_predictions(
    inputs: torch.Tensor, outputs: torch.Tensor, classes: Sequence[int] | None, title: str, paths: Sequence[Path]
) -> None:
    """Draw samples beside what a model made of them.

    Args:
        inputs: what the model was given, (samples, ...), float, on the CPU.
        outputs: what it returned, (samples, ...), float, on the CPU.
        classes: the samples' own classes; None where they are not known.
        title: stands above the picture.
        paths: PNG files that are written, all alike.

    Raises:
        OutputError: one can't be written.
    """
    import matplotlib

    alike, count = inputs.shape == outputs.shape, len(inputs)
    scores = not alike and outputs.dim() == 2 and 2 <= outputs.shape[1] <= _MOST_CLASSES
    images = _image(inputs[0]) is not None
    columns = min(2 if alike and not images else 4, count)
    rows = math.ceil(count / columns)
    with matplotlib.rc_context(PLOT_STYLE):
        height = 2.6 if not alike else 2.0 if images else 2.4
        figure = new_figure(3.4 * columns, height * rows + 0.6)
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for number, axis in enumerate(axes):
            if number >= count:
                axis.set_visible(False)
                continue
            _draw_sample(axis, inputs[number], outputs[number] if alike else None)
            if scores:
                axis.set_title(_class_lines(outputs[number], None if classes is None else classes[number]), fontsize=9)
            elif not alike:
                axis.set_title(_number_line(outputs[number]), fontsize=9)
        figure.suptitle(title + ("" if not alike else ": input and output"), fontsize=11)
        for path in paths:
            write_atomically(path, lambda temporary: figure.savefig(temporary, format="png"), durable=False)


def _draw_sample(axis: Any, given: torch.Tensor, made: torch.Tensor | None) -> None:
    image = _image(given)
    if image is not None:
        low, high = float(image.min()), float(image.max())
        _show(axis if made is None else axis.inset_axes((0.0, 0.0, 0.48, 0.9)), image, low, high)
        if made is not None:  # by the input's black and white: a model that gives too little or too much looks so
            right = axis.inset_axes((0.5, 0.0, 0.48, 0.9))
            _show(right, _image(made), low, high)
            axis.set_title("input | output", fontsize=8, pad=2)
            axis.set_axis_off()
        return
    axis.plot(given.flatten().numpy(), color=COLOURS[0], linewidth=1.2, label="input")
    if made is not None:
        axis.plot(made.flatten().numpy(), color=COLOURS[1], linewidth=1.2, label="output")
        axis.legend(loc="best", fontsize=7)
    axis.set_xlabel("number of the value in the sample", fontsize=7)
    axis.tick_params(labelsize=7)


def _show(axis: Any, image: torch.Tensor | None, low: float, high: float) -> None:
    """Draw an image, black where it is `low` or less, white where it is `high` or more."""
    if image is not None:
        shown = ((image - low) / max(high - low, 1e-12)).clamp(0.0, 1.0)
        axis.imshow(shown.numpy(), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest", aspect="equal")
    axis.set_axis_off()


def _image(sample: torch.Tensor) -> torch.Tensor | None:
    """Return a sample as an image, (height, width) or (height, width, 3), in its own numbers; None where it is none."""
    if sample.dim() == 3 and sample.shape[0] in (1, 3) and min(sample.shape[1:]) >= 4:
        image = sample[0] if sample.shape[0] == 1 else sample.permute(1, 2, 0)
    elif sample.dim() == 2 and min(sample.shape) >= 4:
        image = sample
    else:
        return None
    return torch.nan_to_num(image)


def _class_lines(scores: torch.Tensor, own: int | None) -> str:
    """Say which classes a sample has by its scores, the most likely first, and which it is."""
    positive = bool((scores >= 0).all()) and math.isclose(float(scores.sum()), 1.0, abs_tol=1e-3)
    shares = scores if positive else scores.softmax(dim=0)
    best = shares.topk(min(_SHOWN, len(shares)))
    told = ", ".join(f"{int(index)}: {100 * float(share):.0f} %" for share, index in zip(*best, strict=True))
    if own is None:
        return f"class {told}"
    return f"class {told}\n{'right' if int(best.indices[0]) == own else 'wrong'}, it is {own}"


def _number_line(made: torch.Tensor) -> str:
    values = made.flatten()
    shown = ", ".join(f"{float(value):.3g}" for value in values[:4])
    return f"output {shown}{', ...' if len(values) > 4 else ''}"
