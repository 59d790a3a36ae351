"""Losses that jump: a sample or a step that did harm, long before anything is infinite."""

import statistics
from collections import deque
from collections.abc import Callable
from typing import Any

from beautilog import logger

from train.callbacks.callback import Callback
from train.trainer_protocol import Trainer

_REMEMBERED, _NEEDED = 20, 5  # readings that a loss is compared with, and how many it takes


class LossSpikes(Callback):
    """Warns where the mean loss between two readings is many times the usual one.

    Args:
        factor: of the median of the readings before; above 0.
        samples: tells over how many samples of the epoch the running loss is a mean; may be a host-device
            synchronisation.
    """

    def __init__(self, factor: float, samples: Callable[[], float]) -> None:
        self._factor, self._count = factor, samples
        self._total, self._samples, self._step = 0.0, 0.0, -1  # of the epoch, and the run, at the last reading
        self._means: deque[float] = deque(maxlen=_REMEMBERED)

    def on_log(self, trainer: Trainer, numbers: dict[str, float]) -> None:
        """Compare what came since the last reading with what came before it."""
        self.compare(numbers["train_loss"], self._count(), trainer.record.progress.step)

    def compare(self, mean: float, samples: float, step: int) -> None:
        """Take a reading.

        Args:
            mean: loss of the epoch so far.
            samples: over how many samples that is a mean.
            step: optimizer steps of the run.
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

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run compares with."""
        return {"means": list(self._means), "total": self._total, "samples": self._samples, "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._means.clear()
        self._means.extend(state["means"])
        self._total, self._samples, self._step = state["total"], state["samples"], state["step"]
