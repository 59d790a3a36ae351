"""What is said where a run has trained, and what it leaves can't be written: nothing of the training is lost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from constants import command
from storage.errors import OutputError

WEIGHTS = "model.safetensors"


@contextmanager
def weights_are_safe(path_of: Callable[[str], Path], written: list[str], merge: bool = False) -> Iterator[None]:
    """Let a failed write of a block say that the trained weights are there, and how to write what is missing.

    Args:
        path_of: gives the place of a name in the run's folder.
        written: names of what has been written, which the block may add to.
        merge: whether a merged model is among what is missing.

    Raises:
        OutputError: the failed write, with what to do.
    """
    try:
        yield
    except OutputError as error:
        weights = path_of(WEIGHTS)
        if not weights.is_file():
            raise
        there = f" Written: {', '.join(written)}." if written else ""
        again = f"`{command('train')} --export {weights.parent}"
        both = f"{again}` writes the export when there is room" + (f", {again} merge=on` the merged model" * merge)
        raise OutputError(f"{error}\nThe training is done, and its weights are in {weights}.{there} {both}.") from error
