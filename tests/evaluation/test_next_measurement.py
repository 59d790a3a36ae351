"""The next model to measure is one that may be best, and gains that are promised come true in the mean."""

import numpy as np

from evaluation.ranking.few_results import FewResultsModel
from evaluation.ranking.next_measurement import gain_shares, next_to_measure


def two_kinds(seed: int, datasets: int = 16) -> np.ndarray:
    """Ten models of each of two kinds, one good on even, one on odd datasets; the first kind is better in the mean."""
    draw = np.random.default_rng(seed)
    kind = np.repeat([1.0, -1.0], 10)
    good = np.where(np.arange(datasets) % 2, -1.0, 1.0) * draw.uniform(0.5, 1.5, datasets)
    return 0.7 + 0.05 * (0.4 * kind[:, None] + np.outer(kind, good) + 0.2 * draw.normal(size=(20, datasets)))


def test_the_first_is_the_best_expected_one_and_the_second_of_the_other_kind():
    values = two_kinds(0)
    model = FewResultsModel(values)
    everything = np.ones(20, bool)
    nothing = model.posterior(np.array([], int), np.array([]))
    first, gain = next_to_measure(nothing, [], [], everything, 1.0)
    assert first == int(np.argmax(nothing.expected())) < 10 and gain == 0.0
    low = float(values[:10].mean() - 0.08)  # a disappointment: this dataset is one for the other kind
    after = model.posterior(np.array([first]), np.array([low]))
    second, gain = next_to_measure(after, [first], [low], everything, 1.0)
    assert second >= 10 and gain > 0.01


def test_only_candidates_are_chosen_and_none_twice():
    values = two_kinds(1)
    model = FewResultsModel(values)
    candidates = np.isin(np.arange(20), (4, 11, 15))
    known: list[int] = []
    for _ in range(3):
        posterior = model.posterior(np.array(known, int), values[known, 0])
        place, _ = next_to_measure(posterior, known, values[known, 0].tolist(), candidates, 1.0)
        known.append(place)
    assert sorted(known) == [4, 11, 15]
    posterior = model.posterior(np.array(known), values[known, 0])
    assert next_to_measure(posterior, known, values[known, 0].tolist(), candidates, 1.0) == (None, 0.0)


def test_nothing_is_gained_at_the_highest_value():
    model = FewResultsModel(two_kinds(2))
    posterior = model.posterior(np.array([0]), np.array([1.0]))
    _, gain = next_to_measure(posterior, [0], [1.0], np.ones(20, bool), 1.0)
    assert gain == 0.0


def test_shares_are_between_nothing_and_all_and_the_same_each_time():
    values = two_kinds(3)
    shares = gain_shares(values, lambda column: 1.0)
    assert 0 < shares.gain <= 1 and 0 < shares.short <= 1
    assert shares == gain_shares(values, lambda column: 1.0)
    few = gain_shares(values[:, :2], lambda column: 1.0)  # one dataset is left: nothing can be tried
    assert (few.gain, few.short) == (0.3, 0.5)
