"""Where in the user's code an error arose."""

import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

from constants import PACKAGE_ROOT, PROJECT_ROOT

# Through these the program calls what its users write, so a place in them tells nobody anything.
_BETWEEN = (
    "train.py", "menagerie.py", "train/base_trainer.py", "train/contract.py", "train/context.py", "train/session.py",
    "train/machine.py", "train/snapshot.py", "train/registry.py", "train/step_choice.py",
    "train/callbacks/callbacks.py", "train/steps/", "train/compiled/",
    "train/loading/", "train/agents/", "train/loop/", "train/distributed/", "train/checkpointing/",
    "train/failures/", "commands/", "data/loaders.py", "data/sharding.py", "data/batches.py",
    "data/batch_size.py", "data/batch_indices.py", "data/first_batch.py", "data/tensor_loader.py",
    "train/side_effects.py",
)  # fmt: skip
_PYTHONS_OWN = tuple({str(Path(sysconfig.get_path(name)).resolve()) + "/" for name in ("stdlib", "platstdlib")})


def location(error: BaseException) -> str:
    """Say where in the user's code an error arose: `train/my_trainer.py:31 in compute_loss: `, or nothing."""
    return place(traceback.extract_tb(error.__traceback__))


def place(frames: Iterable[traceback.FrameSummary]) -> str:
    """Name the last of some frames that is the user's own, as `location` does."""
    named = user_frames(frames)
    return f"{_shown(named[-1].filename)}:{named[-1].lineno} in {named[-1].name}: " if named else ""


def user_frames(frames: Iterable[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """Leave out the frames of Python, of installed packages, and of what lies between these and the user's code."""
    return [frame for frame in frames if _is_users(frame.filename)]


def is_library(file: str) -> bool:
    """Say whether a file is Python's own, or of an installed package.

    Args:
        file: absolute path of a Python file.
    """
    return "site-packages" in file or "dist-packages" in file or file.startswith(_PYTHONS_OWN)


def innermost(frames: Iterable[FrameType], function: str, file: str) -> FrameType | None:
    """Return the innermost call of a function; None where there was none.

    Args:
        frames: frames of a traceback, the innermost last.
        function: name of the function.
        file: what the path of its file ends with, such as `train/base_trainer.py`.
    """
    found = [frame for frame in frames if frame.f_code.co_name == function and path_of(frame).endswith(file)]
    return found[-1] if found else None


def path_of(frame: FrameType) -> str:
    """Return the path of a frame's file, with forward slashes."""
    return frame.f_code.co_filename.replace("\\", "/")


def _is_users(file: str) -> bool:
    if file.startswith("<") or is_library(file):
        return False
    return not file.removeprefix(f"{PACKAGE_ROOT}/").startswith(_BETWEEN)


def _shown(file: str) -> str:
    return file.removeprefix(f"{PROJECT_ROOT}/")
