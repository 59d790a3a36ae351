"""Answers of a language model that a run has written: samples.json in its folder."""

import json
from dataclasses import dataclass
from pathlib import Path

SAMPLES = "samples.json"


@dataclass(frozen=True)
class TextSample:
    """A prompt of held-out data and what the trained model answered.

    Attributes:
        place: where the prompt comes from, such as `line 5`.
        prompt: the prompt as the model read it.
        before: what the model answered before it was trained; empty where nobody asked.
        answer: what it answers now.
        expected: what the data has there.
        finish: how the answer ended: `stop`, or `length` where it was cut off.
        tokens: tokens of the answer.
    """

    place: str
    prompt: str
    before: str
    answer: str
    expected: str
    finish: str
    tokens: int


def read_samples(folder: Path) -> list[TextSample]:
    """Return the samples of a run; none where it has none, or where the file can't be read.

    Args:
        folder: the run's folder.
    """
    try:
        found = json.loads((folder / SAMPLES).read_text(encoding="utf-8"))
        return [TextSample(**sample) for sample in found]
    except (OSError, ValueError, TypeError):
        return []
