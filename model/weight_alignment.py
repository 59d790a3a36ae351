"""The symmetries of a network's weights: reorder hidden units, and bring networks of one family into one order.

Reordering the units of a hidden layer changes a network's weights but not what it computes. `shuffle_units` does that
at random (augmentation); `align_units` undoes it as far as it can, by matching units to those of a reference network
(weight matching: Ainsworth, Hayase and Srinivasa, Git Re-Basin, 2023, algorithm 1).
"""

from collections.abc import Mapping, Sequence

import torch
from scipy.optimize import linear_sum_assignment

Parameters = dict[str, torch.Tensor]
Groups = Sequence[Sequence[tuple[str, int]]]  # for each hidden width: (parameter name, axis) along which it runs

_MAX_SWEEPS = 50  # over all groups; matching settles in five or so


def split_vector(vector: torch.Tensor, shapes: Mapping[str, torch.Size]) -> Parameters:
    """Cut a flat parameter vector into named tensors (views).

    Args:
        vector: (parameters,) flat parameters of one network.
        shapes: shape of each tensor by name, in the vector's order.
    """
    sizes = [shape.numel() for shape in shapes.values()]
    return {name: part.view(shapes[name]) for name, part in zip(shapes, vector.split(sizes), strict=True)}


def join_vector(parameters: Parameters) -> torch.Tensor:
    """Put named tensors into one flat vector (parameters,)."""
    return torch.cat([tensor.reshape(-1) for tensor in parameters.values()])


def reorder(parameters: Parameters, group: Sequence[tuple[str, int]], order: torch.Tensor) -> None:
    """Apply one order of units (n,) along every axis of a group, in place of the dict's tensors."""
    for name, axis in group:
        parameters[name] = parameters[name].index_select(axis, order)


def shuffle_units(parameters: Parameters, groups: Groups, share: float, generator: torch.Generator) -> Parameters:
    """Let some hidden units change places at random; the network computes the same.

    Args:
        parameters: parameters of one network, by name.
        groups: hidden widths of the network's family.
        share: share of each width's units that take part, from 0 to 1.
        generator: random generator that the units and their new order are drawn from.
    """
    result = dict(parameters)
    for group in groups:
        name, axis = group[0]
        units = parameters[name].shape[axis]
        chosen = torch.randperm(units, generator=generator)[: round(share * units)].sort().values
        order = torch.arange(units)
        order[chosen] = chosen[torch.randperm(len(chosen), generator=generator)]
        reorder(result, group, order)
    return result


def align_units(parameters: Parameters, reference: Parameters, groups: Groups) -> Parameters:
    """Reorder a network's hidden units to be as near to a reference network as can be found.

    Each width in turn gets the best order given the others (a linear assignment), until nothing moves.

    Args:
        parameters: parameters of one network, by name.
        reference: parameters of a network of the same family, by name.
        groups: hidden widths of the networks' family.

    Returns:
        The same network with its units in another order.
    """
    result = dict(parameters)
    for _ in range(_MAX_SWEEPS):
        moved = False
        for group in groups:
            similarity = sum(_rows(reference[name], axis) @ _rows(result[name], axis).T for name, axis in group)
            order = torch.from_numpy(linear_sum_assignment(similarity.numpy(), maximize=True)[1])
            if not torch.equal(order, torch.arange(len(order))):
                reorder(result, group, order)
                moved = True
        if not moved:
            break
    return result


def _rows(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    return tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)


def common_reference(networks: Sequence[Parameters], groups: Groups, rounds: int = 3) -> Parameters:
    """Find an order that suits many networks: the mean of networks aligned to it (Git Re-Basin, algorithm 3).

    Args:
        networks: parameters by name of each network of one family; the first one's order is the start.
        groups: hidden widths of the networks' family.
        rounds: number of times that all networks are aligned to their mean.

    Returns:
        The mean network, a reference for `align_units`.
    """
    reference = dict(networks[0])
    for _ in range(rounds):
        aligned = [align_units(network, reference, groups) for network in networks]
        reference = {name: torch.stack([network[name] for network in aligned]).mean(0) for name in reference}
    return reference
