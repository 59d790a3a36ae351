"""What is learned from rewards: expected gradients against formulas on paper, and bandits whose optimum is known."""

import math

import pytest
import torch
from policy_bandit import Bandit, expected_gradient

from train.agents.credit import Credit, CreditSettings
from train.agents.rollout import Rollout

SEEDS = range(5)
REWARDS = (0.0, 0.2, 1.0)


def policy_gradient(bandit: Bandit) -> torch.Tensor:
    """Return the gradient of minus the expected reward by the logits: -p (r - mean of r)."""
    p, r = bandit.probabilities(), bandit.rewards
    return -p * (r - (p * r).sum(1, keepdim=True))


@pytest.mark.parametrize("loss", ["importance_sampling", "ppo", "cispo"])
@pytest.mark.parametrize(("advantage", "scale"), [("centred", 3 / 4), ("leave_one_out", 1.0)])
def test_the_expected_gradient_is_that_of_the_reward(loss, advantage, scale):
    """Less the mean of all n it is (n - 1) / n of it, less the mean of the others it is unbiased."""
    bandit = Bandit([REWARDS], start=(0.3, -0.2, 0.5))
    # Groups of one reward have no gradient, so leaving them out changes no sum; each of the others is divided by 4.
    found = expected_gradient(bandit, 4, loss=loss, advantage=advantage)
    assert found[0].tolist() == pytest.approx((scale * policy_gradient(bandit)[0]).tolist(), abs=1e-6)


def test_the_expected_gradient_of_grpo_with_std():
    """Of two arms, by hand: k of n right have deviations of sqrt(k / n (1 - k / n)), whatever the rewards' size."""
    bandit, n = Bandit([(0.0, 0.01)], start=(1.0, 0.0)), 4
    p = float(bandit.probabilities()[0, 1])
    wanted = 0.0
    for k in range(1, n):
        chance, q = math.comb(n, k) * p**k * (1 - p) ** (n - k), k / n
        # Sum over rollouts of advantage times d log(prob) / d logit, divided by n tokens.
        wanted += chance * (q * (1 - q) + (1 - q) * q) / math.sqrt(q * (1 - q)) / 2
    found = expected_gradient(bandit, n, advantage="std")
    assert found[0].tolist() == pytest.approx([wanted, -wanted], abs=1e-6)


def test_the_batchs_mean_also_teaches_where_all_of_a_group_fail():
    """Two tasks, one of which always fails: less the mean of all, its answers become less likely."""
    bandit = Bandit([(0.0, 0.0), (1.0, 1.0)])
    for advantage, moved in (("batch", 0.25), ("centred", 0.0)):
        (batch,) = bandit.loader({"advantage": advantage}, group_size=2)
        assert batch.advantages.abs().tolist() == ([0.5] * 4 if moved else [])


@pytest.mark.parametrize(
    ("average", "weights", "divisor"),
    [("tokens", (1.0, 1.0), 8.0), ("rollouts", (1 / 2, 1 / 6), 2.0), ("constant", (0.1, 0.1), 2.0)],
)
def test_how_lengths_weigh(average, weights, divisor):
    """Two answers, of 2 and of 6 tokens: sum over tokens / 8, mean of means, and sums / (2 * 10) as Dr. GRPO has it."""
    bandit = Bandit([(0.0, 1.0)], lengths=(2, 6))
    p = bandit.probabilities()[0]
    found = expected_gradient(bandit, 2, average=average, average_length=10)
    # Only the two mixed outcomes teach; advantages are -0.5 and 0.5, d log p_a / d logit_0 is (1 - p) and -p.
    of_short, of_long = -0.5 * weights[0], 0.5 * weights[1]
    wanted = -2 * float(p[0] * p[1]) * (of_short * float(1 - p[0]) - of_long * float(p[0])) / divisor
    assert found[0, 0].item() == pytest.approx(wanted, abs=1e-6)


def test_a_rollout_whose_reward_is_the_mean_counts_in_the_divisor():
    """Of rewards 0, 0.5 and 1 the second teaches nothing, and the loss is divided by three rollouts all the same."""
    bandit = Bandit([(0.0, 0.5, 1.0)])
    plans = bandit.loader(group_size=3).plans()
    some = [bandit.rollout(plan, arm) for arm, plan in enumerate(plans)]
    loader = bandit.loader(group_size=3)
    loader._gather = lambda plans: some
    (batch,) = loader
    assert len(batch.targets) == 2 and batch.total_weight == 3 and batch.rollouts == 3


