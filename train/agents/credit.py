"""What is learned from rollouts: rewards become advantages, and rollouts rows of tokens that carry them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from data.policy_batches import PolicyRow
from model.token_losses import group_advantages
from train.agents.rollout import Rollout, SampledRow
from train.agents.rollout_summary import Numbers

Reference = Callable[[Sequence[SampledRow]], list[torch.Tensor]]


@dataclass(frozen=True)
class CreditSettings:
    """What is made of rewards.

    Attributes:
        group_size: rollouts of a group, which are compared with one another.
        advantage: what a rollout is compared with; see `group_advantages`.
        average: what the loss is a mean over: `tokens`; `rollouts`, each of which is a mean over its tokens; or
            rollouts, each of which is a sum over its tokens divided by a `constant`.
        average_length: that constant, in tokens.
        train_cut_off: whether rollouts are trained on in which an answer was cut off.
        overlong_length: sampled tokens of a rollout from which on it has the whole penalty on length; 0 for none.
        overlong_buffer: tokens before that over which the penalty grows from 0.
        overlong_penalty: what is taken off the reward.
        kl_weight: weight of the penalty on the divergence from the start.
        skip_flat: whether groups of one reward are left out even where the penalty on the divergence would teach.
        probing: whether advantages are made up, since steps are only tried.
    """

    group_size: int = 8
    advantage: str = "centred"
    average: str = "tokens"
    average_length: int = 1
    train_cut_off: bool = True
    overlong_length: int = 0
    overlong_buffer: int = 0
    overlong_penalty: float = 1.0
    kl_weight: float = 0.0
    skip_flat: bool = False
    probing: bool = False


class Credit:
    """Makes the rows that are learned from.

    Args:
        settings: how.
        reference: function that gives of rows the log-probabilities of their sampled ids at the start of training,
            where the divergence from it is wanted.
    """

    def __init__(self, settings: CreditSettings, reference: Reference | None = None) -> None:
        self.settings = settings
        self._reference = reference if settings.kl_weight else None

    def penalty(self, rollout: Rollout) -> float:
        """Return what a rollout's length takes off its reward: the soft punishment of DAPO (Yu et al., 2025)."""
        settings = self.settings
        if not settings.overlong_length:
            return 0.0
        over = rollout.tokens - (settings.overlong_length - settings.overlong_buffer)
        share = over / settings.overlong_buffer if settings.overlong_buffer else float(over > 0)
        return settings.overlong_penalty * min(1.0, max(0.0, share))

    def groups(self, rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
        """Return the rollouts that have a reward in their groups: a task that is drawn twice has two."""
        found: dict[tuple[int, int], list[Rollout]] = {}
        for rollout in rollouts:
            if rollout.reward is not None:
                found.setdefault((rollout.task, rollout.sample // self.settings.group_size), []).append(rollout)
        return list(found.values())

    def is_flat(self, group: Sequence[Rollout]) -> bool:
        """Say whether the rewards of a group are all the same, so that a comparison inside of it teaches nothing."""
        return not any(group_advantages([self.reward(each) for each in group], [0] * len(group)))

    def advantages(self, groups: Sequence[Sequence[Rollout]]) -> list[list[float]]:
        """Return of each rollout of each group how much better it was than what it is compared with."""
        rewards = [self.reward(each) for group in groups for each in group]
        numbers = [number for number, group in enumerate(groups) for _ in group]
        found = iter(group_advantages(rewards, numbers, self.settings.advantage))
        return [[next(found) for _ in group] for group in groups]

    def reward(self, rollout: Rollout) -> float:
        """Return what is compared: the agent's reward, less what a rollout's length takes off it."""
        return (rollout.reward or 0.0) - self.penalty(rollout)

    def learns_from(self, rollout: Rollout) -> bool:
        """Say whether a rollout that has a reward is trained on, where its group teaches anything."""
        return rollout.turns > 0 and (self.settings.train_cut_off or not rollout.cut_off)

    def rows(self, rollouts: Sequence[Rollout], numbers: Numbers) -> list[PolicyRow]:
        """Return what is learned from.

        Rollouts of groups that teach nothing are left out, and so are those without reward, without an answer, or cut
        off where these are not to be trained on. All others count in what the loss is divided by, also one whose reward
        is just the mean.

        Args:
            rollouts: rollouts of an epoch.
            numbers: takes up `flat_groups`, and where there is a penalty `overlong` (share of rollouts that have one)
                and `kl`.

        Returns:
            Their rows.
        """
        settings, groups = self.settings, self.groups(rollouts)
        flat = [self.is_flat(group) for group in groups]
        if groups:
            numbers["flat_groups"] = (sum(flat) / len(groups), len(groups))
        given = [(number, each) for number, group in enumerate(groups) for each in group]
        if settings.overlong_length and given:
            numbers["overlong"] = (sum(self.penalty(each) > 0 for _, each in given) / len(given), len(given))
        advantages = [value for group in self.advantages(groups) for value in group]
        if settings.probing:
            advantages = [1.0 if place % 2 else -1.0 for place in range(len(given))]
        teaching = {number for (number, _), advantage in zip(given, advantages, strict=True) if advantage}
        if self._reference is not None:
            teaching = {number for number, level in enumerate(flat) if not (level and settings.skip_flat)}
        kept = [
            (place, rollout, advantage)
            for place, ((number, rollout), advantage) in enumerate(zip(given, advantages, strict=True))
            if number in teaching and self.learns_from(rollout)
        ]
        penalties = self._penalties([row for _, rollout, _ in kept for row in rollout.rows], numbers)
        found = []
        for place, rollout, advantage in kept:
            for row in rollout.rows:
                of_each = torch.where(row.sampled, advantage, 0.0).float()
                of_each = of_each if penalties is None else of_each + next(penalties)
                weight, divisor = self._weight(rollout, row)
                found.append(PolicyRow(row.ids, row.sampled, row.logprobs, of_each, weight, place, divisor))
        return found

    def _weight(self, rollout: Rollout, row: SampledRow) -> tuple[float, float | None]:
        """Return by how much each sampled id of a row counts, and what the row adds to what the loss is divided by."""
        if self.settings.average == "constant":  # all rows of a rollout together: 1
            return 1.0 / self.settings.average_length, int(row.sampled.sum()) / rollout.tokens
        return (1.0 if self.settings.average == "tokens" else 1.0 / rollout.tokens), None

    def _penalties(self, rows: Sequence[SampledRow], numbers: Numbers) -> Iterator[torch.Tensor] | None:
        """Return what the penalty on the divergence from the start adds to the advantages of each row."""
        if self._reference is None:
            return None
        if not rows:
            numbers["kl"] = (math.nan, 1)
            return iter(())
        ratios = [(row.logprobs - reference) * row.sampled
                  for row, reference in zip(rows, self._reference(rows), strict=True)]  # fmt: skip
        count = sum(int(row.sampled.sum()) for row in rows)
        mean = math.fsum(float(ratio.double().sum()) for ratio in ratios) / count
        numbers["kl"] = (mean, count)
        # As `kl_advantages` has it, over the sampled ids of the whole epoch; but less the mean of the others, or the
        # expected gradient would be (n - 1) / n of the divergence's, and the optimum another one.
        weight = self.settings.kl_weight * count / max(1, count - 1)
        return iter([weight * (mean - ratio) * row.sampled
                     for row, ratio in zip(rows, ratios, strict=True)])  # fmt: skip
