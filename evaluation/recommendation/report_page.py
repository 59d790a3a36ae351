"""One page about a ranking: models, picture, the images that the best get wrong, and what the first mixes up."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from constants import command
from constants.counting import counted
from data.images.image_dataset import ImageDataset
from evaluation.plots.figures import PLOT_STYLE
from evaluation.recommendation.answer import Answer, advice, go_on, legend_of, letter, percent
from evaluation.recommendation.candidates import short, size
from evaluation.recommendation.picture import ranking_figure
from evaluation.recommendation.ranking import FINE_TUNED, RankedModel, Ranking
from evaluation.report.markup import Markup, joined, table, tag
from evaluation.report.page import page
from evaluation.report.parts import tiles
from evaluation.report.svg import SVG_STYLE, inline_svg
from storage.files import write_atomically

_IMAGES = 24
_THUMB = 136  # pixels of a small picture's longer side
_LEAST_SHOWN = 96
_MOST_BARS = 60
_MOST_CLASSES = 15  # of a confusion matrix; of more the pairs that are mixed up most are listed
_MOST_PAIRS = 20
_BEST_FEW = 3


def write_page(answer: Answer, out: Path) -> None:
    """Write the page into one file, which needs nothing beside it.

    Args:
        answer: all that is told; it has a ranking.
        out: the HTML file to write; its folder is made if it is missing.

    Raises:
        OutputError: it can't be written.
    """
    import matplotlib

    with matplotlib.rc_context({**PLOT_STYLE, **SVG_STYLE}):
        text = _page(answer)
    write_atomically(out, text.encode("utf-8", "replace"), durable=False, setting="--report")


def _page(answer: Answer) -> str:
    ranking, dataset = answer.ranking, answer.dataset
    assert ranking is not None
    best = ranking.models[0]
    parts = {
        "models": ("Models", _models(answer, ranking)),
        "picture": ("Picture", _picture(answer, ranking)),
        "why": ("Why, and where the weights are", _why(answer, ranking)),
        "next": ("Go on", _next(answer, ranking)),
        "wrong": ("Images that the best get wrong", _wrong(dataset, ranking)),
        "confusion": (f"What {best.name} mixes up", _confusion(dataset, best)),
        "scores": ("Other scores", _scores(ranking)),
        "data": ("Data, and what was left out", _data(answer)),
    }
    title = f"Models for {dataset.name}"
    head = joined([tag("h1", title), tag("p", _sentence(advice(answer)), class_="verdict"), _tiles(answer, ranking)])
    if answer.remaining:
        told = f"Interrupted: {counted(len(answer.remaining), 'model')} not yet assessed."
        head = joined([head, tag("p", told, class_="warn")])
    made = f"Made from {answer.words.path} and {answer.zoo}"
    return page(title, head, parts, made, f"{command('recommend')} --report")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _tiles(answer: Answer, ranking: Ranking) -> Markup:
    best, dataset = ranking.models[0], answer.dataset
    what = "expected after fine-tuning" if ranking.accuracy_of == FINE_TUNED else "linear probe"
    interval = f"{best.standing.low:.3f} to {best.standing.high:.3f}"
    return tiles(
        [
            ("images", f"{len(dataset):,}", counted(len(dataset.class_names), "class")),
            ("models assessed", str(len(ranking.models)), f"of {answer.zoo_size}"),
            ("level with the first", str(ranking.level), "itself counted"),
            (f"best, {what}", f"{best.standing.expected:.3f}", interval),
            ("guessing", f"{ranking.guess:.3f}", "always the commonest class"),
        ]
    )


def _models(answer: Answer, ranking: Ranking) -> Markup:
    what = "expected" if ranking.accuracy_of == FINE_TUNED else "probe"
    rows = []
    for model in ranking.models:
        own, standing = model.assessment, model.standing
        rows.append(
            (
                model.name, model.rank, letter(standing.group), f"{standing.expected:.3f}",
                f"{standing.low:.3f} to {standing.high:.3f}", _whole(percent(standing.chance)),
                short(own.costs.parameters),
                "-" if own.costs.gflops is None else f"{own.costs.gflops:.3g}",
                "-" if own.costs.milliseconds is None else f"{own.costs.milliseconds:.3g}",
                "-" if own.costs.memory is None else _whole(size(own.costs.memory)),
                _whole(f"{own.input[0]} x {own.input[1]}"), _whole(own.licence or "unknown"),
            )
        )  # fmt: skip
    head = ("model", "rank", "group", what, "90 % interval", "best", "parameters", "GFLOPs", "ms/image", "memory",
            "input", "licence")  # fmt: skip
    level = [place for place, model in enumerate(ranking.models) if model.standing.group == 1]
    told = [tag("p", _sentence(line), class_="faint") for line in legend_of(ranking)]
    return joined(
        [table(head, rows, "Models, the best first; those that are level with the first stand out", level), *told]
    )


def _whole(text: str) -> Markup:
    return tag("span", text, class_="whole")


def _picture(answer: Answer, ranking: Ranking) -> Markup:
    figure = ranking_figure(ranking, answer.dataset.name, _MOST_BARS)
    label = f"A bar with an interval for each of {counted(len(ranking.models), 'model')}, the best on top"
    return tag("figure", tag("div", inline_svg(figure, "ranking", label)), class_="lines wide")


def _why(answer: Answer, ranking: Ranking) -> Markup:
    rows = [(model.name, model.why, model.assessment.location) for model in ranking.models]
    return table(("model", "why", "weights"), rows, "What speaks for each model, and where its weights are")


def _next(answer: Answer, ranking: Ranking) -> Markup:
    shown = ranking.models[: max(_BEST_FEW, min(ranking.level, 5))]
    return joined([tag("p", "Fine-tune:"), tag("pre", "\n".join(go_on(answer, model) for model in shown))])


def _wrong(dataset: ImageDataset, ranking: Ranking) -> Markup:
    """Show the images that are hardest for the best few models."""
    few = ranking.models[:_BEST_FEW]
    probes = [model.assessment.probe for model in few]
    misses = np.stack([(probe.predictions >= 0) & (probe.predictions != dataset.labels) for probe in probes]).sum(0)
    losses = np.stack([np.nan_to_num(probe.log_losses) for probe in probes]).mean(0)
    wrong = [int(image) for image in np.lexsort((-losses, -misses)) if misses[image] > 0]
    if not wrong:
        return tag("p", "There are none.")
    names = dataset.class_names
    figures = []
    for image in wrong[:_IMAGES]:
        said = [
            f"{model.rank}. {names[probe.predictions[image]]} ({percent(float(probe.confidence[image]))})"
            for model, probe in zip(few, probes, strict=True)
            if probe.predictions[image] >= 0
        ]
        lines = [tag("strong", names[dataset.labels[image]]), *(tag("div", text) for text in said)]
        figures.append(
            tag("figure", _thumbnail(dataset, image), tag("figcaption", *lines, tag("div", dataset.keys[image])))
        )
    told = (
        f"{counted(len(wrong), 'image')} of {ranking.scored:,} wrong by at least one of the first {len(few)}; the "
        f"hardest are shown: the class, and what each model's probe says instead."
    )
    return joined([tag("p", told), tag("div", *figures, class_="images")])


def _thumbnail(dataset: ImageDataset, index: int) -> Markup:
    image = dataset.image(index, at_least=_THUMB)
    image.thumbnail((_THUMB, _THUMB), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=82)
    data = base64.b64encode(stream.getvalue()).decode()
    shown = max(1.0, _LEAST_SHOWN / max(image.size))  # a tiny one is shown larger than it is
    return tag("img", src=f"data:image/jpeg;base64,{data}", alt=dataset.keys[index], width=round(shown * image.width),
               height=round(shown * image.height))  # fmt: skip


def _confusion(dataset: ImageDataset, model: RankedModel) -> Markup:
    probe, names = model.assessment.probe, dataset.class_names
    scored = probe.predictions >= 0
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (dataset.labels[scored], probe.predictions[scored]), 1)
    if len(names) <= _MOST_CLASSES:
        rows = [(names[row], *(int(count) if count else "-" for count in counts[row]),
                 percent(counts[row, row] / max(counts[row].sum(), 1))) for row in range(len(names))]  # fmt: skip
        return table(("class", *names, "right"), rows, "Rows: the class; columns: what the probe says")
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    pairs = [np.unravel_index(place, wrong.shape) for place in order]
    rows = [
        (names[row], names[column], int(wrong[row, column]), int(counts[row].sum()))
        for row, column in pairs
        if wrong[row, column]
    ]
    return table(("class", "taken for", "images", "of"), rows, "Pairs of classes that are mixed up most")


def _scores(ranking: Ranking) -> Markup:
    names = list(ranking.models[0].assessment.scores)
    rows = [
        (model.name, f"{model.assessment.probe.accuracy:.3f}", f"{np.nanmean(model.assessment.probe.log_losses):.3f}",
         *("-" if np.isnan(value) else f"{value:.4g}" for value in model.assessment.scores.values()))
        for model in ranking.models
    ]  # fmt: skip
    caption = "Scores that train nothing; higher is better, and none can be compared with another"
    return table(("model", "probe", "log-loss", *names), rows, caption)


def _data(answer: Answer) -> Markup:
    dataset = answer.dataset
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names)).tolist()
    rows = [(name, count) for name, count in zip(dataset.class_names, counts, strict=True)]
    parts: list[Markup] = [table(("class", "images"), rows, "Images of each class")]
    parts += [tag("p", _sentence(note)) for note in (*dataset.notes, *answer.notes)]
    if dataset.left_out:
        left = [(each.key, each.reason) for each in dataset.left_out]
        parts.append(table(("image", "why"), left, f"{counted(len(left), 'image')} left out"))
    out = [(each.name, f"{each.option}: {each.reason}") for each in answer.refused] + answer.failed
    if out:
        parts.append(table(("model", "why"), out, f"{counted(len(out), 'model')} left out"))
    return joined(parts)
