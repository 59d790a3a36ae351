"""Requests of a model come out by their numbers; a gap holds them back, and for no longer than it may."""

from service.tinker.request_order import RequestOrder


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_numbers_come_out_in_order_and_one_at_a_time():
    order = RequestOrder()
    assert order.put(3, "c") and order.put(2, "b") and not order.ready
    assert order.put(1, "a") and order.ready
    assert order.take() == "a" and not order.ready  # at work
    order.done()
    assert [order.take(), order.done(), order.take(), order.done()] == ["b", None, "c", None]
    assert not order.put(2, "again") and len(order) == 0


def test_without_a_number_it_is_the_next():
    order = RequestOrder()
    assert order.put(1, "a") and order.put(None, "b") and not order.put(2, "c")
    assert order.all_held() == ["a", "b"]


def test_a_gap_is_given_up_only_after_its_time_without_work():
    clock = Clock()
    order = RequestOrder(gap_seconds=60, clock=clock)
    order.put(1, "slow")
    assert order.take() == "slow"
    order.put(3, "c"), order.put(4, "d")
    clock.now = 1000  # 1 is still at work: nothing is missing for long
    assert order.given_up() == (2, [])
    order.done()
    clock.now = 1059
    assert order.given_up() == (2, [])
    clock.now = 1060
    assert order.given_up() == (2, ["c", "d"])
    assert not order.put(2, "too late") and order.put(5, "e") and order.ready


def test_the_time_of_a_gap_begins_with_what_is_held():
    clock = Clock()
    order = RequestOrder(gap_seconds=60, clock=clock)
    clock.now = 500
    order.put(2, "b")
    assert order.given_up() == (1, [])
    clock.now = 560
    assert order.given_up() == (1, ["b"])
