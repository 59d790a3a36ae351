"""What is set apart for validation."""

import pytest
import torch

from data.held_out import set_apart


def apart(keys, share, seed=0):
    return set_apart(list(range(len(keys))), keys, share, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("share", "held"), [(0.01, 1), (0.25, 2), (0.5, 5), (0.99, 9)])
def test_a_share_is_one_at_least_and_never_all(share, held):
    train, val = apart("abcdefghij", share)
    assert len(val) == held and sorted(train + val) == list(range(10)) == sorted(set(train + val))
    assert train == sorted(train) and val == sorted(val)


def test_what_belongs_together_stays_together():
    keys = [number % 4 for number in range(40)]
    for seed in range(20):
        val = apart(keys, 0.3, seed)[1]
        assert len(val) == 10 and len({keys[number] for number in val}) == 1
    assert len({tuple(apart(keys, 0.3, seed)[1]) for seed in range(20)}) == 4
    assert apart(keys, 0.3, 5) == apart(keys, 0.3, 5)


def test_one_group_cant_be_divided():
    with pytest.raises(ValueError, match="belongs together"):
        apart("aaa", 0.5)
