"""What is strange in the batches of a step: values that are not finite, samples that are extreme or empty."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from data.batch_size import batch_size_of
from train.failures.measure import plain_floats

_EXTREME = 1e3  # times the root mean square of the other samples
_SHOWN = 8

BAD, EXTREME, EMPTY = "not finite", "extreme", "all zeros"


@dataclass(frozen=True)
class Strange:
    """Samples of a batch that are strange in one of its fields.

    Attributes:
        what: kind of strangeness: BAD, EXTREME or EMPTY.
        field: path of the field in the batch; empty where the batch is a tensor.
        batch: number of the batch in the step input, from 0.
        rows: numbers of the strange rows of the batch, from 0.
        samples: indices of the strange samples in the dataset; None where they are not known.
    """

    what: str
    field: str
    batch: int
    rows: list[int]
    samples: list[Any] | None

    def __str__(self) -> str:
        named = f"part {self.field} of the batch" if self.field.isdigit() else f"field '{self.field}'"
        whose = named if self.field else "the batch"
        return f"{whose} is {self.what} in {self.where()}"

    def where(self) -> str:
        """Name the samples: `samples 3, 17`; or their rows in the batch."""
        if self.samples is None:
            return f"rows {listed(self.rows)} of the batch"
        return f"sample{'s' * (len(self.samples) > 1)} {listed(self.samples)}"


def listed(items: Sequence[Any], most: int = _SHOWN) -> str:
    """Write a list, at most so many of it: `3, 17, ... (120 in all)`."""
    text = ", ".join(str(item) for item in items[:most])
    return text if len(items) <= most else f"{text}, ... ({len(items)} in all)"


def strange_samples(batches: Sequence[Any], indices: Sequence[Sequence[Any]] | None) -> list[Strange]:
    """Look through batches. Host-device synchronisations.

    Args:
        batches: batches as the loader gave them.
        indices: indices in the dataset of each batch's samples, None if unknown.

    Returns:
        What is strange; values that are not finite first.
    """
    found = []
    for number, batch in enumerate(batches):
        size = batch_size_of(batch)
        known = indices[number] if indices is not None and number < len(indices) else None
        known = known if known is not None and len(known) == size else None
        for field, tensor in named_tensors(batch):
            if tensor.dim() and len(tensor) == size and plain_floats(tensor):
                for what, rows in _strange_rows(tensor).items():
                    samples = [known[row] for row in rows] if known is not None else None
                    found.append(Strange(what, field, number, rows, samples))
    return sorted(found, key=lambda strange: (BAD, EXTREME, EMPTY).index(strange.what))


def named_tensors(batch: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Go through a batch's tensors with their paths: `image`, `views.0`.

    Args:
        batch: tensor, or mappings, dataclasses, lists and tuples that hold some.
        name: path of the batch itself, before the paths of the tensors; empty at the top.
    """
    if isinstance(batch, torch.Tensor):
        yield name, batch
        return
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(batch, Mapping):
        parts = batch.items()
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        parts = ((entry.name, getattr(batch, entry.name)) for entry in dataclasses.fields(batch))
    elif isinstance(batch, list | tuple):
        parts = enumerate(batch)
    for key, part in parts:
        yield from named_tensors(part, f"{name}.{key}" if name else str(key))


@torch.no_grad()
def _strange_rows(tensor: torch.Tensor) -> dict[str, list[int]]:
    (plain,) = plain_floats(tensor)
    rows = plain.reshape(len(plain), -1).cpu().double()  # (B, values)
    bad = (rows.isnan() | rows.isposinf()).any(dim=1)  # -inf alone is what a mask holds
    found = {BAD: bad.nonzero().flatten().tolist()}
    rows = torch.where(rows.isfinite(), rows, 0.0)
    values = max(rows.shape[1], 1)
    squares = rows.square().sum(dim=1)
    # A sum without one sample, not the whole sum less that sample: beside 1e18 the others would vanish.
    before = squares.cumsum(0).roll(1).index_fill(0, torch.tensor([0]), 0.0)
    behind = squares.flip(0).cumsum(0).roll(1).index_fill(0, torch.tensor([0]), 0.0).flip(0)
    elsewhere = ((before + behind) / (values * max(len(rows) - 1, 1))).sqrt()
    largest = rows.abs().amax(dim=1) if rows.shape[1] else squares
    extreme = (largest > _EXTREME * elsewhere) & (elsewhere > 0) & ~bad
    found[EXTREME] = extreme.nonzero().flatten().tolist()
    empty = (largest == 0) & ~bad
    # Zero is a usual target, and a field that is mostly zeros is meant to be.
    if values > 1 and 2 * int(empty.sum()) < len(rows):
        found[EMPTY] = empty.nonzero().flatten().tolist()
    return {what: where for what, where in found.items() if where}
