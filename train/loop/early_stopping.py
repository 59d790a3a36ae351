"""When to stop: what the run is judged by has not improved for a while."""

from dataclasses import dataclass, field

from storage.monitor import Monitor


@dataclass
class EarlyStopping:
    """Counts validations without improvement.

    Attributes:
        patience: number of validations in a row without improvement after which the run stops; 0 never stops.
        min_delta: difference by which a value must be better than the best to count.
        monitor: what the values are of, and which way it is better.
        best: best value that counted; None before the first.
        bad: validations since `best` without improvement.
    """

    patience: int
    min_delta: float
    monitor: Monitor = field(default_factory=Monitor)
    best: float | None = None
    bad: int = 0

    def update(self, value: float) -> bool:
        """Note a value; return whether to stop. One that is no number never improves."""
        if self.monitor.is_better(value, self.best, self.min_delta):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        return self.exhausted

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        return 0 < self.patience <= self.bad

    def state_dict(self) -> dict[str, float | None]:
        """Return what a resumed run needs; patience, min_delta and monitor come from its config."""
        return {"best": self.best, "bad": self.bad}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Go on from a `state_dict`; an infinite best, as older checkpoints have it, is none."""
        best = state["best"]
        self.best = None if best in (None, float("inf"), float("-inf")) else best
        self.bad = int(state["bad"] or 0)
