"""What a run is judged by: the setting `monitor`, for the run that trains and for whoever reads what it has saved."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from constants.metrics import Direction


@dataclass(frozen=True)
class Monitor:
    """A number of the history, and which way it is better. All that asks what is best asks this.

    Attributes:
        name: name in the history, such as `val_loss` or `val_accuracy`.
        mode: `min` where lower is better, `max` where higher is.
    """

    name: str = "val_loss"
    mode: Direction = "min"

    def is_better(self, value: float, than: float | None, min_delta: float = 0.0) -> bool:
        """Say whether a value is better than another. One that is no number never is; any number is than None.

        Args:
            value: value to judge.
            than: value to beat; None where there was none yet.
            min_delta: difference by which it must be better.
        """
        if than is None or math.isnan(than):
            return not math.isnan(value)
        return value < than - min_delta if self.mode == "min" else value > than + min_delta

    def best(self, values: Iterable[float]) -> float | None:
        """Return the first of the best of some values, None where none is a number."""
        best = None
        for value in values:
            if self.is_better(value, best):
                best = value
        return best

    def sort_key(self, value: float | None) -> tuple[bool, float]:
        """Return what sorts values, the best first, and those that are missing or no number last."""
        if value is None or math.isnan(value):
            return True, 0.0
        return False, value if self.mode == "min" else -value


def best_title(monitors: Iterable[Monitor]) -> str:
    """Return the head of a column with the best values of runs: `best val_loss`, or `best` where they are of several.

    Args:
        monitors: what each of the runs is judged by; none is the validation loss.
    """
    names = list(dict.fromkeys(monitor.name for monitor in monitors)) or ["val_loss"]
    return f"best {names[0]}" if len(names) == 1 else "best"
