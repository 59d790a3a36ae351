"""The training loss by step: what tells where two runs parted, where an epoch is long."""

from collections.abc import Callable
from typing import Any

_MOST = 10_000  # readings that are kept: half a megabyte of metrics.json


class Readings:
    """Readings of the loss at steps of a run: each the mean over the samples of its epoch so far.

    They are made where a run that is never interrupted makes them, so a resumed run has the same. When 10,000 are kept,
    every second of them is left out, and from then on every second new one: two runs of one length of epochs keep
    readings of the same steps, or one run a half, a quarter, ... of the other's. Since each reading is a mean from its
    epoch's start, none misses what lay between.
    """

    def __init__(self) -> None:
        self._lists: dict[str, list[Any]] = {"step": [], "step_of_epoch": [], "train_loss": []}
        self._made, self._every = 0, 1  # readings so far; of how many one is kept
        self._last = 0  # step of the last one made

    def add(self, step: int, step_of_epoch: int, loss: float) -> None:
        """Add a reading; a second one of a step, such as an epoch's last, is the same and left out."""
        if step == self._last:
            return
        self._last = step
        self._made += 1
        if self._made % self._every:
            return
        for values, value in zip(self._lists.values(), (step, step_of_epoch, loss), strict=True):
            values.append(value)
        if len(self._lists["step"]) >= _MOST:  # into new lists: a checkpoint that waits to be written has the old ones
            self._lists = {name: values[1::2] for name, values in self._lists.items()}
            self._every *= 2

    def content(self) -> dict[str, list[Any]]:
        """Return the lists by name: `step` of the run, `step_of_epoch`, `train_loss`."""
        return dict(self._lists)

    def frozen(self) -> Callable[[], dict[str, Any]]:
        """Return a function that gives plain data for a checkpoint of this moment, whenever it is called."""
        lists, length = self._lists, len(self._lists["step"])
        counts = {"made": self._made, "every": self._every, "last": self._last}
        return lambda: counts | {name: values[:length] for name, values in lists.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `frozen` gave; a checkpoint of an earlier version has nothing."""
        self._lists = {name: list(state.get(name, [])) for name in self._lists}
        self._made, self._every, self._last = state.get("made", 0), state.get("every", 1), state.get("last", 0)
