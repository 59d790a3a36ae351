"""`--fine-tune K`: the first models of a ranking are fine-tuned with the same budget and seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.data_error import DataError
from data.pretrained.zoo_manifest import ZooEntry


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


def fine_tune_winners(
    winners: Sequence[Winner],
    dataset: DatasetWords,
    *,
    artifacts: Path,
    table: Path,
    device: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> FineTuning:
    """Fine-tune models with the same budget, seeds and split, each in a process of its own, and add to the table.

    Args:
        winners: the models, the one that was ranked first at the front.
        dataset: how the images are read.
        artifacts: folder of the runs.
        table: the user's own table of results; a row for each model is added (`append_results`).
        device: device to train on; None lets the trainer choose.
        say: called with a line on what is going on.

    Raises:
        DataError: none could be fine-tuned; says what to do.
    """
    raise DataError("--fine-tune can't be done yet.")
