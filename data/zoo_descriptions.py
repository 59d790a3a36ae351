"""What is known of each network without fine-tuning it: how it answers to probe sets, and to the benchmark's tasks.

`data/zoo/descriptions.npz` holds it; `python -m evaluation.describe_zoo` computes it anew.
"""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from constants import ZOO_DIR
from data.benchmark_tasks import LabelledImages
from data.data_error import DataError
from data.zoo_images import VIEWS, ImageDomain, apply_view

DESCRIPTIONS_PATH = ZOO_DIR / "descriptions.npz"
_PROBE_CLASSES, _PROBE_IMAGES = 6, 10  # of a probe set, and of each of its classes
_PROBE_SEED = 1
_REMEDY = "Restore it with `git checkout data/zoo`, or compute it: `python -m evaluation.describe_zoo`."


@dataclass(frozen=True)
class ProbeSet:
    """Labelled images that every network is shown once, to see what it can tell apart.

    Attributes:
        name: name of the probe set, `<domain>-<view>`.
        domain: name of the domain that the images are from.
        images: from the domain's pool source_test, which no network was trained on and no task contains.
    """

    name: str
    domain: str
    images: LabelledImages


def probe_sets(domains: dict[str, ImageDomain]) -> list[ProbeSet]:
    """Make the probe sets: one for each domain and view."""
    sets = []
    for domain in domains.values():
        images, labels = domain.select("source_test")
        count = min(_PROBE_CLASSES, len(domain.source_classes))
        draw = np.random.default_rng(_PROBE_SEED)
        rows = np.concatenate([draw.permutation(np.flatnonzero(labels == c))[:_PROBE_IMAGES] for c in range(count)])
        names = tuple(domain.class_names[label] for label in domain.source_classes[:count])
        for view in VIEWS:
            shown = LabelledImages(apply_view(images[rows], view).copy(), labels[rows], names)
            sets.append(ProbeSet(f"{domain.name}-{view}", domain.name, shown))
    return sets


@dataclass(frozen=True)
class ZooDescriptions:
    """Transferability scores of every network.

    Attributes:
        models: names of the N models.
        probes: names of the K probe sets.
        tasks: names of the benchmark's T tasks.
        zoo_digest: SHA-256 of the file of the networks' weights.
        probe_scores: (K, N) float64 scores of each model on each probe set, by name of the score; float32 in the file.
        task_scores: (T, N) float64 scores of each model on each task, by name of the score; float32 in the file. They
            need a forward pass of every network on the task's images.
    """

    models: tuple[str, ...]
    probes: tuple[str, ...]
    tasks: tuple[str, ...]
    zoo_digest: str
    probe_scores: dict[str, np.ndarray] = field(repr=False)
    task_scores: dict[str, np.ndarray] = field(repr=False)


def save_descriptions(descriptions: ZooDescriptions, path: Path) -> None:
    """Write descriptions as one compressed file that needs no pickle."""
    arrays = {part: np.asarray(getattr(descriptions, part)) for part in ("models", "probes", "tasks", "zoo_digest")}
    for kind in ("probe_scores", "task_scores"):
        arrays |= {f"{kind}/{name}": scores.astype(np.float32) for name, scores in getattr(descriptions, kind).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def load_descriptions(path: Path = DESCRIPTIONS_PATH, models: Sequence[str] | None = None) -> ZooDescriptions:
    """Read descriptions.

    Args:
        path: file that `save_descriptions` wrote.
        models: names of the models that the file must describe, in this order; None for any.

    Raises:
        DataError: the file is missing or damaged, or describes other models.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        names = {part: tuple(map(str, arrays[part])) for part in ("models", "probes", "tasks")}
        digest = str(arrays["zoo_digest"])
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}. {_REMEDY}") from error
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(f"cannot read {path}: {error}. {_REMEDY}") from error
    scores: dict[str, dict[str, np.ndarray]] = {"probe_scores": {}, "task_scores": {}}
    for key, values in arrays.items():
        kind, slash, name = key.partition("/")
        if slash and kind in scores:
            wanted = (len(names["probes" if kind == "probe_scores" else "tasks"]), len(names["models"]))
            if values.shape != wanted or not np.isfinite(values).all():
                raise DataError(f"{path}: {key} is {values.shape}, needed are finite numbers {wanted}. {_REMEDY}")
            scores[kind][name] = values.astype(np.float64)
    if models is not None and tuple(models) != names["models"]:
        raise DataError(f"{path} describes other models than the zoo has. {_REMEDY}")
    return ZooDescriptions(**names, zoo_digest=digest, **scores)
