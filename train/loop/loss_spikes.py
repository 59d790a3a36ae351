"""Losses that jump: a sample or a step that did harm, long before anything is infinite."""

import statistics
from collections import deque

from beautilog import logger

_REMEMBERED, _NEEDED = 20, 5  # looks that a loss is compared with, and how many it takes


class SpikeWatch:
    """Warns where the mean loss between two looks is many times the usual one.

    Args:
        factor: of the median of the looks before; 0 never warns.
    """

    def __init__(self, factor: float) -> None:
        self._factor, self.on = factor, factor > 0
        self._total, self._samples, self._step = 0.0, 0.0, -1  # of the epoch, and the run, at the last look
        self._means: deque[float] = deque(maxlen=_REMEMBERED)

    def look(self, mean: float, samples: float, step: int) -> None:
        """Compare what came since the last look with what came before it.

        Args:
            mean: loss of the epoch so far.
            samples: over how many.
            step: of the run.
        """
        if step == self._step:
            return
        self._step = step
        if samples <= self._samples:  # a new epoch
            self._total, self._samples = 0.0, 0.0
        if not samples:  # nothing counted yet
            return
        total, new = mean * samples, samples - self._samples
        since = (total - self._total) / new
        self._total, self._samples = total, samples
        usual = statistics.median(self._means) if len(self._means) >= _NEEDED else None
        if usual is not None and since > self._factor * usual > 0:
            logger.warning(
                f"the loss jumped: {since:.4g} in the steps up to {step}, {since / usual:.3g} times the usual "
                f"{usual:.4g}. Look at their data, lower learning_rate, or clip more (gradient_clip_value)."
            )
        self._means.append(since)
