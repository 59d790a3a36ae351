"""Counts and rates of requests, by a clock that the test turns."""

import pytest

from service.web.request_counts import Duration, RequestCounts, TokenRates


def test_each_duration_is_in_one_bucket():
    duration = Duration()
    for seconds in (0.001, 0.005, 0.3, 1000.0):
        duration.add(seconds)
    assert duration.buckets == [2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert duration.count == 4 and duration.seconds == pytest.approx(1000.306)


def test_only_the_newest_errors_are_kept():
    counts = RequestCounts()
    for number in range(100):
        counts.fail("POST /x", 400, f"error {number}", server=number % 2 == 0)
    assert [each.text for each in counts.errors] == [f"error {number}" for number in range(70, 100)]
    assert counts.failures == {"server": 50, "user": 50}


def test_rates_are_of_the_last_interval_and_their_history_of_ten_minutes():
    now = [0.0]
    rates = TokenRates(lambda: now[0])
    assert rates.now() == (0.0, 0.0) and set(rates.history()) == {(0.0, 0.0)}
    for moment, sampled, trained in ((1.0, 50, 0), (10.0, 100, 40), (310.0, 400, 40), (600.0, 400, 40)):
        now[0] = moment
        rates.note(sampled, trained)  # the first comes too soon to count
    assert rates.now() == (0.0, 0.0)
    history = rates.history(parts=60)  # of ten seconds each
    assert history[0] == pytest.approx((10.0, 4.0)) and history[1] == pytest.approx((1.0, 0.0))
    assert history[30] == pytest.approx((1.0, 0.0)) and history[31] == (0.0, 0.0)
    now[0] = 610.0
    assert rates.history(parts=60)[0] == pytest.approx((1.0, 0.0))
    for _ in range(10_000):
        now[0] += 5
        rates.note(500, 40)
    assert len(rates._noted) < 200
