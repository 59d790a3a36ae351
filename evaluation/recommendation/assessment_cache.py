"""Keeps what was found out about a model's features on disk, so that the same question is answered at once."""

import hashlib
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.images.image_dataset import ImageDataset
from data.pretrained.pretrained_model import PretrainedModel
from evaluation.recommendation.feature_scores import SCORES
from evaluation.recommendation.probe import ProbeResult
from evaluation.recommendation.splits import Splits
from storage.errors import OutputError
from storage.files import write_arrays

_VERSION = 1  # of probe and scores: whoever changes what they compute counts it up


@dataclass(frozen=True)
class Judgement:
    """What a model's features are worth.

    Attributes:
        probe: the linear probe.
        scores: value of each of `SCORES`, NaN where there is none.
        milliseconds: time of an image on this machine when it was measured; NaN where it never was.
        parameters: numbers that the model has learnt.
        gflops: billions of multiply-adds for one image; NaN if unknown.
        memory: bytes that fine-tuning takes; NaN if unknown.
    """

    probe: ProbeResult = field(repr=False)
    scores: dict[str, float]
    milliseconds: float
    parameters: float
    gflops: float
    memory: float


_ROWS = ("hits", "log_losses", "repeats", "predictions", "confidence")
_COSTS = ("milliseconds", "parameters", "gflops", "memory")


class AssessmentCache:
    """A folder of judgements, by the content of model, images and splits.

    Args:
        folder: the folder; None keeps nothing.
        dataset: the images.
        splits: which images the probe is trained and scored on.
        device: device that models run on; times on different ones are not alike.
    """

    def __init__(self, folder: Path | None, dataset: ImageDataset, splits: Splits, device: str) -> None:
        self._folder = folder
        self._dataset = dataset
        facts = hashlib.sha256(f"{_VERSION} {dataset.digest} {device}".encode())
        for part in (splits.train, splits.test, splits.reported):
            facts.update(np.packbits(part).tobytes())
        self._facts = facts.hexdigest()

    def read(self, model: PretrainedModel) -> Judgement | None:
        """Return what is known of a model; None where nothing is, or the file is damaged."""
        path = self._path(model)
        if path is None:
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                rows = {name: file[name] for name in _ROWS}
                numbers = {name: float(file[name]) for name in ("penalty", *_COSTS, *SCORES)}
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        if any(row.shape[-1] != len(self._dataset) for row in rows.values()):
            return None
        probe = ProbeResult(**rows, penalty=numbers["penalty"])
        return Judgement(probe, {name: numbers[name] for name in SCORES}, *(numbers[name] for name in _COSTS))

    def write(self, model: PretrainedModel, judgement: Judgement) -> str | None:
        """Keep what was found out.

        Returns:
            Why it can't be kept; None where it is.
        """
        path = self._path(model)
        if path is None:
            return None
        arrays = {
            **{name: getattr(judgement.probe, name) for name in (*_ROWS, "penalty")},
            **{name: getattr(judgement, name) for name in _COSTS},
            **{name: judgement.scores.get(name, math.nan) for name in SCORES},
        }
        try:
            write_arrays(path, {name: np.asarray(value) for name, value in arrays.items()}, "--artifacts")
        except OutputError as error:
            return f"probes are not kept: {error}"
        return None

    def _path(self, model: PretrainedModel) -> Path | None:
        if self._folder is None:
            return None
        key = hashlib.sha256(f"{self._facts} {model.weights_digest} {model.input.key()}".encode()).hexdigest()
        return self._folder / "probes" / f"{key}.npz"
