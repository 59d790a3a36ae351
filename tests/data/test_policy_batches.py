"""Batches of sampled tokens: what counts, by how much, and what the loss is divided by."""

import pytest
import torch

from data.policy_batches import PolicyRow, pack_policy_rows, spread_rollouts
from model.token_losses import importance_sampling


def row(prompt: int, length: int, advantage: float = 1.0, weight: float = 1.0, rollout: int = 0) -> PolicyRow:
    sampled = torch.tensor([False] * prompt + [True] * length)
    ids = torch.arange(prompt + length, dtype=torch.int32)
    return PolicyRow(ids, sampled, torch.where(sampled, -1.0, 0.0), sampled * advantage, weight, rollout)


def test_predictions_of_sampled_ids_count_and_no_others():
    batch = pack_policy_rows([row(2, 2, 0.5), row(3, 1, -1.0, rollout=1)], 2)
    assert batch.tokens.tolist() == [0, 1, 2, 0, 1, 2] and batch.rows.lengths == (3, 3)
    assert batch.places.tolist() == [1, 2, 5] and batch.targets.tolist() == [2, 3, 3]
    assert batch.old_logprobs.tolist() == [-1.0] * 3 and batch.advantages.tolist() == [0.5, 0.5, -1.0]
    assert (batch.total_weight, batch.batch_size) == (3.0, 2)
    assert batch.token_batch().targets.tolist() == [2, 3, 3]


def test_a_mean_over_rollouts_weighs_each_the_same_whatever_its_length():
    """With weights of 1 / tokens the loss is the mean over rollouts of each one's mean over its tokens."""
    rows = [row(1, 4, 1.0, 1 / 4), row(1, 2, 3.0, 1 / 2, rollout=1)]
    batch = pack_policy_rows(rows, 2)
    loss = importance_sampling(batch.old_logprobs, batch.old_logprobs, batch.advantages) / batch.total_weight
    assert batch.total_weight == 2.0 and loss.item() == pytest.approx(-(1.0 + 3.0) / 2)


def test_a_batch_without_rows_and_a_row_without_prompt():
    batch = pack_policy_rows([], 0)
    assert batch.rows is None and batch.total_weight == 0 and batch.batch_size == 1
    with pytest.raises(ValueError, match="the batch has no rows"):
        batch.token_batch()
    with pytest.raises(ValueError, match="the first token of a row can't have been sampled"):
        pack_policy_rows([row(0, 2)], 1)


def test_rollouts_are_spread_whole_evenly_and_by_seed_and_epoch_alone():
    rows = [row(1, 1 + number % 5, rollout=number // 2) for number in range(40)]
    found = spread_rollouts(rows, 4, seed=3, epoch=2)
    assert sorted(id(each) for batch in found for each in batch) == sorted(map(id, rows))
    assert all(sum(each.rollout == number for each in batch) in (0, 2) for batch in found for number in range(20))
    sizes = [sum(len(each.ids) for each in batch) for batch in found]
    assert max(sizes) - min(sizes) <= 12
    again = spread_rollouts(rows, 4, seed=3, epoch=2)
    assert [[id(each) for each in batch] for batch in again] == [[id(each) for each in batch] for batch in found]
    other = spread_rollouts(rows, 4, seed=3, epoch=3)
    assert [[each.rollout for each in batch] for batch in other] != [
        [each.rollout for each in batch] for batch in found
    ]
    assert [len(batch) for batch in spread_rollouts(rows[:2], 3, 0, 0)] == [2, 0, 0]
