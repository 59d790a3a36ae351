"""The picture of a recommendation: a bar for each model, with its interval."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.plots.figures import PLOT_STYLE, new_figure

if TYPE_CHECKING:
    from evaluation.ranking.recommender import Recommendation

_BAR, _INTERVAL, _CHANCE, _MEASURED = "#8fbfe0", "#1d3f5e", "#d1495b", "#e08e0b"
_LONGEST_NAME = 40


def plot_recommendations(
    ranking: "Sequence[Recommendation]",
    dataset: str,
    classes: int,
    out: Path,
    measured: Mapping[str, float] | None = None,
) -> None:
    """Draw expected accuracies, the best model on top.

    Args:
        ranking: the models, the best first.
        dataset: name of the dataset.
        classes: number of the dataset's classes; guessing gets 1 of so many right.
        out: the PNG to write; its folder is made if it is missing.
        measured: accuracies by the models' names where fine-tuning was measured on this dataset, to be drawn beside.
    """
    import matplotlib

    with matplotlib.rc_context(PLOT_STYLE):
        figure = new_figure(8.4, 1.7 + 0.34 * len(ranking))
        axis = figure.subplots()
        places = list(range(len(ranking)))
        means = [model.expected_accuracy for model in ranking]
        below = [model.expected_accuracy - model.low for model in ranking]
        above = [model.high - model.expected_accuracy for model in ranking]
        axis.barh(places, means, height=0.7, color=_BAR, label="expected accuracy")
        axis.errorbar(means, places, xerr=[below, above], fmt="none", ecolor=_INTERVAL, elinewidth=1.4, capsize=3,
                      label="90 % interval")  # fmt: skip
        for place, mean in zip(places, means, strict=True):
            axis.text(0.012, place, f"{mean:.3f}", va="center", ha="left", fontsize=8, color=_INTERVAL)
        if measured:
            axis.plot([measured[model.name] for model in ranking], places, "D", color=_MEASURED, markersize=6,
                      linestyle="none", label="measured")  # fmt: skip
        axis.axvline(1 / classes, color=_CHANCE, linestyle="--", linewidth=1.2, label=f"guessing (1 of {classes})")
        # A figure space is as wide as a digit, so that names end below each other.
        digits = len(str(len(ranking)))
        labels = [f"{_shortened(model.name)}  {model.rank:\u2007>{digits}}" for model in ranking]
        axis.set_yticks(places, labels)
        axis.set_ylim(len(ranking) - 0.4, -0.6)
        axis.set_xlim(0, 1)
        axis.set_xlabel("accuracy after fine-tuning")
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
        axis.set_title(f"Models recommended for {_shortened(dataset)}", loc="left")
        figure.legend(loc="outside lower center", ncols=4)
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out)


def _shortened(name: str) -> str:
    # A dollar sign would begin a formula.
    short = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."
    return short.replace("$", r"\$")
