"""What a few results say of the other models: the posterior is right where it can be worked out by hand."""

import numpy as np
import pytest

from evaluation.ranking.few_results import FewResultsModel, covariate_noise, mean_ranks


def drawn(seed: int, models: int = 20, datasets: int = 12, kinds: int = 2, missing: float = 0.0) -> np.ndarray:
    """Values with a level and a spread for each dataset; models of a kind go together."""
    draw = np.random.default_rng(seed)
    loading = draw.normal(size=(models, kinds))
    own = loading @ draw.normal(size=(kinds, datasets)) + 0.4 * draw.normal(size=(models, datasets))
    values = draw.normal(size=(models, 1)) + own
    values = draw.normal(60, 8, datasets) + np.exp(draw.normal(1.5, 0.3, datasets)) * values
    values[draw.random(values.shape) < missing] = np.nan
    return values


def one_level(model: FewResultsModel, level: float, spread: float, error: float) -> FewResultsModel:
    """Leave a single possible level and spread, for which the posterior is that of a Gaussian."""
    model._level_of, model._spread_of, model._level_error = np.array([level]), np.array([spread]), error
    return model


@pytest.mark.parametrize("known", [[], [3], [3, 0, 7]])
def test_the_posterior_equals_that_of_a_gaussian(known):
    model = one_level(FewResultsModel(drawn(0)), level=60.0, spread=5.0, error=2.0)
    mean = 60.0 + 5.0 * model.usual
    covariance = 25.0 * model.covariance + (4.0 if known else 2.0) ** 2  # twice the width once something is known
    seen = np.array([71.0, 52.0, 66.0])[: len(known)]
    gain = np.linalg.solve(covariance[np.ix_(known, known)], covariance[known]).T
    expected = mean + gain @ (seen - mean[known])
    variance = (covariance - gain @ covariance[known]).diagonal()
    posterior = model.posterior(np.array(known, int), seen, draws=20_000)
    np.testing.assert_allclose(posterior.expected(), expected, rtol=1e-4)
    rest = [index for index in range(20) if index not in known]
    np.testing.assert_allclose(posterior.deviation()[rest], np.sqrt(variance[rest]), rtol=1e-3)
    np.testing.assert_allclose(posterior.quantile(0.95)[rest], (expected + 1.644854 * variance**0.5)[rest], rtol=1e-3)
    np.testing.assert_allclose(posterior.draws.mean(0), expected, atol=0.25)
    np.testing.assert_allclose(posterior.draws.std(0)[rest], np.sqrt(variance[rest]), rtol=0.04)
    assert (posterior.draws[:, known] == seen).all() and (posterior.deviation()[known] == 0).all()


def test_expected_gain_is_that_of_the_draws_and_ends_at_the_highest_value():
    posterior = FewResultsModel(drawn(1)).posterior(np.array([2, 5]), np.array([64.0, 70.0]), draws=40_000)
    for highest in (np.inf, 73.0):
        by_draws = np.maximum(np.minimum(posterior.draws, highest) - 70.0, 0.0).mean(0)
        np.testing.assert_allclose(posterior.expected_gain(70.0, highest), by_draws, atol=0.1)
    assert (posterior.expected_gain(70.0)[[2, 5]] == 0).all()
    assert posterior.chance_best().sum() == pytest.approx(1.0)


def test_ninety_percent_intervals_hold_about_ninety_percent():
    inside = {0: [], 3: []}
    for seed in range(40):
        values = drawn(seed, missing=0.2 if seed % 2 else 0.0)
        truth = values[:, -1]
        model = FewResultsModel(values[:, :-1])
        measured = np.flatnonzero(np.isfinite(truth))
        for count, found in inside.items():
            known = measured[:count]
            posterior = model.posterior(known, truth[known])
            rest = measured[count:]
            low, high = posterior.quantile(0.05)[rest], posterior.quantile(0.95)[rest]
            found.append(((truth[rest] >= low) & (truth[rest] <= high)).mean())
    for found in inside.values():
        assert 0.85 < np.mean(found) < 0.95


def test_the_order_without_results_is_the_static_one():
    for seed in range(5):
        values = drawn(seed, missing=0.3)
        expected = FewResultsModel(values).posterior(np.array([], int), np.array([])).expected()
        static = mean_ranks(values)
        rising = np.diff(expected[np.argsort(static, kind="stable")])
        assert (rising[np.diff(np.sort(static)) > 1e-9] > 0).all()


def test_a_result_tells_of_models_of_the_same_kind_and_nothing_where_there_are_no_kinds():
    draw = np.random.default_rng(0)
    kind = np.repeat([1.0, -1.0], 8)
    values = 0.6 + 0.05 * np.outer(kind, draw.normal(size=14)) + 0.005 * draw.normal(size=(16, 14))
    model = FewResultsModel(values)
    assert model.trust > 0.8
    best = model.posterior(np.array([0, 8]), np.array([0.7, 0.5])).expected()
    assert best[1:8].min() > best[9:].max() + 0.1
    assert FewResultsModel(draw.normal(size=(16, 14))).trust < 0.3


def test_a_covariate_moves_the_order_as_far_as_it_is_trusted():
    values = drawn(3)
    truth = values[:, -1]
    errors = {}
    for noise in (0.05, 1.0, 1e6):
        model = FewResultsModel(values[:, :-1])
        before = model.posterior(np.array([0]), truth[:1]).expected()
        model.observe_covariate((truth - 50) / 100, noise)
        after = model.posterior(np.array([0]), truth[:1]).expected()
        errors[noise] = np.abs(after - truth).mean() / np.abs(before - truth).mean()
    assert errors[0.05] < errors[1.0] < errors[1e6] == pytest.approx(1.0, abs=0.01)
    assert covariate_noise(values, values * 2 + 1) < 0.2 < covariate_noise(values, -values)
    nothing = FewResultsModel(values)
    usual = nothing.usual
    nothing.observe_covariate(np.full(20, np.nan))
    assert nothing.usual is usual


def test_other_units_say_the_same():
    values = drawn(4, missing=0.2)
    known, seen = np.array([1, 2]), np.array([61.0, 66.0])
    percent = FewResultsModel(values).posterior(known, seen).expected()
    share = FewResultsModel(values / 100).posterior(known, seen / 100).expected()
    below = FewResultsModel(values - 1000).posterior(known, seen - 1000).expected()
    np.testing.assert_allclose(share * 100, percent, rtol=1e-6)
    np.testing.assert_allclose(below + 1000, percent, rtol=1e-6)


def test_a_failed_run_a_dataset_of_equals_and_an_untried_model_do_no_harm():
    values = drawn(5)
    values[3, 4] = -1e4
    values[:, 6] = 50.0
    values[9] = np.nan
    model = FewResultsModel(values)
    assert len(model.levels) == 11 and (model.spreads < 50).all()
    posterior = model.posterior(np.array([0]), np.array([65.0]), draws=50)
    assert np.isfinite(posterior.expected()).all() and np.isfinite(posterior.quantile(0.05)).all()
    assert posterior.deviation()[9] > np.delete(posterior.deviation(), [0, 9]).mean()
    with pytest.raises(ValueError, match="1 datasets tell models apart"):
        FewResultsModel(values[:, [0, 6]])
