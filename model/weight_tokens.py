"""How a network's flat parameter vector is cut into tokens, and put together again."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TokenLayout:
    """The tokens of one family's networks.

    Attributes:
        index: (T, W) int64, for each token the positions of its numbers in the flat vector; `parameters` is padding.
        slots: (T,) int64, number of the slot of each token. Tokens of one slot have one meaning and length: the units
            of one layer, or one piece of the vector.
        parameters: length of the flat vector.
        lengths: numbers in a token, by slot.
        names: name of the part of a network that each slot holds, by slot.
    """

    index: torch.Tensor
    slots: torch.Tensor
    parameters: int
    lengths: tuple[int, ...]
    names: tuple[str, ...]

    def tokens(self, vectors: torch.Tensor) -> torch.Tensor:
        """Cut vectors (C, parameters) into tokens (C, T, W), padded with zeros."""
        padded = torch.nn.functional.pad(vectors, (0, 1))
        return padded[:, self.index]

    def vectors(self, tokens: torch.Tensor) -> torch.Tensor:
        """Put tokens (C, T, W) together into vectors (C, parameters)."""
        out = tokens.new_zeros(len(tokens), self.parameters + 1)
        out[:, self.index.flatten()] = tokens.flatten(1)
        return out[:, :-1]


def neuron_layout(shapes: Mapping[str, torch.Size]) -> TokenLayout:
    """Make each unit one token: its incoming weights and its bias (of a norm: gain and shift). A layer is a slot.

    Args:
        shapes: the family's parameters by name (`layer.weight`, `layer.bias`), in the flat vector's order.
    """
    rows_of: dict[str, list[torch.Tensor]] = {}
    start = 0
    for name, shape in shapes.items():
        positions = torch.arange(start, start + shape.numel()).view(shape[0], -1)  # (units, numbers of a unit)
        rows_of.setdefault(name.rpartition(".")[0], []).append(positions)
        start += shape.numel()
    return _layout({layer: torch.cat(rows, dim=1) for layer, rows in rows_of.items()}, start)


def flat_layout(shapes: Mapping[str, torch.Size], width: int) -> TokenLayout:
    """Cut the flat vector into pieces of `width`; a piece is a token and a slot."""
    total = sum(shape.numel() for shape in shapes.values())
    pieces = torch.arange(total).split(width)
    return _layout({f"numbers {piece[0]} to {piece[-1]}": piece[None] for piece in pieces}, total)


STATISTICS = 7
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def weight_statistics(vectors: torch.Tensor, shapes: Mapping[str, torch.Size]) -> torch.Tensor:
    """Describe networks by statistics of each parameter tensor.

    Mean, variance and five quantiles (Unterthiner et al., Predicting Neural Network Accuracy from Weights, 2020).

    Args:
        vectors: (C, parameters) flat parameters of C networks.
        shapes: shape of each parameter by name, in the vectors' order.

    Returns:
        (C, tensors, 7) statistics of each parameter tensor.
    """
    levels = torch.tensor(_QUANTILES, device=vectors.device)
    rows = []
    for part in vectors.split([shape.numel() for shape in shapes.values()], dim=1):
        moments = torch.stack([part.mean(1), part.var(1, unbiased=False)], dim=1)
        rows.append(torch.cat([moments, part.quantile(levels, dim=1).T], dim=1))
    return torch.stack(rows, dim=1)


def layer_columns(statistics: torch.Tensor, tensors: int) -> torch.Tensor:
    """Give statistics of families with different depths common columns: layer i has place i, the head the last place.

    Args:
        statistics: (C, own tensors, 7) statistics of networks of one family, two tensors a layer.
        tensors: number of places of the result, at least as many as own tensors.

    Returns:
        (C, tensors x 7), zero where a family has no layer.
    """
    columns = statistics.new_zeros(len(statistics), tensors, STATISTICS)
    columns[:, : statistics.shape[1] - 2] = statistics[:, :-2]
    columns[:, -2:] = statistics[:, -2:]
    return columns.flatten(1)


def _layout(rows_of: Mapping[str, torch.Tensor], total: int) -> TokenLayout:
    width = max(rows.shape[1] for rows in rows_of.values())
    padded = [torch.nn.functional.pad(rows, (0, width - rows.shape[1]), value=total) for rows in rows_of.values()]
    slots = torch.cat([torch.full((len(rows),), slot) for slot, rows in enumerate(rows_of.values())])
    lengths = tuple(rows.shape[1] for rows in rows_of.values())
    return TokenLayout(torch.cat(padded), slots, total, lengths, tuple(rows_of))
