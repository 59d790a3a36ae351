"""`python recommend.py DATASET` in the laboratory: 96 small networks on images of 12x12 grey, and what a ranker knows.

The answer for real models is `evaluation/recommendation/`.
"""

import argparse
import difflib
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from constants import command
from constants.counting import counted
from data.data_error import DataError
from storage.saved_run import find_run
from storage.text_table import aligned

if TYPE_CHECKING:
    from data.benchmark_tasks import BenchmarkTask, LabelledImages
    from evaluation.ranking.recommender import Recommendation, Recommender

OK = 0
SCHEMA_VERSION = 1  # of what --json prints
RANKED_BY = {False: ("all", "A"), True: ("foreign",)}
"""Splits that a ranker may be trained on, without and with `--zoo`."""


class PictureError(Exception):
    """The chart can't be written."""


def recommend_in_laboratory(arguments: argparse.Namespace) -> int:
    """Rank the small zoo's networks, or small ones of a user's own, and print the answer.

    Args:
        arguments: what the command line was given.

    Returns:
        The exit code.

    Raises:
        DataError: the dataset, the zoo or the ranker can't be used.
        RunNotFoundError: there is no such ranker.
        PictureError: the chart can't be written.
    """
    # Imported here: `--help` and errors of usage need no torch.
    from data.user_datasets import UserDataset, read_dataset
    from data.user_zoo import load_user_zoo
    from evaluation.ranking.recommender import Recommender
    from evaluation.ranking.saved_ranker import newest_ranker, read_ranker_file

    path = Path(arguments.dataset).expanduser()
    # What looks like a path is one: its errors should not speak of benchmark tasks.
    is_path = path.exists() or len(path.parts) > 1 or bool(path.suffix)
    dataset = read_dataset(path) if is_path else None
    models = load_user_zoo(arguments.zoo) if arguments.zoo else []
    if arguments.ranker:
        folder = find_run(arguments.ranker, arguments.artifacts)
        if read_ranker_file(folder).hybrid is not arguments.hybrid:
            given, hint = ("not hybrid", "leave out") if arguments.hybrid else ("hybrid", "add")
            raise DataError(f"the ranker in {folder} is {given}; {hint} --hybrid, or name another ranker.")
    else:
        folder = newest_ranker(arguments.artifacts, RANKED_BY[bool(models)], arguments.hybrid)
    recommender = Recommender(folder, models)
    task = None
    if dataset is None:
        known = _find_task(arguments.dataset, recommender)
        task, dataset = known.name, UserDataset(known.name, known.train, None)
    ranking = recommender.recommend(dataset.images, task)
    learnt = task is not None and recommender.was_trained_on(task)
    measured = {} if task is None or models else recommender.measured(task)
    facts = _facts(arguments.dataset, dataset.images, dataset.size, task)
    aloud = [_real_models(arguments.dataset)] if is_path and not models else []
    content = {
        "schema_version": SCHEMA_VERSION,
        "dataset": facts,
        "ranker": {
            "run": recommender.file.id, "path": str(folder), "split": recommender.file.split,
            "hybrid": recommender.file.hybrid, "models": len(ranking),
            "zoo": str(arguments.zoo or recommender.file.zoo),
        },
        "notes": [*recommender.notes(dataset.images, task), *aloud],
        "models": [asdict(model) for model in ranking[: arguments.top]],
        "measured": _beside_measured(ranking, measured, learnt) if measured else None,
    }  # fmt: skip
    if arguments.out:
        _draw(arguments.out, dataset.name, facts["classes"], ranking[: arguments.top], measured)
        content["picture"] = str(arguments.out)
    text = json.dumps(content, indent=1, allow_nan=False) if arguments.json else _text(content)
    sys.stdout.write(f"{text}\n")
    return OK


def _real_models(given: str) -> str:
    """Say, after the answer for a user's own images, what it is not."""
    return (
        "THESE ARE THE LABORATORY'S NETWORKS of 8,000 parameters, and the images were made 12x12 grey for them. For "
        f"real models on your images as they are: `{command('recommend')} {shlex.quote(given)} --zoo hub`"
    )


