"""When to stop: the validation loss has not improved for a while."""

import math
from dataclasses import asdict, dataclass


@dataclass
class EarlyStopping:
    """Counts validations without improvement.

    Attributes:
        patience: number of validations in a row without improvement after which the run stops; 0 never stops.
        min_delta: difference by which a loss must be below the best to count.
        best: lowest validation loss that counted.
        bad: validations since `best` without improvement.
    """

    patience: int
    min_delta: float
    best: float = math.inf
    bad: int = 0

    def update(self, val_loss: float) -> bool:
        """Note a validation loss; return whether to stop. A loss that is no number never improves."""
        if val_loss < self.best - self.min_delta:
            self.best, self.bad = val_loss, 0
        else:
            self.bad += 1
        return self.exhausted

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        return 0 < self.patience <= self.bad

    def state_dict(self) -> dict[str, float]:
        """Return what a resumed run needs; patience and min_delta come from its config."""
        state = asdict(self)
        return {name: state[name] for name in ("best", "bad")}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from a `state_dict`."""
        self.best, self.bad = state["best"], int(state["bad"])