@pytest.mark.parametrize(
    ("advantage", "loss", "average"),
    [
        ("centred", "importance_sampling", "tokens"),
        ("std", "ppo", "rollouts"),
        ("leave_one_out", "importance_sampling", "tokens"),
        ("batch", "cispo", "tokens"),
        ("centred", "ppo", "constant"),
    ],
)
def test_the_best_arm_is_found_with_each_seed(advantage, loss, average):
    """Of three tasks with different best arms."""
    best = [(1.0, 0.6, 0.0), (0.0, 1.0, 0.6), (0.6, 0.0, 1.0)]
    for seed in SEEDS:
        bandit = Bandit(best)
        settings = {"advantage": advantage, "average": average, "average_length": 1}
        bandit.train(bandit.loader(settings, group_size=8, steps=2, seed=seed), 30, rate=4.0, loss=loss)
        assert bandit.probabilities().diagonal().min() > 0.9, f"seed {seed}: {bandit.probabilities()}"


def test_the_penalty_on_the_divergence_has_the_optimum_that_is_known():
    """p is proportional to p_start exp(r / kl_weight): there the expected gradient is 0, and there training ends."""
    start, weight = (0.5, 0.0, -1.0), 0.5
    bandit = Bandit([REWARDS], start=start)
    optimum = (torch.tensor(start, dtype=torch.float64) + bandit.rewards / weight).softmax(1)
    assert optimum[0, 2] - bandit.start[0, 2] > 0.3, "which is far from the start"
    credit = {"advantage": "leave_one_out", "kl_weight": weight}
    assert expected_gradient(bandit, 3, **credit).abs().max() > 0.1
    bandit.logits = optimum.log().requires_grad_()
    assert expected_gradient(bandit, 3, **credit).abs().max() < 1e-6
    for seed in SEEDS:
        bandit, mean = Bandit([REWARDS], start=start), torch.zeros_like(optimum)
        loader = bandit.loader(credit, group_size=16, seed=seed)
        bandit.train(loader, 25, rate=2.0)
        for epoch in range(25, 65):
            bandit.train(loader, epoch + 1, rate=0.5, first=epoch)
            mean += bandit.probabilities() / 40
        assert (mean - optimum).abs().max() < 0.01, f"seed {seed}: {mean} {optimum}"


def test_the_penalty_on_length_is_that_of_dapo():
    """L_max 8, L_cache 4: none up to 4 tokens, the whole from 8 on, in proportion between."""
    soft = Credit(CreditSettings(overlong_length=8, overlong_buffer=4, overlong_penalty=2.0))
    hard = Credit(CreditSettings(overlong_length=8))
    lengths = (1, 4, 5, 6, 8, 9, 100)
    assert [soft.penalty(Rollout(0, 0, tokens=each)) for each in lengths] == [0.0, 0.0, 0.5, 1.0, 2.0, 2.0, 2.0]
    assert [hard.penalty(Rollout(0, 0, tokens=each)) for each in lengths] == [0.0] * 5 + [1.0] * 2


def test_with_the_penalty_on_length_the_shortest_of_equal_answers_is_found():
    """All arms have a reward of 1, so that without it nothing is learned."""
    for seed in SEEDS:
        bandit = Bandit([(1.0, 1.0, 1.0)], lengths=(8, 6, 4))
        plain = bandit.loader({}, group_size=8, seed=seed)
        bandit.train(plain, 3)
        assert torch.equal(bandit.probabilities(), bandit.start)
        credit = {"overlong_length": 8, "overlong_buffer": 4, "average": "rollouts"}
        loader = bandit.loader(credit, group_size=8, seed=seed)
        loader.set_epoch(0)
        first = next(iter(loader))
        assert first.numbers["overlong"][0] > 0 and first.numbers["reward"][0] == 1.0
        bandit.train(loader, 40, rate=8.0)
        assert bandit.probabilities()[0, 2] > 0.9, f"seed {seed}"


def test_a_task_that_is_drawn_twice_has_two_groups():
    credit = Credit(CreditSettings(group_size=2))
    some = [Rollout(3, sample, reward=float(sample >= 2)) for sample in range(4)]
    assert [[each.sample for each in group] for group in credit.groups(some)] == [[0, 1], [2, 3]]
    assert all(credit.is_flat(group) for group in credit.groups(some))
