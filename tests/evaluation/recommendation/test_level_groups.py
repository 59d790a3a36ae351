"""Groups of models that can't be told apart, and what intervals and chances mean: counted in simulations."""

import numpy as np

from evaluation.recommendation.level_groups import accuracy_draws, level_groups, standings


def outcomes(generator: np.random.Generator, accuracies: np.ndarray, images: int) -> np.ndarray:
    """Draw hits (M, n) of models that are wrong on much the same images: a hard image is hard for all."""
    hardness = generator.normal(0, 1.5, images)
    return np.stack([(hardness + generator.normal(0, 1, images) < cut) for cut in _cuts(accuracies)]).astype(float)


def _cuts(accuracies: np.ndarray) -> np.ndarray:
    from scipy.stats import norm

    return norm.ppf(accuracies) * np.sqrt(1.5**2 + 1)


def test_the_best_is_in_the_first_group_in_95_of_100():
    """With ten models that are truly equal the group must hold almost all; with distinct ones it must be small."""
    generator = np.random.default_rng(0)
    for accuracies, images, largest in (
        (np.full(10, 0.85), 200, 10.0),
        (np.linspace(0.6, 0.9, 10), 300, 4.5),
        (np.array([0.9, 0.5, 0.5]), 100, 1.05),
    ):
        kept, sizes = [], []
        for trial in range(150):
            hits = outcomes(generator, accuracies, images)
            groups = level_groups(accuracy_draws(hits, np.arange(images), trial, draws=800))
            kept.append(groups[accuracies.argmax()] == 1)
            sizes.append((groups == 1).sum())
        assert np.mean(kept) >= 0.93, "95 % less what 150 trials can miss it by"
        assert np.mean(sizes) <= largest


def test_intervals_hold_the_truth_in_9_of_10():
    generator = np.random.default_rng(1)
    for accuracy, images in ((0.8, 60), (0.97, 60), (0.9, 400)):
        held = []
        for trial in range(300):
            hits = outcomes(generator, np.array([accuracy]), images)
            (standing,) = standings(accuracy_draws(hits, np.arange(images), trial, draws=600))
            held.append(standing.low <= accuracy <= standing.high)
        assert 0.85 <= np.mean(held) <= 0.95, (accuracy, images)


def test_a_model_that_is_always_right_is_not_certain():
    (standing,) = standings(accuracy_draws(np.ones((1, 30)), np.arange(30)))
    assert standing.low < 0.97 and standing.chance == 1 and standing.group == 1


def test_copies_of_an_image_count_together():
    """Four copies of each image say no more than one of each: the interval is as wide as that of a quarter."""
    generator = np.random.default_rng(2)
    hits = (generator.random((1, 50)) < 0.7).astype(float)
    one = standings(accuracy_draws(hits, np.arange(50)))[0]
    four = standings(accuracy_draws(hits.repeat(4, 1), np.arange(50).repeat(4)))[0]
    as_if = standings(accuracy_draws(hits.repeat(4, 1), np.arange(200)))[0]
    assert abs((four.high - four.low) - (one.high - one.low)) < 0.03
    assert as_if.high - as_if.low < 0.65 * (four.high - four.low)


def test_models_that_are_right_on_the_same_images_are_level_whatever_the_rest():
    hits = np.array([[1.0] * 30 + [0.0] * 10, [1.0] * 30 + [0.0] * 10, [1.0] * 5 + [0.0] * 35])
    groups = level_groups(accuracy_draws(hits, np.arange(40)))
    assert groups.tolist() == [1, 1, 2]


def test_pairing_tells_models_apart_that_intervals_do_not():
    """One model is right wherever the other is, and on ten more of 100 images: single intervals overlap widely."""
    hits = np.zeros((2, 100))
    hits[0, :70], hits[1, :60] = 1, 1
    one, two = standings(accuracy_draws(hits, np.arange(100)))
    assert two.high > one.low and (one.group, two.group) == (1, 2)
    assert one.chance > 0.99


def test_models_that_are_right_on_the_same_images_have_the_same_chance():
    hits = np.ones((3, 40))
    hits[2, :20] = 0
    first, second, third = (standing.chance for standing in standings(accuracy_draws(hits, np.arange(40))))
    assert first == second == 0.5 and third == 0
