"""Many tensors in one, so that what is done to each number takes a few calls and not hundreds.

Each begins where a tensor of its own would, at a multiple of 64 bytes: how a matrix product rounds may depend on it.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

_ALIGNED = 16  # numbers of 4 bytes


def zeros_for(like: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return zeros for tensors of these sizes: the flat tensor (N,), and a view for each."""
    flat = torch.zeros(sum(_room(tensor.shape) for tensor in like), device=like[0].device)
    return flat, views(flat, like)


def flattened(tensors: Sequence[Tensor]) -> Tensor:
    """Return a copy of float32 tensors in one (N,), with zeros between them."""
    flat, parts = zeros_for(tensors)
    for part, tensor in zip(parts, tensors, strict=True):
        part.copy_(tensor)
    return flat


def views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return the parts of a flat tensor in the sizes of the tensors that it is for."""
    return list(_views(flat, [tensor.shape for tensor in like]))


def _views(flat: Tensor, shapes: Sequence[torch.Size]) -> Iterator[Tensor]:
    begin = 0
    for shape in shapes:
        yield flat[begin : begin + math.prod(shape)].view(shape)
        begin += _room(shape)


def _room(shape: torch.Size) -> int:
    return -(-math.prod(shape) // _ALIGNED) * _ALIGNED
