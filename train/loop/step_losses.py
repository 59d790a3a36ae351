"""The training loss and the learning rate by step: what tells where two runs parted, where an epoch is long."""

from collections.abc import Callable
from typing import Any

_MOST = 10_000  # readings that are kept: half a megabyte of metrics.json
_FIRST = ("step", "step_of_epoch", "train_loss")
# Names that no further number of a reading may have: its own lists', and the counters' in a checkpoint.
OF_A_READING = frozenset({*_FIRST, "learning_rate", "made", "every", "last"})


class StepLosses:
    """Readings of the loss at steps of a run: each the mean over the samples of its epoch so far.

    They are made where a run that is never interrupted makes them, so a resumed run has the same. When 10,000 are kept,
    every second of them is left out, and from then on every second new one: two runs of one length of epochs keep
    readings of the same steps, or one run a half, a quarter, ... of the other's. Since each reading is a mean from its
    epoch's start, none misses what lay between. What callbacks add to a reading stands in further lists of the same
    length, with None where a reading has no such number.
    """

    def __init__(self) -> None:
        self._lists: dict[str, list[Any]] = {name: [] for name in _FIRST}
        self._made, self._every = 0, 1  # readings so far; of how many one is kept
        self._last = 0  # step of the last one made

    def is_new(self, step: int) -> bool:
        """Whether there is no reading of a step yet: a second one, such as an epoch's last, is the same."""
        return step != self._last

    def add(self, step: int, step_of_epoch: int, numbers: dict[str, float]) -> None:
        """Add the reading of a step that is new.

        Args:
            step: optimizer steps of the run.
            step_of_epoch: optimizer steps of the epoch.
            numbers: `train_loss`, `learning_rate`, and what callbacks have added.
        """
        self._last = step
        self._made += 1
        if self._made % self._every:
            return
        row = {"step": step, "step_of_epoch": step_of_epoch} | numbers
        length = len(self._lists["step"])
        for name in row:
            if name not in self._lists:
                self._lists[name] = [None] * length
        for name, values in self._lists.items():
            values.append(row.get(name))
        if length + 1 >= _MOST:  # into new lists: a checkpoint that waits to be written has the old ones
            self._lists = {name: values[1::2] for name, values in self._lists.items()}
            self._every *= 2

    def content(self) -> dict[str, list[Any]]:
        """Return the lists by name: `step` of the run, `step_of_epoch`, `train_loss`, and the further numbers."""
        return dict(self._lists)

    def frozen(self) -> Callable[[], dict[str, Any]]:
        """Return a function that gives plain data for a checkpoint of this moment, whenever it is called."""
        lists, length = dict(self._lists), len(self._lists["step"])
        counts = {"made": self._made, "every": self._every, "last": self._last}
        return lambda: counts | {name: values[:length] for name, values in lists.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `frozen` gave; a checkpoint of an earlier version has nothing."""
        counts = ("made", "every", "last")
        self._lists = {name: [] for name in _FIRST} | {n: list(v) for n, v in state.items() if n not in counts}
        self._made, self._every, self._last = state.get("made", 0), state.get("every", 1), state.get("last", 0)
