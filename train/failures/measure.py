"""The size of tensors, and how many of their values are not finite."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from data.batches import tensors_in

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)


@dataclass(frozen=True)
class Measure:
    """What was measured of one tensor, or of several together.

    Attributes:
        norm: L2 norm of all values, computed in float64 (on MPS in float32).
        largest: largest absolute value; NaN where a value is NaN.
        nan: number of values that are NaN.
        inf: number of values that are +inf.
        minus_inf: number of values that are -inf, which masks hold on purpose.
        count: number of all values.
    """

    norm: float
    largest: float
    nan: int
    inf: int
    minus_inf: int
    count: int

    @property
    def finite(self) -> bool:
        """Whether all values are."""
        return not (self.nan or self.inf or self.minus_inf)

    @property
    def wrong(self) -> bool:
        """Whether there are values that are no mask's."""
        return bool(self.nan or self.inf)

    def divided(self, by: float) -> "Measure":
        """Return the measure of the same tensor divided by a number."""
        return replace(self, norm=self.norm / by, largest=self.largest / by)

    def describe(self) -> str:
        """Say what is not finite: `3 of 640 values are NaN`; or `finite`."""
        parts = [
            f"{number} {name}"
            for number, name in ((self.nan, "NaN"), (self.inf, "inf"), (self.minus_inf, "-inf"))
            if number
        ]
        return f"{', '.join(parts)} of {self.count}" if parts else "finite"


def plain_floats(value: Any) -> list[torch.Tensor]:
    """Return the floating-point tensors that a value holds; of sparse ones their values."""
    found = []
    for tensor in tensors_in(value):
        if tensor.layout is torch.sparse_coo:
            tensor = tensor.detach().coalesce().values()
        if tensor.layout is torch.strided and not tensor.is_nested and tensor.dtype in _FLOATS:
            found.append(torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach())
    return found


@torch.no_grad()
def measure(value: Any) -> Measure | None:
    """Measure the floating-point tensors of a value together. One host-device synchronisation.

    Args:
        value: a tensor, or containers of tensors.

    Returns:
        The measure; None where there is no such tensor.
    """
    tensors = plain_floats(value)
    if not tensors:
        return None
    rows = torch.stack([_numbers(tensor).cpu() for tensor in tensors]).tolist()
    norms, largest, *counts = zip(*rows, strict=True)
    norm = math.sqrt(sum(norm * norm for norm in norms)) if all(map(math.isfinite, norms)) else sum(norms)
    # `max` passes over a NaN that is not the first one.
    top = math.nan if any(map(math.isnan, largest)) else max(largest)
    return Measure(norm, top, *(int(sum(count)) for count in counts))


def _numbers(tensor: torch.Tensor) -> torch.Tensor:
    wide = torch.float32 if tensor.device.type == "mps" else torch.float64  # squares of float32 overflow
    if not tensor.numel():
        return torch.zeros(6, dtype=wide, device=tensor.device)
    return torch.stack([
        torch.linalg.vector_norm(tensor, dtype=wide),
        torch.linalg.vector_norm(tensor, torch.inf, dtype=wide),
        tensor.isnan().sum().to(wide),
        tensor.isposinf().sum().to(wide),
        tensor.isneginf().sum().to(wide),
        torch.tensor(tensor.numel(), dtype=wide, device=tensor.device),
    ])  # fmt: skip
