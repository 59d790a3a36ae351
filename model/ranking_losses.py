"""Losses of lists that are to be ranked. Each is a mean over the lists of a batch.

All take scores (B, N), truth (B, N) such as accuracies, higher is better, on a scale of about one standard deviation a
list, and mask (B, N), True where there is a model.
"""

from collections.abc import Callable

import torch
from torch.nn import functional as F

RankingLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
_NEVER = -1e9  # score of a model that is not there


def list_mle(scores: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """ListMLE (Xia et al., ICML 2008): negative log-likelihood of the true order under Plackett-Luce, a model.

    Args:
        scores: (B, N) predicted score of each model of each list, higher is better.
        truth: (B, N) measured performance of each model of each list, higher is better.
        mask: (B, N) bool, False where there is no model.

    Returns:
        A scalar.
    """
    order = truth.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True)
    ranked = scores.masked_fill(~mask, _NEVER).gather(1, order)  # best first, absent last
    remaining = ranked.flip(1).logcumsumexp(1).flip(1)  # log of the sum over all that come no earlier
    present = mask.gather(1, order)
    return ((remaining - ranked) * present).sum(1).div(present.sum(1)).mean()


def list_net(scores: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """ListNet (Cao et al., ICML 2007): cross entropy between the softmax of the truth and that of the scores.

    Args:
        scores: (B, N) predicted score of each model of each list, higher is better.
        truth: (B, N) measured performance of each model of each list, higher is better.
        mask: (B, N) bool, False where there is no model.

    Returns:
        A scalar.
    """
    wanted = truth.masked_fill(~mask, _NEVER).softmax(1)
    return -(wanted * scores.masked_fill(~mask, _NEVER).log_softmax(1)).sum(1).mean()


def pairwise_logistic(scores: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """RankNet (Burges et al., ICML 2005): -log sigmoid of the score difference, mean over pairs of unequal truth.

    Args:
        scores: (B, N) predicted score of each model of each list, higher is better.
        truth: (B, N) measured performance of each model of each list, higher is better.
        mask: (B, N) bool, False where there is no model.

    Returns:
        A scalar.
    """
    better = _better(truth, mask)  # (B, N, N)
    return _mean_over_pairs(scores, better.to(scores.dtype))


def lambda_weighted(scores: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """LambdaRank (Burges 2010): the logistic loss of a pair, times how much swapping the two would change the NDCG.

    Gains are the truth from 0 (worst of the list) to 1 (best); discounts are those of the present order.

    Args:
        scores: (B, N) predicted score of each model of each list, higher is better.
        truth: (B, N) measured performance of each model of each list, higher is better.
        mask: (B, N) bool, False where there is no model.

    Returns:
        A scalar.
    """
    low = truth.masked_fill(~mask, torch.inf).amin(1, keepdim=True)
    high = truth.masked_fill(~mask, -torch.inf).amax(1, keepdim=True)
    gains = (truth - low) / (high - low).clamp(min=1e-9)
    present = scores.detach().masked_fill(~mask, -torch.inf)
    places = present.argsort(dim=1, descending=True).argsort(dim=1)
    discounts = 1 / torch.log2(places.to(scores.dtype) + 2)
    change = (gains[:, :, None] - gains[:, None, :]).abs() * (discounts[:, :, None] - discounts[:, None, :]).abs()
    return _mean_over_pairs(scores, change * _better(truth, mask))


def _better(truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mark pairs (i, j) with truth i > truth j, both there: (B, N, N) bool."""
    return (truth[:, :, None] > truth[:, None, :]) & mask[:, :, None] & mask[:, None, :]


def _mean_over_pairs(scores: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    losses = F.softplus(scores[:, None, :] - scores[:, :, None])  # (B, i, j): -log sigmoid(score i - score j)
    return ((losses * weights).sum((1, 2)) / weights.sum((1, 2)).clamp(min=1e-9)).mean()


RANKING_LOSSES: dict[str, RankingLoss] = {
    "list_mle": list_mle,
    "list_net": list_net,
    "pairwise": pairwise_logistic,
    "lambda": lambda_weighted,
}
