"""The command line `python recommend.py`."""

import argparse
import difflib
import json
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import constants
from constants import command
from constants.argument_parser import BriefParser
from constants.commit import ShowVersion
from constants.counting import counted
from data.data_error import DataError
from storage.log_lines import use_log_lines
from storage.saved_run import RunNotFoundError, find_run
from storage.text_table import aligned

if TYPE_CHECKING:
    from data.benchmark_tasks import BenchmarkTask, LabelledImages
    from evaluation.ranking.recommender import Recommendation, Recommender

OK, USAGE, DATA, FAILED, INTERRUPTED = 0, 2, 3, 4, 130
SCHEMA_VERSION = 1  # of what --json prints
RANKED_BY = {False: ("all", "A"), True: ("foreign",)}
"""Splits that a ranker may be trained on, without and with `--zoo`."""

_EXAMPLES = """datasets:
  my.npz             `images` (n, H, W) or (n, H, W, 1 or 3), uint8 or float from 0 to 1, and `labels` (n,)
  my_folder          one sub-folder of images for each class
  digits-2           a task of the benchmark; what was measured on it stays hidden

examples:
  python recommend.py my.npz
  python recommend.py my_folder --top 5 --out my.png
  python recommend.py my.npz --hybrid --json
  python recommend.py my.npz --zoo my_zoo.yaml

A manifest's modules are Python code, which `--zoo` imports and runs: from the manifest's folder, the current folder, or
what is installed. Name none that you don't trust.

exit codes: 0 done, 2 usage or no such run, 3 data, 4 the picture can't be written, 130 interrupted"""


def main(words: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        words: command-line arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    use_log_lines()
    arguments = _parser().parse_args(words)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _report(arguments, "interrupted", INTERRUPTED)
    except RunNotFoundError as error:
        return _report(arguments, str(error), USAGE)
    except _PictureError as error:
        return _report(arguments, str(error), FAILED)
    except (DataError, OSError) as error:
        return _report(arguments, str(error), DATA)


class _PictureError(Exception):
    """The chart can't be written."""


def _parser() -> argparse.ArgumentParser:
    parser = BriefParser(
        prog=command("recommend"), description="Rank a zoo's models for a dataset that was never measured.",
        epilog=_EXAMPLES.replace("python recommend.py", command("recommend")),
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("dataset", metavar="DATASET", help="an .npz, a folder, or the name of a benchmark task")
    parser.add_argument("--top", type=_count, default=10, metavar="K", help="models to show (default: 10)")
    parser.add_argument("--out", type=_picture, metavar="FILE.png", help="also draw a bar chart into this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--hybrid", action="store_true", help="run every model on the images: slower, a little better")
    parser.add_argument("--ranker", metavar="RUN", help="a ranker's run folder or id (default: the newest that fits)")
    parser.add_argument("--zoo", type=Path, metavar="ZOO.yaml", help="rank your own models, listed in this manifest")
    parser.add_argument("--artifacts", type=Path, default=constants.ARTIFACTS_DIR, metavar="DIR",
                        help="where trained rankers are (default: artifacts/)")  # fmt: skip
    parser.add_argument("--version", action=ShowVersion)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def _picture(text: str) -> Path:
    if Path(text).suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{text!r} must end in .png")
    return Path(text)


def _run(arguments: argparse.Namespace) -> int:
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
    content = {
        "schema_version": SCHEMA_VERSION,
        "dataset": facts,
        "ranker": {
            "run": recommender.file.id, "path": str(folder), "split": recommender.file.split,
            "hybrid": recommender.file.hybrid, "models": len(ranking),
            "zoo": str(arguments.zoo or recommender.file.zoo),
        },
        "notes": recommender.notes(dataset.images, task),
        "models": [asdict(model) for model in ranking[: arguments.top]],
        "measured": _beside_measured(ranking, measured, learnt) if measured else None,
    }  # fmt: skip
    if arguments.out:
        _draw(arguments.out, dataset.name, facts["classes"], ranking[: arguments.top], measured)
        content["picture"] = str(arguments.out)
    text = json.dumps(content, indent=1, allow_nan=False) if arguments.json else _text(content)
    sys.stdout.write(f"{text}\n")
    return OK


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
        raise _PictureError(f"cannot write {out}: {error}") from error


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


def _report(arguments: argparse.Namespace, text: str, code: int) -> int:
    if arguments.debug:
        traceback.print_exc()
    sys.stderr.write(f"error: {text}\n")
    return code
