"""One model on a dataset: its features, how well they fit the classes, and what the model costs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from data.images.image_dataset import ImageDataset
from data.pretrained.errors import ModelUnavailableError
from data.pretrained.image_features import ImageFeatures, image_features
from data.pretrained.model_costs import model_costs
from data.pretrained.pretrained_model import PretrainedModel, open_pretrained
from data.pretrained.zoo_manifest import ZooEntry
from evaluation.recommendation.assessment_cache import AssessmentCache, Judgement
from evaluation.recommendation.candidates import Limits, Refused
from evaluation.recommendation.feature_scores import feature_scores
from evaluation.recommendation.probe import ProbeResult, linear_probe
from evaluation.recommendation.splits import Splits


@dataclass(frozen=True)
class Costs:
    """What a model costs.

    Attributes:
        parameters: numbers that it has learnt, its own head included.
        gflops: billions of multiply-adds for one image of its own size; None if unknown.
        memory: bytes that fine-tuning takes, estimated; None if unknown.
        milliseconds: time of an image on this machine, decoding included; None if it was not measured.
    """

    parameters: int
    gflops: float | None
    memory: float | None
    milliseconds: float | None


@dataclass(frozen=True)
class Assessment:
    """What is known of a model on the dataset.

    Attributes:
        entry: the model.
        input: size of the images that it reads, (H, W).
        feature_size: number of its features.
        location: where its weights are.
        licence: licence of its weights; None where nobody says.
        costs: what it costs.
        scores: value of each score of `feature_scores`; NaN where there is none.
        probe: the linear probe.
        notes: what was done aloud.
    """

    entry: ZooEntry
    input: tuple[int, int]
    feature_size: int
    location: str
    licence: str | None
    costs: Costs
    scores: dict[str, float]
    probe: ProbeResult = field(repr=False)
    notes: tuple[str, ...] = ()


class OverLimitError(Exception):
    """A model turned out to be over a limit when it was loaded."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(f"{refused.name}: {refused.reason}")
        self.refused = refused


def assess(
    entry: ZooEntry,
    dataset: ImageDataset,
    splits: Splits,
    limits: Limits,
    *,
    judgements: AssessmentCache,
    cache: Path | None,
    device: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Assessment:
    """Load a model, run it on all images and judge its features.

    Args:
        entry: the model.
        dataset: the images.
        splits: which images the probe is trained and scored on.
        limits: what the model may cost.
        judgements: what was found out before.
        cache: folder in which features are kept; None keeps none.
        device: device to run on; None chooses.
        progress: called with how many images are done.

    Raises:
        ModelUnavailableError: the model can't be loaded or run, or its features say nothing.
        OverLimitError: it is over a limit that could not be checked before.
        DataError: an image can't be read any more.
    """
    model = open_pretrained(entry)
    known = judgements.read(model)
    costs = costs_of(model) if known is None else _costs_in(known)
    over = limits.refusal(costs.parameters, costs.gflops, model.licence, costs.memory, loaded=True)
    if over is not None:
        raise OverLimitError(Refused(entry.name, *over))
    notes: tuple[str, ...] = ()
    if known is None:
        found = image_features(model, dataset, cache, device=device, progress=progress)
        known = _judge(entry, found, dataset, splits, costs)
        problem = judgements.write(model, known)
        notes = found.notes if problem is None else (*found.notes, problem)
    return Assessment(entry, model.input.size, model.feature_size, model.location, model.licence, _costs_in(known),
                      known.scores, known.probe, notes)  # fmt: skip


def _costs_in(known: Judgement) -> Costs:
    gflops, memory, milliseconds = (
        None if math.isnan(value) else value for value in (known.gflops, known.memory, known.milliseconds)
    )
    return Costs(round(known.parameters), gflops, memory, milliseconds)


def _judge(entry: ZooEntry, found: ImageFeatures, dataset: ImageDataset, splits: Splits, costs: Costs) -> Judgement:
    features = torch.from_numpy(found.features)
    logits = None if found.logits is None else torch.from_numpy(found.logits)
    try:
        probe = linear_probe(features, dataset.labels, splits, len(dataset.class_names))
    except ValueError as error:
        raise ModelUnavailableError(f"{entry.where or entry.name}: {error}.") from error
    gflops, memory = (math.nan if value is None else value for value in (costs.gflops, costs.memory))
    return Judgement(
        probe, feature_scores(features, dataset.labels, logits), 1000 * found.seconds_an_image, costs.parameters,
        gflops, memory,
    )  # fmt: skip


def costs_of(model: PretrainedModel) -> Costs:
    """Say what a loaded model costs, without running it on images; what can't be found out is what the zoo says."""
    entry = model.entry
    try:
        found = model_costs(model)
    except Exception:  # of the network's own code, which need not bear to be followed without content
        parameters = entry.parameters or sum(each.numel() for each in model.parameters())
        return Costs(parameters, entry.gflops, None, None)
    return Costs(found.parameters, found.gflops, float(found.fine_tuning_memory), None)
