"""Rollouts of earlier epochs: how old they get, what is counted, and that their gradient is the policy's."""

import pytest
import torch
from policy_bandit import Bandit, expected_gradient

from data.policy_batches import PolicyRow
from train.agents.policy_loss import PolicyLoss
from train.agents.rollout_replay import Replay


def rows(epoch: int, count: int = 8) -> list[PolicyRow]:
    """Rows that are known by their second id."""
    sampled = torch.tensor([False, True])
    return [PolicyRow(torch.tensor([0, 100 * epoch + n]), sampled, torch.zeros(2), sampled * 1.0, 1.0, n)
            for n in range(count)]  # fmt: skip


def seen(replay: Replay, epoch: int) -> list[list[tuple[int, int]]]:
    """Return of each batch the age and the epoch of each row."""
    return [[(part.age, int(row.ids[1]) // 100) for part in batch for row in part.rows]
            for batch in replay.batches(epoch)]  # fmt: skip


def test_rows_are_learned_from_until_they_are_too_old_and_then_counted():
    """One step an epoch, at most 2 steps off: those of the last two epochs, once each."""
    replay, dropped = Replay(limit=2, steps=1, batches=1, seed=0), []
    for epoch in range(5):
        replay.begin(epoch)
        (batch,) = seen(replay, epoch)
        assert sorted(batch) == sorted((age, epoch - age) for age in (1, 2) if epoch >= age for _ in range(8))
        dropped.append(replay.dropped(epoch))
        replay.keep(epoch, rows(epoch))
    assert dropped == [(0, 0), (0, 8), (0, 16), (8, 24), (8, 24)]


def test_ages_count_steps_inside_of_an_epoch_and_not_batches():
    """Two steps of two batches each, at most 3 off: the second step of the next epoch is the last."""
    replay = Replay(limit=3, steps=2, batches=4, seed=1)
    replay.keep(0, rows(0))
    first = seen(replay, 1)
    assert [sorted({age for age, _ in batch}) for batch in first] == [[2], [2], [3], [3]]
    assert sum(map(len, first)) == 8 and replay.dropped(1) == (0, 8)
    assert seen(replay, 2) == [[]] * 4 and replay.dropped(2) == (8, 8)
    tight = Replay(limit=2, steps=2, batches=4, seed=1)
    tight.keep(0, rows(0))
    assert [len(batch) for batch in seen(tight, 1)] == [2, 2, 0, 0] and tight.dropped(1) == (4, 8)


def test_without_a_limit_nothing_is_kept():
    replay = Replay(limit=0, steps=4, batches=4, seed=0)
    replay.keep(0, rows(0))
    assert replay.state_dict() == {} and seen(replay, 1) == [[]] * 4


def test_a_state_gives_the_same_batches():
    one, other = (Replay(limit=4, steps=2, batches=2, seed=3) for _ in range(2))
    for epoch in range(2):
        one.keep(epoch, rows(epoch))
    other.load_state_dict(one.state_dict())
    assert seen(other, 2) == seen(one, 2) and seen(one, 2) != [[], []]
    kept, again = (part.rows[0] for part in (one.batches(2)[0][0], other.batches(2)[0][0]))
    assert (kept.weight, kept.rollout, kept.divisor) == (again.weight, again.rollout, again.divisor)
    assert torch.equal(kept.advantages, again.advantages)


def test_the_expected_gradient_of_old_rollouts_is_that_of_the_reward_they_were_compared_by():
    """Drawn by another policy q, groups of n: sum over arms of p (r - mean of r under q) d log p, times (n - 1) / n."""
    bandit = Bandit([(0.0, 0.2, 1.0)], start=(0.3, -0.2, 0.5))
    q = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    p, r = bandit.probabilities(), bandit.rewards
    # A group's mean holds the rollout itself, so that its ratio is weighed with n - 1 of the others' rewards only:
    # E[(p/q)(a) d log p(a) (r(a) - mean)] = (n - 1) / n * sum_a p(a) d log p(a) (r(a) - E_q r).
    above = r - (q * r).sum()
    wanted = -(3 / 4) * (p * above - p * (p * above).sum())
    found = expected_gradient(bandit, 4, sampled_by=q)
    assert found[0].tolist() == pytest.approx(wanted[0].tolist(), abs=1e-6)


@pytest.mark.parametrize("loss", ["importance_sampling", "ppo", "cispo"])
def test_the_best_arm_is_found_with_old_rollouts_too(loss):
    """With each of 5 seeds, of one new group a task and epoch, up to 6 steps off the policy."""
    for seed in range(5):
        bandit = Bandit([(0.0, 0.5, 1.0), (1.0, 0.5, 0.0)])
        loader = bandit.loader(group_size=4, steps=2, max_steps_off_policy=6, seed=seed)
        bandit.train(loader, 40, rate=1.0, loss=loss)
        assert bandit.probabilities()[[0, 1], [2, 0]].min() > 0.9, f"seed {seed}: {bandit.probabilities()}"


def test_with_old_rollouts_the_optimum_of_a_penalty_stays_where_it_is():
    """p proportional to p_start exp(r / kl_weight): what old rows were compared by is corrected by their ratios."""
    start, weight, rewards = (0.5, 0.0, -1.0), 0.5, (0.0, 0.2, 1.0)
    for seed in range(5):
        bandit = Bandit([rewards], start=start)
        optimum = (torch.tensor(start, dtype=torch.float64) + bandit.rewards / weight).softmax(1)
        credit, mean = {"advantage": "leave_one_out", "kl_weight": weight}, torch.zeros_like(optimum)
        loader = bandit.loader(credit, group_size=16, max_steps_off_policy=3, seed=seed)
        bandit.train(loader, 25, rate=2.0)
        for epoch in range(25, 65):
            bandit.train(loader, epoch + 1, rate=0.5, first=epoch)
            mean += bandit.probabilities() / 40
        assert (mean - optimum).abs().max() < 0.01, f"seed {seed}: {mean} {optimum}"


def test_a_loader_tells_the_ages_and_counts_fresh_targets_alone():
    bandit = Bandit([(0.0, 1.0)] * 4)
    loader = bandit.loader(group_size=4, max_steps_off_policy=1, seed=0)
    loss = PolicyLoss("ppo")
    for epoch in range(4):
        loader.set_epoch(epoch)
        (batch,) = loader
        new = {tuple(row.ids.tolist()) for each in loader.rollouts for row in each.rows}
        assert 0 < batch.fresh <= len(batch.targets) and len(new) > 1
        gradient = bandit.gradient(batch, loss)
        with torch.no_grad():
            bandit.logits -= gradient
        assert (batch.fresh < len(batch.targets)) == (epoch > 0)
        assert (batch.numbers["off_policy"][0] > 0) == (epoch > 0)
        assert (batch.numbers["stale"][0] > 0) == (epoch > 1)
