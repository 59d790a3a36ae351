"""Whether a loader can be sent to workers that are no copies of this process: spawn, forkserver."""

import multiprocessing
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from data.data_error import DataError
from data.loaders import Loader

_TOO_DEEP = 3
_HIGHEST_PROTOCOL = -1  # the module that knows it also reads what is pickled, which nothing here may do


def refuse_unsendable(owner: str, name: str, loader: Loader) -> None:
    """Refuse a loader whose workers would not start, with the part of it that they can't be given.

    Args:
        owner: name of the trainer.
        name: name of the loader.
        loader: loader; only a DataLoader with workers that are not forked is looked at.

    Raises:
        DataError: the dataset, collate_fn or worker_init_fn can't be pickled.
    """
    if not isinstance(loader, DataLoader) or not loader.num_workers:
        return
    context: Any = loader.multiprocessing_context or multiprocessing
    method = context.get_start_method()
    if method == "fork":
        return
    for what in ("dataset", "collate_fn", "worker_init_fn"):
        part = getattr(loader, what)
        error = _refused(part)
        if error is not None:
            path, shown = next(_inner(part, what), (what, part))
            raise DataError(
                f"{owner}: the workers of {name} are started by {method}, which must pickle what it gives them, and it "
                f"can't pickle {name}.{path}, {_named(shown)}: {error}.\n"
                "Make a lambda or an inner function a function of the module (def), open files and connections in the "
                "worker at the first __getitem__, or take num_workers = 0."
            ) from error


class _Nowhere:
    def write(self, data: Any) -> int:
        return len(data)


class _Trial(ForkingPickler):
    """Pickles to nowhere; data, which always can be, is passed over: it would take long, and move to shared memory."""

    def __init__(self) -> None:
        super().__init__(_Nowhere(), _HIGHEST_PROTOCOL)

    def reducer_override(self, thing: Any) -> Any:
        return (int, ()) if isinstance(thing, torch.Tensor | np.ndarray) else NotImplemented


def _refused(thing: Any) -> Exception | None:
    try:
        _Trial().dump(thing)
    except (AttributeError, TypeError) as error:
        return error
    except Exception as error:
        # Others are of a queue or lock, which may be given to a process that is being started, and only then.
        return error if type(error).__name__ == "PicklingError" else None
    return None


def _inner(thing: Any, path: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the innermost attributes that can't be pickled."""
    for key, value in getattr(thing, "__dict__", {}).items() if depth < _TOO_DEEP else ():
        if _refused(value) is not None:
            yield from _inner(value, f"{path}.{key}", depth + 1)
            yield f"{path}.{key}", value


def _named(thing: Any) -> str:
    name = getattr(thing, "__qualname__", "")
    return f"the function {name}" if name else f"a {type(thing).__name__}"
