"""A copy of a run's state, to be put back after steps on probation."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from train.context import StatefulPart
from train.copies import copied


class Snapshot:
    """The states of some parts of a run, as they are now.

    Args:
        parts: parts of the run's state, entries of `RunContext.stateful_parts`.
        on_host: whether to keep the copies in the host's memory, since the device's is measured.
    """

    def __init__(self, parts: Iterable[StatefulPart], on_host: bool = False) -> None:
        self._kept = [(entry, copied(entry.part.state_dict(), on_host)) for entry in parts]

    def restore(self) -> None:
        """Put the states back, into the very tensors where that can be: a captured graph knows their addresses."""
        for entry, kept in self._kept:
            if not (entry.in_place and _written_back(entry.part.state_dict(), kept)):
                entry.part.load_state_dict(copied(kept))  # an optimizer would go on with these very tensors


class TensorCopies:
    """Copies of tensors that change in place.

    Args:
        tensors: tensors to copy; they must be the same objects when they are put back.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self.tensors = list(tensors)
        self.values = [tensor.clone() for tensor in self.tensors]

    def restore(self) -> None:
        """Put the values back."""
        for tensor, value in zip(self.tensors, self.values, strict=True):
            tensor.copy_(value)


@torch.no_grad()
def _written_back(live: Any, kept: Any) -> bool:
    """Copy the tensors of one tree into those of another; return False where the trees are not alike otherwise."""
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    if not _paired(live, kept, pairs):
        return False
    for tensor, value in pairs:
        tensor.copy_(value)
    return True


def _paired(live: Any, kept: Any, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    if isinstance(kept, torch.Tensor):
        if not isinstance(live, torch.Tensor) or live.shape != kept.shape or live.dtype != kept.dtype:
            return False
        pairs.append((live, kept))
        return True
    if isinstance(kept, dict):
        return (
            isinstance(live, dict)
            and live.keys() == kept.keys()
            and all([_paired(live[key], kept[key], pairs) for key in kept])
        )
    if isinstance(kept, list | tuple):
        return (
            type(live) is type(kept)
            and len(live) == len(kept)
            and all([_paired(one, other, pairs) for one, other in zip(live, kept, strict=True)])
        )
    return type(live) is type(kept) and bool(live == kept)
