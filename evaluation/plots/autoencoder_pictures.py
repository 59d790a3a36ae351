"""Pictures of a ModelAutoEncoder run: weights before and after coding, and a map of the model tokens."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.plots.figures import COLOURS, new_figure
from evaluation.plots.run_pictures import Picture

_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")  # of families; more than these begin again
_ABOVE = 99.5  # percentile of a layer's weights at which the colours end, so that one weight does not pale the others

_NEIGHBOURS = 5  # of a network, that its family or domain is compared with

_RECONSTRUCTIONS = (
    "The largest layer of the first held-out network of each family: its weights, what is decoded from their code, and "
    "the difference, all in one scale of colours. A unit is a row, or a column where units outnumber inputs. The error "
    "is the norm of the difference, as a share of the norm of the weights; beside it that of the reference alone, "
    "which needs no code."
)
_MAP = (
    "The model tokens of the finished networks in two dimensions, by t-SNE: what is near there has like tokens; "
    "distances between groups say nothing. The shape of a mark is the family; hollow marks are held-out networks. "
    "On the right each family's mean is taken off, and colours are domains. The percentage: how many of a network's "
    "five nearest neighbours, by the whole token, are of its own family or domain."
)


def pictures(file: Path) -> Iterator[Picture]:
    """Draw the pictures of a run.

    Args:
        file: the run's autoencoder.npz. For all N networks: `tokens` (N, W), model tokens of the finished networks;
            `families` and `domains` (N,) text; `held_out` (N,) bool, the test part. For some of the test part:
            `examples` (K,), names of networks, and for each number k of them `layer_<k>`, a layer's name, and
            `weights_<k>`, `reconstruction_<k>`, `reference_<k>`, the layer's weights (units, inputs) as they are, after
            coding, and in the reference that the network is written as a difference from (zeros where there is none).

    Yields:
        The reconstructions; the map.
    """
    with np.load(file) as stored:  # which unpickles nothing
        arrays = {name: stored[name] for name in stored.files}
    if len(arrays["examples"]):
        yield Picture("reconstructions", _RECONSTRUCTIONS, _draw_reconstructions(arrays))
    if len(arrays["tokens"]) > 2:
        yield Picture("model_tokens", _MAP, _draw_map(arrays))


def _draw_reconstructions(arrays: dict[str, np.ndarray]) -> Any:
    count = len(arrays["examples"])
    figure = new_figure(11.0, 0.5 + 1.75 * count)
    axes = figure.subplots(count, 3, squeeze=False)
    for number, row in enumerate(axes):
        weights, back, reference = (
            _lying(arrays[f"{name}_{number}"]) for name in ("weights", "reconstruction", "reference")
        )
        top = float(np.percentile(np.abs(weights), _ABOVE)) or 1.0
        size = float(np.linalg.norm(weights)) or 1.0
        error = float(np.linalg.norm(weights - back)) / size
        alone = f", reference alone {np.linalg.norm(weights - reference) / size:.1%}" if reference.any() else ""
        titles = (
            f"{arrays['examples'][number]}, {arrays[f'layer_{number}']} {weights.shape[0]} x {weights.shape[1]}",
            "reconstruction",
            f"difference: error {error:.1%}{alone}",
        )
        for axis, matrix, title in zip(row, (weights, back, weights - back), titles, strict=True):
            image = axis.imshow(matrix, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto", interpolation="nearest")
            axis.set_title(title.replace("$", r"\$"), fontsize=9, fontweight="normal", loc="left")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(visible=False)
        bar = figure.colorbar(image, ax=list(row), pad=0.01, aspect=12)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
    return figure


def _lying(matrix: np.ndarray) -> np.ndarray:
    """Lay a matrix so that it is wider than high."""
    return matrix if matrix.shape[1] >= matrix.shape[0] else matrix.T


def _draw_map(arrays: dict[str, np.ndarray]) -> Any:
    from matplotlib import colormaps

    tokens, families, domains = (arrays[name] for name in ("tokens", "families", "domains"))
    kinds, themes = (list(dict.fromkeys(names.tolist())) for names in (families, domains))
    within = tokens.astype(np.float64)
    for kind in kinds:
        within[families == kind] -= within[families == kind].mean(0)
    figure = new_figure(11.0, 5.6)
    left, right = figure.subplots(1, 2)
    by_family = [COLOURS[kinds.index(name) % len(COLOURS)] for name in families]
    by_domain = [colormaps["tab20"](themes.index(name) % 20) for name in domains]
    shapes = [_SHAPES[kinds.index(name) % len(_SHAPES)] for name in families]
    for axis, points, colours, title, names in (
        (left, tokens, by_family, "By family", families),
        (right, within, by_domain, "Within families, by domain", domains),
    ):
        _scatter(axis, points, colours, shapes, arrays["held_out"])
        agree, chance = _agreement(points, names)
        axis.set_title(f"{title}: {agree:.0%} of neighbours agree (chance {chance:.0%})", fontsize=10, loc="left")
    handles = [
        _mark(_SHAPES[place % len(_SHAPES)], COLOURS[place % len(COLOURS)], kind) for place, kind in enumerate(kinds)
    ]
    left.legend(handles=[*handles, _mark("o", "#777777", "held out", hollow=True)], loc="upper center",
                bbox_to_anchor=(0.5, -0.02), ncols=min(4, len(handles) + 1), handlelength=1.2)  # fmt: skip
    handles = [_mark("o", colormaps["tab20"](place % 20), theme) for place, theme in enumerate(themes)]
    right.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=5, handlelength=1.2)
    return figure


def _scatter(axis: Any, points: np.ndarray, colours: Sequence[Any], shapes: Sequence[str], held: np.ndarray) -> None:
    """Draw rows (N, W) where t-SNE puts them.

    Two principal components would say less: on the zoo's tokens 60 % of neighbours are of one family in their plane,
    90 % in t-SNE's and in all 512 numbers.
    """
    from sklearn.manifold import TSNE  # scikit-learn takes a second to import

    perplexity = min(20.0, (len(points) - 1) / 3)
    places = TSNE(2, init="pca", perplexity=perplexity, random_state=0).fit_transform(points.astype(np.float64))
    for place, colour, shape, hollow in zip(places, colours, shapes, held, strict=True):
        axis.plot(*place, shape, color=colour, markersize=6, markerfacecolor="none" if hollow else colour,
                  markeredgewidth=1.3, alpha=0.85)  # fmt: skip
    axis.set_xticks([])
    axis.set_yticks([])


def _agreement(points: np.ndarray, names: np.ndarray) -> tuple[float, float]:
    """Return which share of the nearest neighbours has the same name, and which of all others does."""
    from sklearn.neighbors import NearestNeighbors

    count = min(_NEIGHBOURS, len(points) - 1)
    nearest = NearestNeighbors(n_neighbors=count).fit(points).kneighbors(return_distance=False)  # not the point itself
    same = names[:, None] == names
    return float((names[nearest] == names[:, None]).mean()), float((same.sum() - len(names)) / (same.size - len(names)))


def _mark(shape: str, colour: Any, label: str, hollow: bool = False) -> Any:
    from matplotlib.lines import Line2D

    face = "none" if hollow else colour
    return Line2D([], [], linestyle="none", marker=shape, color=colour, markerfacecolor=face, label=label)
