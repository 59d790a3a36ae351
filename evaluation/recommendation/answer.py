"""The answer in words, and as JSON."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from constants import command
from constants.counting import counted
from data.images.image_dataset import ImageDataset
from evaluation.recommendation.candidates import Refused, short, size
from evaluation.recommendation.fine_tuning import DatasetWords, FineTuning
from evaluation.recommendation.ranking import FINE_TUNED, PROBE, RankedModel, Ranking
from storage.text_table import aligned

SCHEMA_VERSION = 1
_SAME_REASON = 48  # characters by which reasons are alike
_MOST_LEFT_OUT = 5  # broken images, and models, of which the reason is told


@dataclass
class Answer:
    """All that is told.

    Attributes:
        dataset: the images.
        words: how they were named.
        zoo: the manifest.
        zoo_size: number of models that it lists.
        ranking: the models; None where not one could be assessed yet.
        refused: models over a limit.
        failed: name and reason of each model that could not be loaded or run.
        remaining: models that were not come to.
        notes: further sentences.
        top: how many models are shown.
        fine_tuning: what fine-tuning of the first ones found; None where it wasn't asked for.
        files: picture and page that were written.
    """

    dataset: ImageDataset
    words: DatasetWords
    zoo: Path
    zoo_size: int
    ranking: Ranking | None
    refused: list[Refused] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    top: int = 10
    fine_tuning: FineTuning | None = None
    files: dict[str, str] = field(default_factory=dict)


def go_on(answer: Answer, model: RankedModel) -> str:
    """Return the command that fine-tunes a model."""
    entry, words = model.assessment.entry, answer.words
    settings = [f"data={words.path}", f"model={entry.name}", f"zoo={answer.zoo}"]
    if entry.source != "module" and entry.name == entry.reference:
        settings = settings[:2]
    settings += [f"{name}={value}" for name, value in (("labels", words.labels), ("images", words.images)) if value]
    return f"{command('train')} ImageClassifier {' '.join(shlex.quote(each) for each in settings)}"


def advice(answer: Answer) -> str:
    """Say what to do with a ranking, in a sentence."""
    ranking = answer.ranking
    assert ranking is not None
    level, first = ranking.level, ranking.models[0]
    if len(ranking.models) == 1:
        return f"{first.name} is the only one that was assessed: there is nothing to choose between."
    if level == 1:
        return f"{first.name} is ahead of all others by more than chance allows: fine-tune it."
    if level == len(ranking.models):
        what = "all" if level > 2 else "both"
        return f"{what} {level} are level: these images can't tell them apart. Fine-tune the cheapest, or several."
    return f"the first {level} are level: fine-tune these, or the cheapest of them."


def text_of(answer: Answer) -> str:
    """Compose what people read."""
    lines = [_headline(answer), *_left_out_lines(answer), ""]
    ranking = answer.ranking
    if ranking is not None:
        lines += _table(ranking, answer.top)
        lines += ["", advice(answer), "", "why:"]
        shown = ranking.models[: min(answer.top, max(3, min(ranking.level, 5)))]
        lines += [f"  {model.rank}. {model.name}: {model.why}" for model in shown]
        lines += ["weights:", *(f"  {model.rank}. {model.assessment.location}" for model in shown)]
        lines += ["go on:", *(f"  {go_on(answer, model)}" for model in shown[:3]), ""]
        lines += legend_of(ranking)
    lines += [f"note: {note}" for note in answer.notes]
    lines += [f"wrote {path}" for path in answer.files.values()]
    return "\n".join(lines)


def _headline(answer: Answer) -> str:
    dataset = answer.dataset
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names)).tolist()
    of_each = str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    names = list(dataset.class_names)
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return (
        f"{answer.words.path}: {counted(len(dataset), 'image')}, {counted(len(names), 'class')} "
        f"({of_each} of each): {shown}"
    )


def _left_out_lines(answer: Answer) -> list[str]:
    dataset, lines = answer.dataset, []
    if dataset.left_out:
        lines.append(f"left out: {counted(len(dataset.left_out), 'image')} that can't be used")
        lines += [f"  {each.key}: {each.reason}" for each in dataset.left_out[:_MOST_LEFT_OUT]]
        if len(dataset.left_out) > _MOST_LEFT_OUT:
            lines.append(f"  and {len(dataset.left_out) - _MOST_LEFT_OUT:,} more")
    lines += [f"note: {note}" for note in dataset.notes]
    ranked = 0 if answer.ranking is None else len(answer.ranking.models)
    lines.append(f"{answer.zoo}: {ranked} of {counted(answer.zoo_size, 'model')} assessed, each on its own input")
    if answer.refused:
        options: dict[str, list[Refused]] = {}
        for each in answer.refused:
            options.setdefault(each.option, []).append(each)
        for option, those in options.items():
            named = ", ".join(f"{each.name} ({each.reason})" for each in those[:3])
            more = f" and {len(those) - 3} more" if len(those) > 3 else ""
            lines.append(f"left out by {option}: {counted(len(those), 'model')}: {named}{more}")
    lines += [f"left out: {name}: {reason}" for name, reason in answer.failed[:_MOST_LEFT_OUT]]
    if more := [name for name, _ in answer.failed[_MOST_LEFT_OUT:]]:
        lines.append(f"left out: {counted(len(more), 'more model')}, for reasons that --json has: {', '.join(more)}")
    if answer.remaining:
        lines.append(
            f"INTERRUPTED: {counted(len(answer.remaining), 'model')} not yet assessed; the same command goes on"
        )
    return lines


def failure_lines(failed: Sequence[tuple[str, str]]) -> list[str]:
    """Tell why models could not be used: a line for each kind of reason, with the first model that had it.

    Args:
        failed: name and reason of each model.
    """
    kinds: dict[str, list[tuple[str, str]]] = {}
    for name, reason in failed:
        kinds.setdefault(reason[:_SAME_REASON], []).append((name, reason))
    lines = []
    for those in kinds.values():
        name, reason = those[0]
        others = [other for other, _ in those[1:]]
        more = (
            f" (and {len(others)} more alike: {', '.join(others[:8])}{', ...' if others[8:] else ''})" if others else ""
        )
        lines.append(f"{name}: {reason}{more}")
    return lines


def _table(ranking: Ranking, top: int) -> list[str]:
    """Lay models out in columns, a line between groups."""
    what = "expected" if ranking.accuracy_of == FINE_TUNED else "probe"
    models = ranking.models[:top]
    rows = [
        ["rank", "group", "model", what, "90 % interval", "best", "params", "GFLOPs", "ms/image", "memory", "licence"]
    ]
    for model in models:
        costs, standing = model.assessment.costs, model.standing
        rows.append(
            [
                str(model.rank), letter(standing.group), model.name, f"{standing.expected:.3f}",
                f"{standing.low:.3f} to {standing.high:.3f}", percent(standing.chance), short(costs.parameters),
                "-" if costs.gflops is None else f"{costs.gflops:.3g}",
                "-" if costs.milliseconds is None else f"{costs.milliseconds:.3g}",
                "-" if costs.memory is None else size(costs.memory), model.assessment.licence or "unknown",
            ]
        )  # fmt: skip
    empty = [column for column in range(len(rows[0])) if all(row[column] in ("-", "unknown") for row in rows[1:])]
    rows = [[cell for column, cell in enumerate(row) if column not in empty] for row in rows]
    left = [column for column, name in enumerate(rows[0]) if name in ("group", "model", "licence")]
    lines = aligned(rows, left=left)
    ruled = [lines[0]]
    for place, line in enumerate(lines[1:]):
        if place and models[place].standing.group != models[place - 1].standing.group:
            ruled.append("-" * max(map(len, lines)))
        ruled.append(line)
    hidden = len(ranking.models) - len(models)
    return [*ruled, f"({hidden} more: --top {len(ranking.models)} shows all)"] if hidden else ruled


def letter(group: int) -> str:
    """Name a group: A for the first, then B; AA after Z."""
    text = ""
    while group:
        group, rest = divmod(group - 1, 26)
        text = chr(ord("A") + rest) + text
    return text


def percent(share: float) -> str:
    """Write a share in whole percent, never 0 or 100 where it is neither."""
    return "<1 %" if 0 < share < 0.005 else ">99 %" if 0.995 < share < 1 else f"{100 * share:.0f} %"


def legend_of(ranking: Ranking) -> list[str]:
    """Say what the columns of a ranking mean, a sentence each."""
    guess = f"always naming the commonest class is right on {100 * ranking.guess:.0f} % of the images"
    if ranking.accuracy_of == PROBE:
        lines = [
            f"probe: accuracy of a linear classifier on the model's frozen features, on the {ranking.scored:,} images, "
            f"each scored by one that has not seen it; {guess}",
            "interval: holds the probe's accuracy on all images of the kind in 9 of 10 cases. Fine-tuning mostly ends "
            "higher, and may change the order",
        ]
    else:
        lines = [
            f"expected: accuracy after fine-tuning, learned from {ranking.learnt_from}; {guess}",
            "interval: holds what fine-tuning reaches in 9 of 10 cases, as far as your results tell",
        ]
    lines.append(
        "group: models with the same letter can't be told apart (paired bootstrap over images); the one with the truly "
        f"best {'accuracy' if ranking.accuracy_of == FINE_TUNED else 'probe'} is in A in 19 of 20 cases. best: the "
        "chance of each to be it"
    )
    if ranking.accuracy_of == PROBE and ranking.learnt_from:
        lines.append(f"the order and the intervals also know {ranking.learnt_from}; the level is the probe's")
    return lines


def fine_tuned_lines(found: FineTuning) -> list[str]:
    """Tell what fine-tuning found."""
    rows = [["fine-tuned", "accuracy", "95 % interval", "probe", "run"]]
    rows += [
        [each.name, f"{each.accuracy:.3f}", f"{each.low:.3f} to {each.high:.3f}", f"{each.probe_accuracy:.3f}",
         str(each.folder)]
        for each in found.models
    ]  # fmt: skip
    failed = [f"could not be fine-tuned: {name}: {reason}" for name, reason in found.failed]
    return [*aligned(rows, left=(0, 4)), *failed, found.verdict]


def content_of(answer: Answer) -> dict[str, Any]:
    """Compose what programs read; numbers that there are not are null."""
    dataset, ranking = answer.dataset, answer.ranking
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names)).tolist()
    models = [] if ranking is None else [_model(answer, each) for each in ranking.models[: answer.top]]
    content = {
        "schema_version": SCHEMA_VERSION,
        "dataset": {
            "given": str(answer.words.path), "name": dataset.name, "images": len(dataset), "classes": len(counts),
            "class_names": list(dataset.class_names), "images_of_each_class": counts, "digest": dataset.digest,
            "left_out": [{"key": each.key, "reason": each.reason} for each in dataset.left_out],
        },
        "zoo": {
            "path": str(answer.zoo), "models": answer.zoo_size,
            "assessed": 0 if ranking is None else len(ranking.models),
            "over_limits": [vars(each) for each in answer.refused],
            "failed": [{"name": name, "reason": reason} for name, reason in answer.failed],
            "remaining": answer.remaining,
        },
        "complete": not answer.remaining,
        "accuracy_of": None if ranking is None else ranking.accuracy_of,
        "learnt_from": None if ranking is None else ranking.learnt_from or None,
        "scored_images": None if ranking is None else ranking.scored,
        "guess_accuracy": None if ranking is None else ranking.guess,
        "level": None if ranking is None else ranking.level,
        "advice": None if ranking is None else advice(answer),
        "models": models,
        "notes": [*dataset.notes, *answer.notes],
        "fine_tuned": None if answer.fine_tuning is None else {
            "models": [{**vars(each), "folder": str(each.folder)} for each in answer.fine_tuning.models],
            "verdict": answer.fine_tuning.verdict,
            "failed": [{"name": name, "reason": reason} for name, reason in answer.fine_tuning.failed],
        },
        **answer.files,
    }  # fmt: skip
    return _finite(content)


def _model(answer: Answer, model: RankedModel) -> dict[str, Any]:
    own, standing, probe = model.assessment, model.standing, model.probe
    edge = min(max(standing.expected, 1e-6), 1 - 1e-6)
    return {
        "rank": model.rank, "name": model.name, "reference": own.entry.reference,
        "score": math.log(edge / (1 - edge)), "expected_accuracy": standing.expected, "low": standing.low,
        "high": standing.high, "group": letter(standing.group), "chance_of_best": standing.chance,
        "probe": {"accuracy": own.probe.accuracy, "low": probe.low, "high": probe.high, "penalty": own.probe.penalty,
                  "log_loss": float(np.nanmean(own.probe.log_losses))},
        "scores": own.scores, "parameters": own.costs.parameters, "gflops": own.costs.gflops,
        "milliseconds_an_image": own.costs.milliseconds, "fine_tuning_memory": own.costs.memory,
        "licence": own.licence, "input": list(own.input), "features": own.feature_size, "weights": own.location,
        "why": model.why, "command": go_on(answer, model),
    }  # fmt: skip


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
