"""A bandit under the trainer's own loader, credit and loss: a policy of a few logits, whose best arm is known."""

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from data.policy_batches import PolicyBatch
from data.trajectories import trajectory_of
from train.agents.credit import Credit, CreditSettings
from train.agents.policy_loss import PolicyLoss
from train.agents.rollout import Rollout, RolloutPlan, SampledRow
from train.agents.rollout_loader import RolloutLoader, RolloutSettings

ARM, FILLER = 1000, 999  # ids of the first arm's token, and of the tokens that make an answer longer


class _Answer:
    version, finish = "v", "stop"

    def __init__(self, task: int, arm: int, logprob: float, length: int) -> None:
        self.prompt_ids, self.token_ids = (task,), (ARM + arm, *[FILLER] * (length - 1))
        self.logprobs = (logprob, *[0.0] * (length - 1))


class Bandit:
    """Tasks, each with its arms. An answer is the arm's token, and fillers that are certain.

    Args:
        rewards: (tasks, arms) reward of each arm.
        lengths: tokens of each arm's answer; one each if empty.
        start: logits as training begins; even ones if empty.
    """

    def __init__(
        self, rewards: Sequence[Sequence[float]], lengths: Sequence[int] = (), start: Sequence[float] = ()
    ) -> None:
        self.rewards = torch.tensor(rewards, dtype=torch.float64)
        tasks, arms = self.rewards.shape
        self.lengths = list(lengths) or [1] * arms
        first = torch.tensor(start, dtype=torch.float64) if start else torch.zeros(arms, dtype=torch.float64)
        self.logits = first.repeat(tasks, 1).requires_grad_()
        self.start = self.probabilities()
        self.made = 0  # rollouts

    def probabilities(self) -> Tensor:
        """Return (tasks, arms) float64 probabilities of the arms."""
        return self.logits.detach().softmax(1)

    def mean_reward(self) -> float:
        """Return the policy's expected reward over all tasks."""
        return float((self.probabilities() * self.rewards).sum(1).mean())

    def rollout(self, plan: RolloutPlan, arm: int, probabilities: Tensor | None = None) -> Rollout:
        """Return what comes of an arm."""
        policy = self.probabilities() if probabilities is None else probabilities
        logprob = float(policy[plan.task, arm].log())
        made = Rollout(plan.task, plan.sample, reward=float(self.rewards[plan.task, arm]))
        made.take(trajectory_of([_Answer(plan.task, arm, logprob, self.lengths[arm])]))
        return made

    def gather(self, plans: Sequence[RolloutPlan]) -> list[Rollout]:
        """Draw an arm for each plan, by its seed."""
        self.made += len(plans)
        policy, found = self.probabilities(), []
        for plan in plans:
            generator = torch.Generator().manual_seed(plan.seed)
            arm = int(torch.multinomial(policy[plan.task], 1, generator=generator))
            found.append(self.rollout(plan, arm, policy))
        return found

    def reference(self, rows: Sequence[SampledRow]) -> list[Tensor]:
        """Return of each row the log-probabilities of its ids as training began."""
        found = []
        for row in rows:
            values = torch.zeros(len(row.ids))
            values[1] = self.start[int(row.ids[0]), int(row.ids[1]) - ARM].log()
            found.append(values)
        return found

    def logprobs(self, batch: PolicyBatch) -> Tensor:
        """Return (N,) log-probabilities of a batch's targets now."""
        is_arm = batch.targets != FILLER
        tasks, arms = batch.tokens[batch.places][is_arm], batch.targets[is_arm] - ARM
        chosen = self.logits.log_softmax(1)[tasks, arms].float()
        return torch.zeros(len(batch.targets)).masked_scatter(is_arm, chosen)

    def loader(self, credit: dict | None = None, **settings) -> RolloutLoader:
        """Return a loader of its rollouts, with the same group_size for both kinds of settings."""
        size = settings.setdefault("group_size", 4)
        of_rewards = Credit(CreditSettings(**{"group_size": size, **(credit or {})}), self.reference)
        return RolloutLoader(len(self.rewards), self.gather, RolloutSettings(**settings), of_rewards)

    def train(
        self, loader: RolloutLoader, epochs: int, rate: float = 1.0, loss: str = "importance_sampling", first: int = 0
    ) -> list[float]:
        """Train by plain SGD; return the expected reward after each epoch."""
        of_batch, seen = PolicyLoss(loss), []
        for epoch in range(first, epochs):
            loader.set_epoch(epoch)
            for batch in loader:
                gradient = self.gradient(batch, of_batch)
                with torch.no_grad():
                    self.logits -= rate * gradient
            seen.append(self.mean_reward())
        return seen

    def gradient(self, batch: PolicyBatch, loss: PolicyLoss) -> Tensor:
        """Return (tasks, arms) gradient of a batch's loss."""
        if batch.rows is None:
            return torch.zeros_like(self.logits)
        (found,) = torch.autograd.grad(loss(batch, self.logprobs(batch)), self.logits)
        return found


def expected_gradient(bandit: Bandit, size: int, sampled_by: Tensor | None = None, loss: str = "importance_sampling",
                      **credit) -> Tensor:  # fmt: skip
    """Return the gradient of the loss over one group of the first task, weighed over all outcomes: no draw is left.

    Args:
        bandit: the bandit.
        size: rollouts of the group.
        sampled_by: (tasks, arms) probabilities that the arms are drawn with; the policy's if None.
        loss: name of the loss.
        credit: settings of the advantages.
    """
    policy = bandit.probabilities() if sampled_by is None else sampled_by
    total = torch.zeros_like(policy)
    for arms, chance in _outcomes(policy[0], size):
        some = [bandit.rollout(RolloutPlan(0, place, 0), arm, policy) for place, arm in enumerate(arms)]
        of_rewards = Credit(CreditSettings(**{"group_size": size, **credit}), bandit.reference)
        loader = RolloutLoader(1, lambda plans, some=some: some, RolloutSettings(group_size=size), of_rewards)
        (batch,) = loader
        total += chance * bandit.gradient(batch, PolicyLoss(loss))
    return total


def _outcomes(policy: Tensor, size: int) -> Iterator[tuple[tuple[int, ...], float]]:
    for arms in product(range(len(policy)), repeat=size):
        yield arms, float(policy[list(arms)].prod())
