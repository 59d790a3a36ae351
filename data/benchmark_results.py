"""The ground truth: accuracies measured by fine-tuning every network of a zoo on every task of the benchmark."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from constants import PERFORMANCE_PATH, command
from data.benchmark_tasks import BenchmarkTask
from data.data_error import DataError

SCHEMA_VERSION = 1
TOO_EASY = 0.97
"""A task with a higher mean accuracy is dropped: it tells no networks apart."""
LEAST_SPREAD = 2.0
"""A task whose networks differ by less than this multiple of the noise of a mean over seeds is dropped."""
_REMEDY = (
    f"Restore it with `git checkout constants`, or measure it: `{command('train')} GroundTruthTrainer publish=on`."
)


@dataclass(frozen=True)
class BenchmarkResults:
    """Measured accuracies.

    Attributes:
        models: names of the N models.
        tasks: names of the T tasks, those of dropped tasks not among them.
        accuracy: (T, N, S) test accuracy from 0 to 1 of each fine-tuning, S seeds each.
        dropped: reason for leaving a task out, by the name of each dropped task.
        about: facts of the measurement for the file, such as the zoo's digest.
    """

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    accuracy: np.ndarray = field(repr=False)
    dropped: dict[str, str]
    about: dict[str, Any]

    @property
    def mean(self) -> np.ndarray:
        """Mean over seeds, (T, N): the truth that a ranking is held to."""
        return self.accuracy.mean(axis=2)

    @property
    def noise(self) -> np.ndarray:
        """How much of one fine-tuning's accuracy is chance, (T,): see `seed_noise`."""
        return seed_noise(self.accuracy)

    @property
    def tolerance(self) -> np.ndarray:
        """Differences of two means that are no more than chance, (T,): 1.96 standard errors of a difference."""
        return tie_tolerance(self.noise, self.accuracy.shape[2])


def tie_tolerance(noise: np.ndarray, seeds: int) -> np.ndarray:
    """Return 1.96 standard errors of a difference of two means over seeds, from the noise of one fine-tuning."""
    return 1.96 * math.sqrt(2 / seeds) * noise


def seed_noise(accuracy: np.ndarray) -> np.ndarray:
    """Measure how much of an accuracy is chance.

    A draw of training images that is easier for all models changes no ranking, so each seed's mean is taken out first.

    Args:
        accuracy: (T, N, S) test accuracy from 0 to 1 of each fine-tuning, S seeds each.

    Returns:
        (T,) standard deviation over seeds of one fine-tuning, pooled over models.
    """
    own = accuracy - accuracy.mean(axis=1, keepdims=True)
    return np.sqrt(own.var(axis=2, ddof=1).mean(axis=1))


def reasons_to_drop(accuracy: np.ndarray) -> dict[int, str]:
    """Find tasks that can't tell networks apart.

    Args:
        accuracy: (T, N, S) test accuracy from 0 to 1 of each fine-tuning, S seeds each.

    Returns:
        Reason for leaving a task out, by the number of the task.
    """
    reasons = {}
    means, noises = accuracy.mean(axis=2), seed_noise(accuracy) / math.sqrt(accuracy.shape[2])
    for number, (mean, noise) in enumerate(zip(means, noises, strict=True)):
        if mean.mean() > TOO_EASY:
            reasons[number] = f"mean accuracy {mean.mean():.3f} is over {TOO_EASY}"
        elif mean.std() < LEAST_SPREAD * noise:
            reasons[number] = f"spread {mean.std():.4f} between networks is under twice their noise {noise:.4f}"
    return reasons


def save_results(
    path: Path, models: Sequence[str], tasks: Sequence[BenchmarkTask], accuracy: np.ndarray, about: dict[str, Any]
) -> BenchmarkResults:
    """Write the table.

    Args:
        path: JSON file to write.
        models: names of the N models.
        tasks: the T tasks of the benchmark.
        accuracy: (T, N, S) test accuracy from 0 to 1 of each fine-tuning, S seeds each.
        about: facts of the measurement for the file, such as the zoo's digest.

    Returns:
        What `load_results` reads from the file.
    """
    dropped, noises = reasons_to_drop(accuracy), seed_noise(accuracy)
    rows = {}
    for number, task in enumerate(tasks):
        values = accuracy[number].round(4)
        row = {
            "domain": task.domain, "view": task.view, "classes": len(task.classes), "shots": task.shots,
            "split": task.split, "test_images": len(task.test_rows), "seeds": values.shape[1],
            "noise": round(float(noises[number]), 5),
            "tolerance": round(float(tie_tolerance(noises[number], values.shape[1])), 5),
            "mean": values.mean(axis=1).round(4).tolist(), "std": values.std(axis=1, ddof=1).round(4).tolist(),
            "accuracy": values.tolist(),
        }  # fmt: skip
        rows[task.name] = row | ({"dropped": dropped[number]} if number in dropped else {})
    content = {"schema_version": SCHEMA_VERSION, "about": about, "models": list(models)}
    # A line a task: readable enough, and a change of one task is a change of one line.
    body = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row, separators=(',', ':'))}" for name, row in rows.items())
    head = json.dumps(content, indent=1)[:-2]
    path.write_text(f'{head},\n "tasks": {{\n{body}\n }}\n}}\n', encoding="utf-8")
    return load_results(path)


def load_results(path: Path = PERFORMANCE_PATH) -> BenchmarkResults:
    """Read the table.

    Args:
        path: JSON file that `save_results` wrote.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA_VERSION:
            raise DataError(
                f"{path} has schema version {content['schema_version']}, this program reads {SCHEMA_VERSION}. {_REMEDY}"
            )
        rows = {name: row for name, row in content["tasks"].items() if "dropped" not in row}
        dropped = {name: row["dropped"] for name, row in content["tasks"].items() if "dropped" in row}
        models = tuple(content["models"])
        accuracy = np.array([row["accuracy"] for row in rows.values()], np.float64)
        about = dict(content["about"])
    except FileNotFoundError as error:
        raise DataError(f"there is no table {path}. {_REMEDY}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"cannot read the table {path}: {type(error).__name__} {error}. {_REMEDY}") from error
    if not rows:
        accuracy = accuracy.reshape(0, len(models), 1)
    if accuracy.ndim != 3 or accuracy.shape[1] != len(models) or not np.isfinite(accuracy).all():
        raise DataError(
            f"{path}: accuracies {accuracy.shape} of {len(models)} models; each task needs a list of finite numbers "
            f"for each model. {_REMEDY}"
        )
    return BenchmarkResults(models, tuple(rows), accuracy, dropped, about)
