"""Batches of sampled tokens with what reinforcement needs of each: advantage, weight, log-probability when sampled."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from data.tensor_loader import epoch_generator
from data.token_batches import TokenBatch
from model.packed_attention import PackedRows


@dataclass(frozen=True)
class PolicyRow:
    """Tokens of one row of a rollout.

    Attributes:
        ids: (L,) int32 token ids, 2 or more.
        sampled: (L,) bool, which of them were sampled; never the first.
        logprobs: (L,) float32, log-probability of each sampled id when it was sampled.
        advantages: (L,) float32, how much better than expected each sampled id was; 0 for the others.
        weight: by how much each sampled id counts in the loss.
        rollout: number of the rollout, by which rows stay together.
        divisor: what the row adds to that by which a step's loss is divided; None for the weights of its sampled ids.
    """

    ids: Tensor
    sampled: Tensor
    logprobs: Tensor
    advantages: Tensor
    weight: float = 1.0
    rollout: int = 0
    divisor: float | None = None

    @property
    def counts(self) -> float:
        """What the row adds to that by which a step's loss is divided."""
        return self.weight * int(self.sampled.sum()) if self.divisor is None else self.divisor

    @property
    def teaches(self) -> bool:
        """Whether anything is learned from it; else it counts in what the loss is divided by, and no more."""
        return bool(self.advantages.any())


@dataclass
class PolicyBatch:
    """Rows of rollouts, laid end to end.

    Attributes:
        tokens: (T,) int64 what the model reads: each row but its last token. Empty where there is nothing to learn.
        rows: where each row begins, and the position of each token in it; None without rows.
        places: (N,) int64 which of the tokens come right before a sampled one.
        targets: (N,) int64 the sampled tokens.
        old_logprobs: (N,) float32 their log-probabilities when they were sampled.
        advantages: (N,) float32 their advantages, each times its weight.
        total_weight: what the loss is divided by, once an optimizer step.
        rollouts: number of rollouts that the batch stands for.
        fresh: number of the targets, the first ones, of which the weights are still those that they were sampled from
            when the batch's step begins.
        reward: mean reward of these rollouts; 0 where there are none.
        numbers: what is told of all rollouts of the pass, by name: the mean, and over how many it is one. Only the
            first batch of a pass has them.
    """

    tokens: Tensor
    rows: PackedRows | None
    places: Tensor
    targets: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    total_weight: float = 0.0
    rollouts: int = 0
    fresh: int = 0
    reward: float = 0.0
    numbers: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        """Number of rollouts; 1 where there are none, since what is told of them counts all the same."""
        return max(1, self.rollouts)

    def token_batch(self) -> TokenBatch:
        """Return the rows alone, for a forward pass.

        Raises:
            ValueError: there are none.
        """
        if self.rows is None:
            raise ValueError("the batch has no rows")
        return TokenBatch(self.tokens, self.rows, self.places, self.targets, torch.ones_like(self.advantages))


def pack_policy_rows(
    rows: Sequence[PolicyRow],
    rollouts: int,
    fresh: bool = True,
    reward: float = 0.0,
    numbers: Mapping[str, tuple[float, float]] | None = None,
    old: Sequence[PolicyRow] = (),
    total_weight: float | None = None,
) -> PolicyBatch:
    """Lay rows end to end.

    Args:
        rows: the rows; none for a batch from which nothing is learned.
        rollouts: number of rollouts that the batch stands for.
        fresh: whether the weights are still those that the rows were sampled from.
        reward: mean reward of these rollouts.
        numbers: what is told of all rollouts of the pass, by name.
        old: rows that other weights have sampled, laid behind the others.
        total_weight: what the loss is divided by; None for what all these rows add to it.

    Raises:
        ValueError: a row's first token is one that was sampled: nothing comes before it.
    """
    laid = [*rows, *old]
    if any(bool(row.sampled[0]) for row in laid):
        raise ValueError("the first token of a row can't have been sampled")
    total = math.fsum(row.counts for row in laid) if total_weight is None else total_weight
    if not laid:
        none, no_ids = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
        return PolicyBatch(no_ids, None, no_ids, no_ids, none, none, total, rollouts, 0, reward, numbers or {})
    tokens = torch.cat([row.ids[:-1] for row in laid]).long()
    sampled = torch.cat([row.sampled[1:] for row in laid])
    places = sampled.nonzero().flatten()  # on the CPU: nothing waits
    targets, logprobs = (torch.cat(parts)[places] for parts in
                         ([row.ids[1:] for row in laid], [row.logprobs[1:] for row in laid]))  # fmt: skip
    advantages = torch.cat([row.advantages[1:] * row.weight for row in laid])[places]
    packed = PackedRows.of([len(row.ids) - 1 for row in laid])
    of_now = sum(int(row.sampled.sum()) for row in rows) if fresh else 0
    return PolicyBatch(
        tokens, packed, places, targets.long(), logprobs, advantages, total, rollouts, of_now, reward, numbers or {}
    )


def spread_rollouts(rows: Sequence[PolicyRow], batches: int, seed: int, epoch: int) -> list[list[PolicyRow]]:
    """Spread rollouts over batches so that these are about equally long; the rows of a rollout stay together.

    Args:
        rows: rows of all rollouts.
        batches: number of batches; some may stay empty.
        seed: seed of the order.
        epoch: number of the epoch, from 0; each has an order of its own.

    Returns:
        The rows of each batch.
    """
    together: dict[int, list[PolicyRow]] = {}
    for row in rows:
        together.setdefault(row.rollout, []).append(row)
    groups = list(together.values())
    order = torch.randperm(len(groups), generator=epoch_generator(seed, epoch)).tolist()
    found: list[list[PolicyRow]] = [[] for _ in range(batches)]
    filled = [0] * batches
    for number in order:
        emptiest = filled.index(min(filled))
        found[emptiest] += groups[number]
        filled[emptiest] += sum(len(row.ids) for row in groups[number])
    return found


_TENSORS = ("ids", "sampled", "logprobs", "advantages")


def state_of_rows(rows: Sequence[PolicyRow]) -> dict[str, Any]:
    """Return rows as plain data and a few tensors, whatever their number."""
    return {
        "lengths": [len(row.ids) for row in rows],
        "plain": [[row.weight, row.rollout, row.divisor] for row in rows],
        **{name: torch.cat([getattr(row, name) for row in rows]) for name in _TENSORS if rows},
    }


def rows_of_state(state: Mapping[str, Any]) -> list[PolicyRow]:
    """Return the rows of a `state_of_rows`."""
    lengths = list(state["lengths"])
    if not lengths:
        return []
    tensors = zip(*(state[name].split(lengths) for name in _TENSORS), strict=True)
    return [
        PolicyRow(*each, weight, rollout, divisor)
        for each, (weight, rollout, divisor) in zip(tensors, state["plain"], strict=True)
    ]
