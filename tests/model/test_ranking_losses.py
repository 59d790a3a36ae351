"""Ranking losses against slow ones with plain loops."""

import math

import pytest
import torch

from model.ranking_losses import RANKING_LOSSES

NAMES = sorted(RANKING_LOSSES)


def slow_list_mle(scores: list[float], truth: list[float]) -> float:
    order = sorted(range(len(truth)), key=lambda i: -truth[i])
    total = 0.0
    for place, best in enumerate(order):
        total += math.log(sum(math.exp(scores[i]) for i in order[place:])) - scores[best]
    return total / len(order)


def slow_list_net(scores: list[float], truth: list[float]) -> float:
    wanted, given = (sum(math.exp(v) for v in values) for values in (truth, scores))
    return -sum(math.exp(t) / wanted * math.log(math.exp(s) / given) for t, s in zip(truth, scores, strict=True))


def slow_pairs(scores: list[float], truth: list[float], weight) -> float:
    total = weights = 0.0
    for i in range(len(truth)):
        for j in range(len(truth)):
            if truth[i] > truth[j]:
                total += weight(i, j) * math.log(1 + math.exp(scores[j] - scores[i]))
                weights += weight(i, j)
    return total / weights


def slow_lambda(scores: list[float], truth: list[float]) -> float:
    low, high = min(truth), max(truth)
    places = {model: place for place, model in enumerate(sorted(range(len(scores)), key=lambda i: -scores[i]))}

    def change(i: int, j: int) -> float:
        gain = (truth[i] - truth[j]) / (high - low)
        return abs(gain * (1 / math.log2(places[i] + 2) - 1 / math.log2(places[j] + 2)))

    return slow_pairs(scores, truth, change)


SLOW = {
    "list_mle": slow_list_mle,
    "list_net": slow_list_net,
    "pairwise": lambda scores, truth: slow_pairs(scores, truth, lambda i, j: 1.0),
    "lambda": slow_lambda,
}


@pytest.fixture
def lists():
    """Scores, truth and mask of five lists of seven models; each list has another number of them."""
    generator = torch.Generator().manual_seed(0)
    scores, truth = (torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(5, 7, generator=generator).argsort(1) < torch.tensor([7, 2, 5, 3, 6])[:, None]
    return scores, truth, mask


def test_every_loss_has_a_slow_one():
    assert SLOW.keys() == RANKING_LOSSES.keys()


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_the_mean_of_the_slow_one_over_lists(name, lists):
    rows = zip(*lists, strict=True)
    expected = sum(SLOW[name](s[m].tolist(), t[m].tolist()) for s, t, m in rows) / len(lists[0])
    assert RANKING_LOSSES[name](*lists).item() == pytest.approx(expected, rel=1e-9)
    single = [part.float() if part.is_floating_point() else part for part in lists]
    assert RANKING_LOSSES[name](*single).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_ties_of_truth_count_as_no_pair_but_are_ranked(name):
    scores, truth = torch.tensor([[0.3, -0.2, 1.0]], dtype=torch.float64), [1.0, 0.0, 0.0]
    found = RANKING_LOSSES[name](scores, torch.tensor([truth], dtype=torch.float64), torch.ones(1, 3, dtype=torch.bool))
    # The order of the two equal ones is open in ListMLE; either is a right answer.
    possible = [SLOW[name](scores[0].tolist(), truth), SLOW[name](scores[0, [0, 2, 1]].tolist(), truth)]
    assert any(found.item() == pytest.approx(value, rel=1e-9) for value in possible)


@pytest.mark.parametrize("name", NAMES)
def test_models_that_are_not_there_change_nothing(name, lists):
    scores, truth, mask = (part.clone() for part in lists)
    scores.requires_grad_()
    loss = RANKING_LOSSES[name](scores, truth, mask)
    loss.backward()
    assert not scores.grad[~mask].any() and scores.grad[mask].any()
    changed_scores, changed_truth = scores.detach().clone(), truth.clone()
    changed_scores[~mask], changed_truth[~mask] = 50.0, -1000.0
    changed_truth[0, :1] = truth[0, :1]
    assert RANKING_LOSSES[name](changed_scores, changed_truth, mask).item() == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_right_order_costs_less(name):
    truth = torch.linspace(-2, 2, 9)[None]
    mask = torch.ones(1, 9, dtype=torch.bool)
    right, flat, wrong = (float(RANKING_LOSSES[name](scores, truth, mask)) for scores in (truth, 0 * truth, -truth))
    assert right < wrong and right < flat - 0.05


@pytest.mark.parametrize("name", NAMES)
def test_gradient_pushes_the_better_model_up(name):
    scores = torch.zeros(1, 6, requires_grad=True)
    truth = torch.tensor([[0.2, 2.0, -0.1, -2.0, 0.5, -0.6]])
    RANKING_LOSSES[name](scores, truth, torch.ones(1, 6, dtype=torch.bool)).backward()
    assert scores.grad[0, 1] < 0 < scores.grad[0, 3], "a step goes against the gradient"
    assert scores.grad.sum().abs() < 1e-5, "only differences of scores count"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("scores", "truth"),
    [([0.0, 0.0], [1.0, -1.0]), ([3.0, 1.0], [0.0, 0.0]), ([0.0, 0.0], [0.0, 0.0]), ([1e4, -1e4], [-1.0, 1.0])],
)
def test_ties_and_lists_of_two_are_finite(name, scores, truth):
    given = torch.tensor([scores], requires_grad=True)
    loss = RANKING_LOSSES[name](given, torch.tensor([truth]), torch.ones(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.isfinite() and given.grad.isfinite().all() and loss >= 0
