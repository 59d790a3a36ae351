"""What agents said while they were trained, and what became of it: transcripts.json in a run's folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from storage.files import write_json

TRANSCRIPTS = "transcripts.json"


@dataclass(frozen=True)
class Passage:
    """A piece of a transcript.

    Attributes:
        text: its text.
        sampled: whether the model said it; else it read it.
    """

    text: str
    sampled: bool


@dataclass(frozen=True)
class Transcript:
    """One rollout.

    Attributes:
        epoch: epoch of the training that it was made in, 1 for the first.
        task: number of its task, from 1.
        sample: number of the rollout among those of the task, from 1.
        outcome: how it ended.
        reward: its reward; None where it has none.
        advantage: how much better it was than what it is compared with; None where it has no reward, or is left out of
            training.
        told: what is said of an outcome that is not done.
        rows: of each row of tokens its passages.
        cut: whether its end is left out.
    """

    epoch: int
    task: int
    sample: int
    outcome: str
    reward: float | None
    advantage: float | None
    told: str = ""
    rows: Sequence[Sequence[Passage]] = field(default_factory=list)
    cut: bool = False


def write_transcripts(path: Path, transcripts: Sequence[Transcript]) -> None:
    """Write transcripts.

    Args:
        path: the file.
        transcripts: the transcripts, in the order in which they are shown.

    Raises:
        OutputError: the file can't be written.
    """
    write_json(path, [asdict(each) for each in transcripts])


def read_transcripts(folder: Path) -> list[Transcript]:
    """Return the transcripts of a run; none where it has none, or where the file can't be read.

    Args:
        folder: the run's folder.
    """
    try:
        found = json.loads((folder / TRANSCRIPTS).read_text(encoding="utf-8"))
        return [
            Transcript(**{**each, "rows": [[Passage(**passage) for passage in row] for row in each["rows"]]})
            for each in found
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return []
