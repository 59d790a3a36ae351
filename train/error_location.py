"""Where in the project an error arose."""

import traceback
from collections.abc import Iterable

from constants import PROJECT_ROOT

# Through these the program calls what its users write, so a place in them tells nobody anything.
_BETWEEN = (
    "train/base_trainer.py", "train/contract.py", "train/machine.py", "train/steps/", "train/compiled/",
    "train/loading/", "train/loop/", "train/distributed/", "commands/",
    "data/loaders.py", "data/sharding.py",
)  # fmt: skip


def location(error: BaseException) -> str:
    """Say where in the project an error arose: `train/my_trainer.py:31 in compute_loss: `, or nothing."""
    return place(traceback.extract_tb(error.__traceback__))


def place(frames: Iterable[traceback.FrameSummary]) -> str:
    """Name the last of some frames that is the project's own, as `location` does."""
    root = f"{PROJECT_ROOT}/"
    ours = [frame for frame in frames if frame.filename.startswith(root) and "site-packages" not in frame.filename]
    named = [(frame.filename.removeprefix(root), frame) for frame in ours]
    named = [(file, frame) for file, frame in named if not file.startswith(_BETWEEN)]
    return f"{named[-1][0]}:{named[-1][1].lineno} in {named[-1][1].name}: " if named else ""
