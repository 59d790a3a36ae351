"""Which tasks are drawn: as ever without a curriculum, by p (1 - p) with one; and what that is good for."""

from itertools import islice

import pytest
import torch
from policy_bandit import Bandit

from data.tensor_loader import epoch_generator
from train.agents.task_draw import TaskDraw
from train.agents.tasks import text_of_tasks


def test_without_a_curriculum_the_order_is_the_epochs_permutation_again_and_again():
    draw = TaskDraw(5, seed=3)
    generator = epoch_generator(3, 2)
    wanted = [torch.randperm(5, generator=generator).tolist() for _ in range(2)]
    assert list(islice(draw.order(2), 10)) == wanted[0] + wanted[1]
    draw.note([0, 1], [1.0, 0.0])
    assert list(islice(draw.order(2), 10)) == wanted[0] + wanted[1] and draw.state_dict() == {}


def test_with_a_curriculum_tasks_are_drawn_by_p_times_1_less_p():
    """Frequencies of the first draw of 4000 epochs against the weights; a pass has each task once."""
    draw = TaskDraw(4, seed=0, curriculum="success")
    draw.note([0] * 8 + [1] * 8 + [2] * 8, [1.0] * 8 + [0.0] * 8 + [1.0, 0.0] * 4)
    p = [8.5 / 9, 0.5 / 9, 1 / 2, 1 / 2]  # the last one was never done
    assert draw.success().tolist() == pytest.approx(p)
    weights = torch.tensor([each * (1 - each) + 0.01 for each in p])
    counts = torch.zeros(4)
    for epoch in range(4000):
        counts[next(draw.order(epoch))] += 1
    assert (counts / 4000 - weights / weights.sum()).abs().max() < 0.02
    assert sorted(islice(draw.order(7), 4)) == [0, 1, 2, 3]


def test_what_was_long_ago_counts_less_and_a_state_has_all():
    draw = TaskDraw(2, seed=0, curriculum="success")
    for _ in range(6):
        draw.note([0] * 4, [0.0] * 4)
    low = float(draw.success()[0])
    for _ in range(6):
        draw.note([0] * 4, [1.0] * 4)
    assert low < 0.05 and draw.success()[0] > 0.8 and draw.success()[1] == 0.5
    other = TaskDraw(2, seed=0, curriculum="success")
    other.load_state_dict(draw.state_dict())
    assert torch.equal(other.success(), draw.success())
    assert [list(islice(other.order(epoch), 2)) for epoch in range(9)] == [
        list(islice(draw.order(epoch), 2)) for epoch in range(9)
    ]
    fewer = TaskDraw(3, seed=0, curriculum="success")
    fewer.load_state_dict(draw.state_dict())
    assert fewer.success().tolist() == [0.5] * 3


def test_a_curriculum_learns_more_from_as_many_rollouts():
    """Of 40 tasks 18 can't be done and 18 can't be missed: with each seed the other 4 are learned sooner."""
    rewards = [(0.0, 0.0)] * 18 + [(1.0, 1.0)] * 18 + [(0.0, 1.0)] * 4
    for seed in range(5):
        ends = []
        for curriculum in ("none", "success"):
            bandit = Bandit(rewards)
            loader = bandit.loader(group_size=8, tasks_per_epoch=4, curriculum=curriculum, seed=seed)
            bandit.train(loader, 20, rate=2.0)
            assert bandit.made == 20 * 32
            ends.append(float(bandit.probabilities()[36:, 1].mean()))
        assert ends[1] > ends[0] + 0.02, f"seed {seed}: {ends}"


def test_the_text_of_tasks_is_the_same_for_the_same_tasks():
    """Whatever their keys are, and in whichever order they were put in."""
    one = [{"b": 1, 7: {(1, 2): {3}}, None: [{"x": 1, 2: 3}]}]
    other = [{None: [{2: 3, "x": 1}], 7: {(1, 2): {4}}, "b": 1}]
    assert text_of_tasks(one) == text_of_tasks(other), "of a set its class alone is known"
    assert text_of_tasks(one) != text_of_tasks([one[0] | {7: {(1, 3): {3}}}])
    assert text_of_tasks([{"b": 1, "a": (2,)}]) == '[{"a": [2], "b": 1}]', "as it was written before"
