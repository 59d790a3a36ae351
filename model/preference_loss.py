"""Losses of pairs of answers, of which one is preferred."""

import torch
from torch import Tensor
from torch.nn import functional


def sums_of_rows(values: Tensor, counts: Tensor) -> Tensor:
    """Return the sum over each row of values that lie end to end, added in one order whatever the device.

    Args:
        values: (N,) float.
        counts: (R,) int64, values of each row; their sum is N.

    Returns:
        (R,) float.
    """
    return torch.segment_reduce(values, "sum", lengths=counts, unsafe=True)


def preference_loss(
    margins: Tensor, lengths: Tensor, loss: str = "sigmoid", beta: float = 0.1, label_smoothing: float = 0.0
) -> Tensor:
    """Return the mean loss of pairs by their margins.

    Args:
        margins: (2P,) by how much more likely than the reference each answer is, a log-ratio: the P chosen ones, then
            the P rejected ones.
        lengths: (2P,) tokens of each answer.
        loss: `sigmoid` (DPO; Rafailov et al., 2023), `ipo` (Azar et al., 2023; margins per token) or `hinge` (SLiC).
        beta: how strongly the model is kept near to the reference.
        label_smoothing: share of the pairs whose preference is taken to be the wrong way round (sigmoid).

    Returns:
        A scalar.
    """
    if loss == "ipo":
        margins = margins / lengths
    chosen, rejected = margins.chunk(2)
    apart = chosen - rejected
    if loss == "ipo":
        return (apart - 1 / (2 * beta)).square().mean()
    if loss == "hinge":
        return functional.relu(1 - beta * apart).mean()
    right, wrong = functional.logsigmoid(beta * apart), functional.logsigmoid(-beta * apart)
    return -((1 - label_smoothing) * right + label_smoothing * wrong).mean()
