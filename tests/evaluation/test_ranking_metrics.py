"""Ranking metrics against scipy, scikit-learn, and every order of tied models; their limits and their errors."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import pearsonr, weightedtau
from sklearn.metrics import ndcg_score

from evaluation.ranking.ranking_metrics import (
    ndcg_at_k,
    pearson,
    ranking_metrics,
    recall_at_k,
    top1_regret,
    weighted_kendall,
)


def problems(count: int, most: int = 30) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores and truths, without ties, with ties in one or in both."""
    draw = np.random.default_rng(0)
    found = []
    for number in range(count):
        size = int(draw.integers(2, most + 1))
        scores, truth = draw.normal(size=size), draw.uniform(size=size)
        if number % 3 > 0:
            scores = draw.integers(0, 4, size=size).astype(float)
        if number % 3 > 1:
            truth = draw.integers(0, 5, size=size) / 5
        found.append((scores, truth))
    return found


def orders_of(scores: np.ndarray) -> list[tuple[int, ...]]:
    """Every order of models in which no score comes before a higher one."""
    return [order for order in permutations(range(len(scores))) if all(np.diff(scores[list(order)]) <= 0)]


def test_weighted_kendall_is_that_of_scipy():
    for scores, truth in problems(400):
        expected = weightedtau(scores, truth).statistic
        assert weighted_kendall(scores, truth) == (0.0 if np.isnan(expected) else expected)


def test_weighted_kendall_of_a_constant_ranking_is_0():
    assert weighted_kendall(np.full(4, 0.1), np.arange(4.0)) == 0.0
    assert weighted_kendall(np.arange(4.0), np.full(4, 0.1)) == 0.0
    assert weighted_kendall(np.ones(1), np.ones(1)) == 0.0


def test_ndcg_is_that_of_scikit_learn_on_scaled_truth():
    for number, (scores, truth) in enumerate(problems(200)):
        if truth.max() == truth.min():
            continue
        gains = (truth - truth.min()) / (truth.max() - truth.min())
        k = number % 7 + 1
        assert ndcg_at_k(scores, truth, k) == pytest.approx(ndcg_score([gains], [scores], k=k), abs=1e-12)


def test_ties_give_the_mean_over_every_order():
    for number, (scores, truth) in enumerate(problems(60, most=6)):
        k = number % 4 + 1
        orders = orders_of(scores)
        gains = (truth - truth.min()) / (truth.max() - truth.min()) if truth.max() > truth.min() else None
        best = truth >= truth.max()
        if gains is not None:
            discounts = [1 / np.log2(rank + 1) if rank <= k else 0.0 for rank in range(1, len(gains) + 1)]
            mean = np.mean([gains[list(order)] @ discounts for order in orders])
            assert ndcg_at_k(scores, truth, k) == pytest.approx(mean / (np.sort(gains)[::-1] @ discounts))
        recall = np.mean([best[list(order[:k])].any() for order in orders])
        assert recall_at_k(scores, truth, k) == pytest.approx(recall)
        regret = np.mean([100 * (truth.max() - truth[order[0]]) for order in orders])
        assert top1_regret(scores, truth) == pytest.approx(regret)


def test_ndcg_at_its_ends():
    truth = np.array([0.5, 0.7, 0.6, 0.9])
    assert ndcg_at_k(truth, truth) == pytest.approx(1.0)
    assert ndcg_at_k(np.array([4.0, 3, 2, 1]), np.full(4, 0.3)) == 1.0
    assert ndcg_at_k(np.array([4.0, 0, 0, 0]), truth, k=1) == 0.0


def test_top1_regret_is_in_percentage_points():
    truth = np.array([0.5, 0.7, 0.9])
    assert top1_regret(np.array([0.0, 0.0, 1.0]), truth) == 0.0
    assert top1_regret(np.array([1.0, 0.0, 0.0]), truth) == pytest.approx(40.0)
    assert top1_regret(np.array([1.0, 1.0, 0.0]), truth) == pytest.approx(30.0)


def test_recall_counts_models_within_the_tolerance():
    scores, truth = np.array([3.0, 2.0, 1.0, 0.0]), np.array([0.5, 0.8, 0.6, 0.9])
    assert recall_at_k(scores, truth, k=2) == 0.0
    assert recall_at_k(scores, truth, k=2, tolerance=0.1) == 1.0
    assert recall_at_k(scores, truth, k=2, tolerance=0.05) == 0.0
    assert recall_at_k(scores, truth, k=9) == 1.0


def test_recall_of_a_constant_score_is_that_of_chance():
    assert recall_at_k(np.zeros(20), np.linspace(0, 1, 20), k=5) == pytest.approx(5 / 20)
    # two best of twenty, five drawn: 1 - (15 * 14) / (20 * 19)
    assert recall_at_k(np.zeros(20), np.repeat([0.0, 1.0], [18, 2]), k=5) == pytest.approx(1 - 210 / 380)


def test_pearson_is_that_of_scipy():
    for scores, truth in problems(100):
        if np.ptp(scores) and np.ptp(truth):
            assert pearson(scores, truth) == pytest.approx(pearsonr(scores, truth).statistic, abs=1e-12)
    assert pearson(np.full(3, 0.1), np.arange(3.0)) == 0.0
    assert pearson(np.arange(3.0), np.full(3, 0.1)) == 0.0
    assert pearson(np.arange(3.0) * 1e200, np.arange(3.0)) == pytest.approx(1.0)


def test_the_order_of_models_does_not_count():
    draw = np.random.default_rng(1)
    for scores, truth in problems(50):
        order = draw.permutation(len(scores))
        assert ranking_metrics(scores[order], truth[order]) == pytest.approx(ranking_metrics(scores, truth))


def test_ranking_metrics_passes_k_and_tolerance_on():
    scores, truth = np.array([3.0, 2.0, 1.0, 0.0]), np.array([0.5, 0.8, 0.6, 0.9])
    assert ranking_metrics(scores, truth, k=2, tolerance=0.1) == {
        "weighted_kendall": weighted_kendall(scores, truth),
        "ndcg": ndcg_at_k(scores, truth, 2),
        "top1_regret": top1_regret(scores, truth),
        "recall": recall_at_k(scores, truth, 2, 0.1),
        "pearson": pearson(scores, truth),
    }


@pytest.mark.parametrize("metric", [weighted_kendall, ndcg_at_k, top1_regret, recall_at_k, pearson, ranking_metrics])
def test_what_cannot_be_ranked_is_named(metric):
    good = np.array([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match=r"scores must be finite, but model 1 has nan \(1 of 3\); leave out models"):
        metric(np.array([0.1, np.nan, 0.3]), good)
    with pytest.raises(ValueError, match=r"truth must be finite, but model 0 has inf"):
        metric(good, np.array([np.inf, 0.1, 0.2]))
    with pytest.raises(ValueError, match=r"scores have shape \(2,\) and truth \(3,\); both must be \(N,\)"):
        metric(good[:2], good)
    with pytest.raises(ValueError, match=r"N >= 1"):
        metric(good[:0], good[:0])


def test_limits_of_options_are_named():
    good = np.array([0.1, 0.2, 0.3])
    for metric in (ndcg_at_k, recall_at_k, ranking_metrics):
        with pytest.raises(ValueError, match=r"k is 0; it must be 1 or more"):
            metric(good, good, k=0)
    for tolerance in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=r"tolerance .* is given; it must be 0 or more"):
            recall_at_k(good, good, tolerance=tolerance)
