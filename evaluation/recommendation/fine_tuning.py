"""`--fine-tune K`: the first models of a ranking are fine-tuned with the same budget and seeds."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config import ConfigParser
from config.image_classifier_trainer_config import ImageClassifierTrainerConfig
from constants.counting import counted
from data.data_error import DataError
from data.images.image_dataset import ImageDataset, read_image_dataset
from data.pretrained.zoo_manifest import ZooEntry
from evaluation.recommendation.classifier_runs import ClassifierRun, RunFailedError, classifier_run
from evaluation.recommendation.dataset_description import add_description, describe_dataset
from evaluation.recommendation.level_groups import accuracy_draws, level_groups
from evaluation.recommendation.results_table import MeasuredResult, append_results
from storage.files import file_digest
from storage.saved_run import settings_in

_SEEDS = 3
_QUICK_SECONDS = 600  # for one seed of all models; where it takes longer, there is no other
_EDGES = (0.025, 0.975)
# What of the settings makes no difference to a result, or is said for each run.
_NOT_OF_A_BUDGET = frozenset(
    """
    data labels images max_images split_seed predict_data model zoo seed device artifacts_dir num_workers threads
    cache_mb worst_images plot_at_end tensorboard mlflow wandb callbacks log_every_n_steps keep_last_checkpoints
    checkpoint_every_n_steps checkpoint_every_n_minutes saving_share save_in_background on_write_error memory_share
    peer_timeout_minutes loss_spike_factor strategy
    """.split()  # noqa: SIM905 - a list of so many names would be a page
)


@dataclass(frozen=True)
class Winner:
    """A model that is to be fine-tuned.

    Attributes:
        entry: the model.
        manifest: the manifest that lists it; None where its reference says all.
        probe_accuracy: accuracy of its linear probe, from 0 to 1.
    """

    entry: ZooEntry
    manifest: Path | None
    probe_accuracy: float


@dataclass(frozen=True)
class DatasetWords:
    """How a dataset was named on the command line, so that another process reads the same images.

    Attributes:
        path: the file or folder.
        labels: column or array of labels; None if it was found.
        images: column or array of images; None if it was found.
        max_images: the most images that are taken; None for all.
        seed: seed of which are taken, and of the fine-tuning.
    """

    path: Path
    labels: str | None
    images: str | None
    max_images: int | None
    seed: int


@dataclass(frozen=True)
class FineTuned:
    """What a model reached.

    Attributes:
        name: the model's name.
        accuracy: accuracy on images that it was not trained on, from 0 to 1: mean over the seeds.
        low: lower end of its 95 % interval.
        high: upper end.
        probe_accuracy: what its linear probe had said.
        folder: run folder of the best seed.
    """

    name: str
    accuracy: float
    low: float
    high: float
    probe_accuracy: float
    folder: Path


@dataclass(frozen=True)
class FineTuning:
    """What `fine_tune_winners` found.

    Attributes:
        models: what each model reached, the best first.
        verdict: a sentence that says who won, with an interval, or that they are level.
        failed: name and reason of each model that could not be fine-tuned.
    """

    models: tuple[FineTuned, ...]
    verdict: str
    failed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Budget:
    """How models are fine-tuned, all alike.

    Attributes:
        text: the main settings, for people and for the table: `full, 10 epochs, learning rate 0.0003`.
        digest: hexadecimal digest of all settings that a result depends on.
    """

    text: str
    digest: str

    @classmethod
    def of_settings(cls) -> "Budget":
        """Return that of the section [ImageClassifierTrainer] as it is now.

        Raises:
            ConfigError: the section is wrong.
        """
        config = ConfigParser.get(ImageClassifierTrainerConfig)
        settings = {
            key: value for key, value in settings_in(ConfigParser.dump(config)).items()
            if key and key not in _NOT_OF_A_BUDGET
        }  # fmt: skip
        text = f"{config.tune}, {counted(config.epochs, 'epoch')}, learning rate {config.learning_rate:g}"
        return cls(text, hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest())


def fine_tune_winners(
    winners: Sequence[Winner],
    dataset: DatasetWords,
    *,
    artifacts: Path,
    table: Path,
    device: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    images: ImageDataset | None = None,
) -> FineTuning:
    """Fine-tune models with the same budget, seeds and split, each in a process of its own, and add to the table.

    What it is done by is the section [ImageClassifierTrainer] of config.ini. Each model is trained with one seed; where
    all of these together took less than ten minutes, with two more. Runs that are finished are kept: the same call goes
    on after an interruption, and costs nothing when all is done.

    Args:
        winners: the models, the one that was ranked first at the front.
        dataset: how the images are read.
        artifacts: folder of the runs.
        table: the user's own table of results; a row for each model is added (`append_results`), and what the dataset
            is like to a file beside it (`add_description`).
        device: device to train on; None lets the trainer choose.
        say: called with a line on what is going on.
        images: the images, where they have been read already.

    Raises:
        DataError: none could be fine-tuned; says what to do.
        KeyboardInterrupt: somebody wants to stop; the run at hand has saved where it is.
    """
    if images is None:
        images = read_image_dataset(
            dataset.path, labels=dataset.labels, images=dataset.images, max_images=dataset.max_images,
            seed=dataset.seed,
        )  # fmt: skip
    budget = Budget.of_settings()
    add_description(table, images.name, describe_dataset(images))
    runs: dict[str, list[ClassifierRun]] = {winner.entry.name: [] for winner in winners}
    failed: dict[str, str] = {}
    found: FineTuning | None = None
    for number in range(_SEEDS):
        first = sum(of_model[0].seconds for of_model in runs.values() if of_model)
        if first > _QUICK_SECONDS:
            say(f"one seed each, which took {first / 60:.0f} minutes together: luck of the training is not measured")
            break
        for winner in [each for each in winners if each.entry.name not in failed]:
            name, seed = winner.entry.name, dataset.seed + number
            say(f"fine-tuning {name}, seed {seed}: {budget.text}")
            try:
                run = classifier_run(
                    run_name(winner.entry, images, budget, seed), _settings(winner, dataset, seed, device), artifacts,
                    lambda line: say(f"  {line}"),
                )  # fmt: skip
            except RunFailedError as error:
                failed[name] = str(error)
                say(f"  {name} is left out: {error}")
                continue
            say(f"  {name}: {run.hits.mean():.3f} of {counted(len(run.hits), f'{run.part} image')}")
            runs[name].append(run)
        done = [winner for winner in winners if winner.entry.name not in failed]
        if not done:
            break
        found = _compared(done, runs, images, number + 1, tuple(failed.items()))
        append_results(_rows(found, done, images, budget, number + 1), table)
    if found is None or len(failed) == len(winners):
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
        raise DataError(
            f"none of the models could be fine-tuned:\n{reasons}\nMend the first of these, then run the same command "
            "again: what is finished is kept."
        )
    return found


def run_name(entry: ZooEntry, images: ImageDataset, budget: Budget, seed: int) -> str:
    """Return the name of a run, by which it is found again: equal names, equal results."""
    own = entry.weights is not None and entry.weights.is_file()  # which may be trained anew in its place
    weights = file_digest(entry.weights) if own and entry.weights is not None else str(entry.weights)
    facts = (entry.source, entry.identifier, sorted(entry.arguments.items()), weights, repr(entry.input), images.digest)
    digest = hashlib.sha256(repr((facts, budget.digest)).encode()).hexdigest()
    return f"tuned-{re.sub(r'[^A-Za-z0-9]+', '-', entry.name)[-32:].strip('-')}-{digest[:10]}-seed{seed}"


def _settings(winner: Winner, dataset: DatasetWords, seed: int, device: str | None) -> Mapping[str, str]:
    """Return the settings of a run, beside those of its section of config.ini."""
    entry = winner.entry
    given: dict[str, object] = {
        "data": dataset.path.expanduser().resolve(), "labels": dataset.labels, "images": dataset.images,
        "max_images": dataset.max_images, "split_seed": dataset.seed, "seed": seed, "device": device,
        "model": entry.reference if winner.manifest is None else entry.name,
        "zoo": None if winner.manifest is None else winner.manifest.resolve(),
    }  # fmt: skip
    return {key: str(value) for key, value in given.items() if value is not None}


def _compared(
    winners: Sequence[Winner], runs: Mapping[str, list[ClassifierRun]], images: ImageDataset, seeds: int,
    failed: tuple[tuple[str, str], ...],
) -> FineTuning:  # fmt: skip
    """Compare models over the same test images and their seeds."""
    found = [runs[winner.entry.name][:seeds] for winner in winners]
    keys = found[0][0].keys
    if any(run.keys != keys for of_model in found for run in of_model):
        raise DataError(
            "the models were tested on different images, since the data has changed between their runs. Run the same "
            "command again when it stays as it is."
        )
    hits = np.array([[run.hits for run in of_model] for of_model in found], dtype=float)  # (models, seeds, images)
    number_of = {key: number for number, key in enumerate(images.keys)}
    draws = paired_draws(hits, images.groups[[number_of[key] for key in keys]])
    accuracies = hits.mean((1, 2))
    low, high = np.quantile(draws, _EDGES, axis=0)
    order = sorted(range(len(winners)), key=lambda model: -accuracies[model])  # the first ranked of equal ones first
    models = tuple(
        FineTuned(
            winners[model].entry.name, float(accuracies[model]),
            min(float(low[model]), float(accuracies[model])), max(float(high[model]), float(accuracies[model])),
            winners[model].probe_accuracy, max(found[model], key=lambda run: run.hits.mean()).folder,
        )
        for model in order
    )  # fmt: skip
    return FineTuning(models, _verdict(models, draws[:, order], len(keys), seeds, found[0][0].part), failed)


def paired_draws(hits: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Draw how accurate models may be on other test images and with other seeds, paired over the images.

    Images are drawn as `accuracy_draws` does. What seeds differ by is taken for normal, of one spread for all models,
    so that few seeds of each tell it.

    Args:
        hits: (M, S, n), 1 where a model with a seed was right.
        groups: (n,) int, images of one number are copies of one another.

    Returns:
        (B, M) draws.
    """
    draws = accuracy_draws(hits.mean(1), groups)
    models, seeds, _ = hits.shape
    if seeds == 1:
        return draws
    spread = hits.mean(2).std(1, ddof=1)  # of each model over its seeds, (M,)
    freedom = models * (seeds - 1)
    error = float(np.sqrt(np.square(spread).mean() / seeds))
    return draws + error * np.random.default_rng(1).standard_t(freedom, draws.shape)


