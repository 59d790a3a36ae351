"""The picture of a ranking: a bar for each model, its interval, and the groups that can't be told apart."""

from pathlib import Path
from typing import Any

from evaluation.plots.figures import PLOT_STYLE, new_figure
from evaluation.recommendation.answer import letter
from evaluation.recommendation.candidates import short
from evaluation.recommendation.ranking import FINE_TUNED, Ranking
from storage.files import write_atomically

_BARS = ("#4c94c9", "#a3b3bf")
"""Of the first group, and of all others."""
_CHANCE, _PROBE = "#d1495b", "#e08e0b"
_LONGEST_NAME = 44
_MANY = 25  # models from which on bars are thinner


def draw_ranking(ranking: Ranking, dataset: str, out: Path, top: int) -> None:
    """Draw models into a PNG, the best on top.

    Args:
        ranking: the models.
        dataset: name of the dataset.
        out: the PNG to write; its folder is made if it is missing.
        top: how many models are drawn.

    Raises:
        OutputError: it can't be written.
    """
    import matplotlib

    with matplotlib.rc_context(PLOT_STYLE):
        figure = ranking_figure(ranking, dataset, top)
        write_atomically(out, lambda path: figure.savefig(path, format="png"), durable=False, setting="--out")


def ranking_figure(ranking: Ranking, dataset: str, top: int) -> Any:
    """Make the figure; the style of plots is to be in force.

    Args:
        ranking: the models.
        dataset: name of the dataset.
        top: how many models are drawn.
    """
    import matplotlib

    ink = matplotlib.rcParams["text.color"]  # which a page replaces by its own
    models = ranking.models[:top]
    step, small = (0.34, 9) if len(models) <= _MANY else (0.235, 7.5)
    figure = new_figure(9.4, 1.75 + step * len(models))
    axis = figure.subplots()
    places = list(range(len(models)))
    expected = [model.standing.expected for model in models]
    spans = [
        [model.standing.expected - model.standing.low for model in models],
        [model.standing.high - model.standing.expected for model in models],
    ]
    lowest = min([model.standing.low for model in models] + [model.probe.expected for model in models])
    floor = 0.0 if lowest < 0.5 else max(0.0, round(lowest - 0.55 * (1 - lowest), 2))
    colours = [_BARS[model.standing.group > 1] for model in models]
    axis.barh(places, [value - floor for value in expected], left=floor, height=0.72, color=colours)
    what = "expected accuracy" if ranking.accuracy_of == FINE_TUNED else "accuracy of the linear probe"
    axis.errorbar(expected, places, xerr=spans, fmt="o", markersize=3, color=ink, elinewidth=1.4, capsize=2.5,
                  label=f"{what}, 90 % interval")  # fmt: skip
    if ranking.accuracy_of == FINE_TUNED:
        axis.plot([model.probe.expected for model in models], places, "d", color=_PROBE, markersize=5,
                  linestyle="none", label="accuracy of the linear probe")  # fmt: skip
    if floor == 0.0:
        axis.axvline(ranking.guess, color=_CHANCE, linestyle="--", linewidth=1.2, label="always the commonest class")
    for place, model in enumerate(models):
        axis.text(1.012, place, _facts(model), transform=axis.get_yaxis_transform(), va="center", fontsize=small,
                  color=ink, alpha=0.75)  # fmt: skip
        if place and model.standing.group != models[place - 1].standing.group:
            axis.axhline(place - 0.5, color="#777777", linewidth=0.9, linestyle=(0, (4, 3)))
    digits = len(str(len(models)))
    # A figure space is as wide as a digit, so that names end below each other.
    labels = [
        f"{_shortened(model.name)}   {letter(model.standing.group)} {model.rank:\u2007>{digits}}" for model in models
    ]
    axis.set_yticks(places, labels, fontsize=small)
    axis.set_ylim(len(models) - 0.4, -0.6)
    axis.set_xlim(floor, max(1.0, max(model.standing.high for model in models)))
    axis.set_xlabel(f"{what} (the axis begins at {floor:g})" if floor else what)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
    level = ranking.level
    told = "no two of them can be told apart" if level == len(ranking.models) > 1 else (
        f"the first {level} can't be told apart" if level > 1 else "the first is ahead of all others")  # fmt: skip
    axis.set_title(f"Models for {_shortened(dataset)}: {told}", loc="left")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _facts(model: Any) -> str:
    costs = model.assessment.costs
    parts = [short(costs.parameters)]
    if costs.gflops is not None:
        parts.append(f"{costs.gflops:.3g} GF")
    return ", ".join(parts)


def _shortened(name: str) -> str:
    # A dollar sign would begin a formula.
    half = _LONGEST_NAME // 2  # names of models differ at their ends
    text = name if len(name) <= _LONGEST_NAME else f"{name[:half]}...{name[3 - half :]}"
    return text.replace("$", r"\$")