def _find_task(name: str, recommender: "Recommender") -> "BenchmarkTask":
    tasks = recommender.tasks
    if name in tasks:
        return tasks[name]
    near = difflib.get_close_matches(name, tasks, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"its tasks are {', '.join(tasks)}."
    raise DataError(f"{name} is neither a file, nor a folder, nor a task of the benchmark; {hint}")


def _facts(given: str, images: "LabelledImages", size: tuple[int, int] | None, task: str | None) -> dict[str, Any]:
    counts = [int((images.labels == label).sum()) for label in range(len(images.class_names))]
    return {
        "given": given, "task": task, "images": len(images), "classes": len(counts),
        "class_names": list(images.class_names), "images_of_each_class": counts,
        "size": None if size is None else list(size),
    }  # fmt: skip


def _beside_measured(ranking: "list[Recommendation]", measured: dict[str, float], learnt: bool) -> dict[str, Any]:
    """Say how good a ranking is, where fine-tuning was measured.

    Args:
        ranking: all models, the best first.
        measured: accuracy of each model by its name, from 0 to 1.
        learnt: whether the ranker was trained on these accuracies.
    """
    import numpy as np

    from evaluation.ranking.ranking_metrics import weighted_kendall

    order = sorted(measured, key=measured.__getitem__, reverse=True)
    scores = np.array([model.score for model in ranking])
    return {
        "seen_in_training": learnt,
        "weighted_kendall": weighted_kendall(scores, np.array([measured[model.name] for model in ranking])),
        "best": order[0],
        "regret": measured[order[0]] - measured[ranking[0].name],
        "models": {name: {"accuracy": measured[name], "rank": rank} for rank, name in enumerate(order, start=1)},
    }


def _draw(out: Path, name: str, classes: int, ranking: "list[Recommendation]", measured: dict[str, float]) -> None:
    from evaluation.ranking.recommendation_plot import plot_recommendations

    try:
        plot_recommendations(ranking, name, classes, out, measured)
    except OSError as error:
        raise PictureError(f"cannot write {out}: {error}") from error


def _text(content: dict[str, Any]) -> str:
    """Compose what people read."""
    dataset, ranker, models = content["dataset"], content["ranker"], content["models"]
    counts = dataset["images_of_each_class"]
    of_each = str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    size = f", {dataset['size'][0]}x{dataset['size'][1]}, seen as 12x12 grey" if dataset["size"] else ""
    ran = "all models were run on the images" if ranker["hybrid"] else "no model was run on the images"
    lines = [
        f"{dataset['given']}: {dataset['images']} images, {dataset['classes']} classes ({of_each} of each){size}",
        f"ranker {ranker['run']} (split={ranker['split']}), {counted(ranker['models'], 'model')} of {ranker['zoo']}; "
        f"{ran}",
        "nearest known datasets: " + ", ".join(f"{n['name']} ({n['distance']:.2f})" for n in models[0]["nearest"]),
        "",
    ]
    lines += _table(models, content["measured"])
    lines += [
        "",
        "expected: accuracy after fine-tuning as in the benchmark, with its 90 % interval; most of that is how hard "
        "the dataset is, which all models share",
    ]
    if any(near["accuracy"] is not None for near in models[0]["nearest"]):
        lines.append("the last columns: accuracy of the model that was measured on the nearest known datasets")
    if (measured := content["measured"]) is not None:
        best = measured["models"][measured["best"]]["accuracy"]
        seen = "was trained on" if measured["seen_in_training"] else "has not seen"
        lines.append(
            f"measured: what fine-tuning reached on {dataset['task']}, and its place among the "
            f"{counted(len(measured['models']), 'model')}, which the ranker {seen}. The rankings agree with a "
            f"weighted Kendall of {measured['weighted_kendall']:.2f}; the first choice is "
            f"{100 * measured['regret']:.1f} points below the best, {measured['best']} ({best:.3f})"
        )
    lines += [f"note: {note}" for note in content["notes"]]
    if "picture" in content:
        lines.append(f"wrote {content['picture']}")
    return "\n".join(lines)


def _table(models: list[dict[str, Any]], measured: dict[str, Any] | None) -> list[str]:
    """Lay models out in columns; numbers to the right, words to the left."""
    found = {} if measured is None else measured["models"]
    near = [item["name"] for item in models[0]["nearest"] if item["accuracy"] is not None]
    head = ["measured", "place"] if found else []
    rows = [["rank", "model", "score", "expected", "interval", *head, "family", "trained on", *near]]
    for model in models:
        source = f"{model['domain']}, {model['view']}" if model["domain"] else "-"
        interval = f"{model['low']:.2f} to {model['high']:.2f}"
        row = [str(model["rank"]), model["name"], f"{model['score']:+.2f}", f"{model['expected_accuracy']:.3f}"]
        nearby = [f"{item['accuracy']:.3f}" for item in model["nearest"] if item["accuracy"] is not None]
        own = [f"{found[model['name']]['accuracy']:.3f}", str(found[model["name"]]["rank"])] if found else []
        rows.append([*row, interval, *own, model["family"], source, *nearby])
    words = 5 + len(head)
    return aligned(rows, left=(1, 4, words, words + 1))
