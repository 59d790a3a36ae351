"""Makes the rankers that the program comes with, data/zoo/rankers/: one for each question of `recommend.py`."""

import json
import shutil
import tempfile
from pathlib import Path

import torch

import constants
from data.data_error import DataError
from evaluation.ranking.ranker_training import train_command, train_ranker
from evaluation.ranking.saved_ranker import LoadedRanker, load_ranker, shipped_folder
from storage.files import write_atomically

SHIPPED = (("all", False), ("all", True), ("foreign", False), ("foreign", True))
"""Split, and whether hybrid, of each ranker."""


@torch.no_grad()
def example_scores(ranker: LoadedRanker) -> list[float]:
    """Score the zoo's models for the benchmark's first task: what tells that features and weights fit each other."""
    world, task = ranker.world, ranker.fold.train_tasks[0]
    measured = {name: values[task] for name, values in world.task_scores.items()}
    pairs = ranker.maker.pair_features(world.encoded[task], task, world.tasks[task].domain, measured)
    tokens = ranker.maker.dataset_tokens(world.encoded[task])
    scores = ranker.network(tokens[None], ranker.maker.model_tokens[None], pairs[None], None, None)
    return [round(score, 4) for score in scores.mean(0)[0].tolist()]


def main() -> None:
    """Train each ranker and put it in its place, with what it was trained on."""
    for split, hybrid in SHIPPED:
        with tempfile.TemporaryDirectory() as artifacts:
            if not train_ranker(split, hybrid, Path(artifacts)):
                raise SystemExit(f"error: `{train_command(split, hybrid)}` failed, as is said above")
            [run] = Path(artifacts).glob("models/SimilarityTransformer/runs/*")
            try:
                _ship(run, shipped_folder(split, hybrid))
            except DataError as error:
                raise SystemExit(f"error: {error}") from None


def _ship(run: Path, folder: Path) -> None:
    """Copy a ranker, with paths that are relative to the program."""
    content = json.loads((run / "ranker.json").read_text(encoding="utf-8"))
    content["example_scores"] = example_scores(load_ranker(run))
    for key in ("zoo", "performance"):
        content[key] = Path(content[key]).relative_to(constants.PACKAGE_ROOT).as_posix()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / "model.safetensors", folder / "model.safetensors")
    write_atomically(folder / "ranker.json", f"{json.dumps(content)}\n".encode())
