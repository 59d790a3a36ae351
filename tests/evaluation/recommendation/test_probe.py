"""The linear probe on arrays: what it finds, what it may not see, and how long it takes."""

import numpy as np
import pytest
import torch

from evaluation.recommendation.feature_scores import feature_scores
from evaluation.recommendation.probe import linear_probe
from evaluation.recommendation.splits import copies, cross_validation, given_parts


def blobs(images: int, width: int, classes: int, spread: float, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % classes
    centres = torch.randn(classes, width, generator=generator)
    return centres[labels] + spread * torch.randn(images, width, generator=generator), labels.numpy()


def test_it_agrees_with_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    features, labels = blobs(300, 40, 4, 3.5)
    splits = cross_validation(labels, np.arange(300))
    found = linear_probe(features, labels, splits, 4)
    scaled = ((features - features.mean(0)) / (features - features.mean(0)).square().sum(1).mean().sqrt()).numpy()
    hits = []
    for train, test in zip(splits.train, splits.test, strict=True):
        best = LogisticRegression(C=1 / (found.penalty * train.sum()), max_iter=3000).fit(scaled[train], labels[train])
        hits.append(best.score(scaled[test], labels[test]))
    assert 0.6 < found.accuracy < 0.98, "neither trivial nor hopeless"
    assert found.accuracy == pytest.approx(np.mean(hits), abs=0.015)


def test_features_that_know_nothing_are_at_chance():
    """Also with more features than images, where a probe that saw its test images would be right on all."""
    accuracies = []
    for seed in range(6):
        features = torch.randn(120, 600, generator=torch.Generator().manual_seed(seed))
        labels = np.arange(120) % 4
        accuracies.append(linear_probe(features, labels, cross_validation(labels, np.arange(120), seed), 4).accuracy)
    assert 0.2 < np.mean(accuracies) < 0.3


def test_copies_never_straddle_folds():
    """Labels at random, but each image is there twice: who has one copy in training is right on the other."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 100).repeat(2)
    features = torch.randn(100, 300, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, 0)
    groups = copies([f"image {number // 2}" for number in range(200)])
    apart = linear_probe(features, labels, cross_validation(labels, groups), 3).accuracy
    leaking = linear_probe(features, labels, cross_validation(labels, np.arange(200)), 3).accuracy
    assert apart < 0.45 and leaking > 0.7
    for test in cross_validation(labels, groups).test:
        assert (test[::2] == test[1::2]).all()


def test_folds_hold_equally_many_of_each_class():
    labels = np.array([0] * 53 + [1] * 7 + [2] * 2 + [3])
    splits = cross_validation(labels, np.arange(len(labels)))
    assert splits.scored.all() and len(splits.test) == 25, "five folds, five times"
    for test in splits.test:
        assert 10 <= (labels[test] == 0).sum() <= 11 and 1 <= (labels[test] == 1).sum() <= 2
        assert (labels[test] == 2).sum() <= 1


def test_a_class_with_one_image_is_wrong_and_no_more():
    features, labels = blobs(60, 10, 3, 0.2)
    features, labels = torch.cat([features, features[:1] + 9]), np.append(labels, 3)
    found = linear_probe(features, labels, cross_validation(labels, np.arange(61)), 4)
    assert found.hits[:60].mean() == 1 and found.hits[60] == 0 and np.isfinite(found.log_losses).all()


def test_a_part_that_was_set_apart_is_what_is_scored():
    features, labels = blobs(200, 20, 4, 1.0)
    held_out = np.arange(200) >= 150
    groups = np.arange(200)
    groups[199] = 0  # a copy of an image to train on
    splits = given_parts(labels, groups, held_out)
    assert splits.scored.tolist() == [False] * 150 + [True] * 49 + [False]
    found = linear_probe(features, labels, splits, 4)
    assert np.isfinite(found.hits).tolist() == splits.scored.tolist() and found.accuracy > 0.9
    wrong = labels.copy()
    wrong[:150] = (wrong[:150] + 1) % 4
    assert linear_probe(features, wrong, splits, 4).accuracy < 0.1, "it learned from the rest alone"


@pytest.mark.parametrize("values", [torch.full((20, 4), torch.nan), torch.ones(20, 4), torch.full((20, 4), torch.inf)])
def test_features_that_say_nothing_are_refused(values):
    labels = np.arange(20) % 2
    with pytest.raises(ValueError, match="features are (not finite|the same for all images)"):
        linear_probe(values, labels, cross_validation(labels, np.arange(20)), 2)


def test_its_answer_does_not_depend_on_the_scale_and_repeats_to_the_bit():
    features, labels = blobs(150, 30, 3, 3.0)
    splits = cross_validation(labels, np.arange(150))
    one, again, large = (linear_probe(each, labels, splits, 3) for each in (features, features, 1024 * features))
    assert (one.log_losses == again.log_losses).all() and one.accuracy > 0.5
    assert np.abs(one.log_losses - large.log_losses).max() < 0.02


def test_scores_of_features_that_fit_are_higher():
    good, labels = blobs(120, 600, 3, 1.0)
    bad = torch.randn(120, 600, generator=torch.Generator().manual_seed(5))
    logits = torch.nn.functional.one_hot(torch.as_tensor(labels), 5) * 4.0
    one, other = feature_scores(good, labels, logits), feature_scores(bad, labels, torch.zeros(120, 5))
    assert all(one[name] > other[name] for name in one), (one, other)
    assert np.isnan(feature_scores(good, labels, None)["leep"])


def test_large_features_have_the_same_scores_by_products_as_by_singular_values(monkeypatch):
    from evaluation.ranking import transferability

    for rows, width in ((540, 520), (520, 700)):
        features, labels = blobs(rows, width, 4, 4.0)
        fast = feature_scores(features, labels, None)
        with monkeypatch.context() as patch:
            patch.setattr(transferability, "_LARGE", 10**9)
            slow = feature_scores(features, labels, None)
        for name in ("log_me", "h_score", "n_leep", "centroid"):
            assert fast[name] == pytest.approx(slow[name], rel=1e-6), name
