"""The search for the largest batch that fits: a function of a question, so that it needs no GPU to be tried."""

from collections.abc import Callable


def largest_fitting(fits: Callable[[int], bool], cap: int, start: int = 1, resolution: float = 1 / 16) -> int:
    """Find the largest size that fits, by doubling and then halving the gap.

    Args:
        fits: function that tells whether a size fits; where one doesn't, no larger one is asked for.
        cap: largest size that is asked for.
        start: first size that is asked for.
        resolution: the search ends when the smallest size known not to fit is nearer than this share of the answer (and
            at 1 anyway).

    Returns:
        A size that fits, 0 where not even 1 does.
    """
    size = min(start, cap)
    good, bad = 0, cap + 1
    while size < bad and fits(size):
        good = size
        size = min(2 * size, cap)
        if good == cap:
            return good
    bad = size
    while bad - good > max(1.0, resolution * good):
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good


def with_margin(size: int, margin: float = 0.1) -> int:
    """Leave room below a size that just fits, and round down to a multiple of 8, which matrix units like.

    Args:
        size: the largest that fits.
        margin: share that is left free: batches differ, and memory falls to pieces in long runs.
    """
    room = int(size * (1 - margin))
    return max(1, room - room % 8 if room >= 16 else room)


class LevelsOff:
    """Says when doubling the batch brings no more samples a second: the search on a CPU, where no size ends it.

    Args:
        gain: factor by which a doubling must raise the samples a second to count.
        patience: number of doublings in a row below `gain` after which the search ends.
    """

    def __init__(self, gain: float = 1.05, patience: int = 2) -> None:
        self._gain, self._patience = gain, patience
        self._best, self._bad = 0.0, 0

    def sees(self, rate: float) -> bool:
        """Take the samples a second of the next size; return whether to end."""
        self._bad = 0 if rate >= self._gain * self._best else self._bad + 1
        self._best = max(self._best, rate)
        return self._bad >= self._patience


def smallest_near_best(rates: dict[int, float], share: float = 0.9) -> int:
    """Return the smallest size whose samples a second are near the best: a larger one brings only fewer steps.

    Args:
        rates: samples a second by size.
        share: share of the best samples a second that is near enough, from 0 to 1.
    """
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= share * best)
