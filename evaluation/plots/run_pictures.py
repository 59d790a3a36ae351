"""Pictures of what a trainer leaves in its run folder beside its numbers, such as model tokens or rankings.

A trainer writes data, not pictures: `plot.py` can then draw them again, and a report holds them as lines and text.
"""

import importlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.saved_run import RunDamagedError

# By the file that a trainer writes: the module whose `pictures(path)` draws it.
_DRAWN_BY = {
    "autoencoder.npz": "evaluation.plots.autoencoder_pictures",
    "tokens.npz": "evaluation.plots.token_pictures",
    "rankings.json": "evaluation.ranking.ranking_pictures",
    "comparison.json": "evaluation.ranking.comparison",
    "image_review.npz": "evaluation.plots.image_classifier_pictures",
}


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        name: name of the picture's file in plots/, without the ending.
        caption: text that says what the picture shows, and how to read it.
        figure: a matplotlib Figure.
    """

    name: str
    caption: str
    figure: Any


def pictures_of(run: Path) -> Iterator[Picture]:
    """Draw all pictures of a run.

    Args:
        run: folder of the run.

    Yields:
        One after another; nothing for a run of a trainer that leaves no such data.

    Raises:
        RunDamagedError: a file can't be read.
    """
    for name, module in _DRAWN_BY.items():
        file = run / name
        if not file.exists():
            continue
        try:
            yield from importlib.import_module(module).pictures(file)
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, zipfile.BadZipFile) as error:
            raise RunDamagedError.of(file, error) from error