def _verdict(models: Sequence[FineTuned], draws: np.ndarray, images: int, seeds: int, part: str) -> str:
    """Say who won, the draws in the order of the models."""
    first = models[0]
    over = f"{counted(images, f'{part} image')}, {counted(seeds, 'seed')}"
    if seeds == 1:
        over += ", so what luck in training does is not in it"
    if len(models) == 1:
        return f"{first.name} reaches {first.accuracy:.3f} (95 % interval {first.low:.3f} to {first.high:.3f}; {over})"
    ahead = draws[:, 0] - draws[:, 1]
    low, high = np.quantile(ahead, _EDGES)
    by = f"{first.accuracy - models[1].accuracy:+.3f} to {models[1].name}"
    by += f" (95 % interval {low:+.3f} to {high:+.3f}; {over})"
    level = [model.name for model, group in zip(models, level_groups(draws), strict=True) if group == 1]
    if len(level) == 1:
        return f"{first.name} won with {first.accuracy:.3f}: {by}"
    return f"{', '.join(level[:-1])} and {level[-1]} are level: {first.name} has {first.accuracy:.3f}, {by}"


def _rows(
    found: FineTuning, winners: Sequence[Winner], images: ImageDataset, budget: Budget, seeds: int
) -> list[MeasuredResult]:
    """Return the rows of the table."""
    entries = {winner.entry.name: winner.entry for winner in winners}
    return [
        MeasuredResult(
            entries[model.name].name if entries[model.name].source == "module" else entries[model.name].reference,
            images.name, "accuracy", round(model.accuracy, 6), round(model.probe_accuracy, 6), len(images),
            len(images.class_names), images.digest, round(model.low, 6), round(model.high, 6), seeds, budget.text,
        )
        for model in found.models
    ]  # fmt: skip
