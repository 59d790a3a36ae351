"""The number of the epoch, told to all parts of a loader that order or change their samples by it."""

from collections.abc import Iterator, Mapping
from typing import Any

_PARTS = ("batch_sampler", "sampler", "dataset", "whole")  # of a loader, a sampler, a wrapped dataset
_DEPTH = 5  # wrappers around wrappers


def set_epoch(loader: Any, epoch: int, itself: bool = True, parts: bool = True) -> None:
    """Call `set_epoch` of a loader and of what it reads through, wherever there is one; of each object once.

    Told are the loader, its `sampler` and `batch_sampler`, the sampler of that, its dataset, and what that wraps as
    `dataset` (Subset) or `datasets` (ConcatDataset).

    Args:
        loader: loader whose next pass is the epoch's.
        epoch: number of the epoch, from 0.
        itself: whether a loader that counts its passes by itself is told too.
        parts: whether what the loader reads through is told too.
    """
    told: set[int] = set()
    for part in _parts_of(loader, _DEPTH if parts else 1):
        if part is loader and not itself and getattr(loader, "draws_by_epoch", False):
            continue
        method = getattr(part, "set_epoch", None)
        if not callable(method):
            continue
        owner = id(getattr(method, "__self__", part))  # a wrapper may pass the name through to what it wraps
        if owner not in told:
            told.add(owner)
            method(epoch)


def has_set_epoch(loader: Any) -> bool:
    """Say whether a loader, or a part of it, is told the epoch.

    Args:
        loader: any loader.
    """
    return any(callable(getattr(part, "set_epoch", None)) for part in _parts_of(loader, _DEPTH))


def _parts_of(value: Any, depth: int) -> Iterator[Any]:
    """Yield an object and the parts that it reads through, outermost first."""
    if value is None or depth == 0:
        return
    yield value
    for name in _PARTS:
        yield from _parts_of(getattr(value, name, None), depth - 1)
    inside = getattr(value, "datasets", None)
    for part in inside.values() if isinstance(inside, Mapping) else inside if isinstance(inside, list | tuple) else ():
        yield from _parts_of(part, depth - 1)
