"""How far a running step is, from what it tells: events of its own, or the lines that it prints."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from workflow.definition.numbers import number_of

_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|nan|inf(?:inity)?)"
_LOSS = re.compile(rf"\b(?:train[_/ ])?loss['\"]?\s*[=:]?\s*({_NUMBER})\b", re.IGNORECASE)
# "step 10/1000", "epoch 1: 25/500", tqdm's " 5%|## | 25/500 [00:10<03:20".
_OF = re.compile(
    r"(?:\||\b(?:steps?|examples?|batch|iter|iteration|rows?)\b)\D{0,12}?(\d[\d,]*)\s*(?:/|of)\s*(\d[\d,]*)",
    re.IGNORECASE,
)
_COUNTS = ("tokens_in", "tokens_out", "tokens_trained", "dollars")
_KEPT = 200  # times between two signs of progress, of which the median is the usual one


@dataclass
class Progress:
    """How far a step is.

    Attributes:
        done: units that are done; None where it tells none.
        total: units that there are; None where it tells none.
        unit: what they are: "examples", "steps".
        loss: the newest loss; NaN and infinity are kept.
        first_loss: the first loss.
        best_loss: the lowest finite loss so far.
        losses: those that were told and that nobody has looked at yet, each with how far the step was.
        counts: tokens_in, tokens_out, tokens_trained and dollars that it tells, sums since it began.
        spent: dollars that the step has cost so far, earlier runs too; None where nobody knows.
        checkpoint: the newest checkpoint that it tells of.
        message: its newest word.
        moved: when it last moved, seconds of the caller's clock.
        longest_gap: the longest that it took between two signs of progress, in seconds.
    """

    done: float | None = None
    total: float | None = None
    unit: str = ""
    loss: float | None = None
    first_loss: float | None = None
    best_loss: float | None = None
    losses: list[tuple[float | None, float]] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)
    spent: float | None = None
    checkpoint: str = ""
    message: str = ""
    moved: float = 0.0
    longest_gap: float = 0.0
    _began: float = 0.0
    _begun_at: float | None = None
    _gaps: list[float] = field(default_factory=list)

    def begin(self, now: float) -> None:
        """Say when the step began."""
        self.moved = self._began = now

    def take_event(self, event: Mapping[str, object], now: float) -> None:
        """Take an event that the step wrote; what is no number where one is due is passed over.

        Args:
            event: its keys, those of docs/workflows.md.
            now: seconds of a clock that goes on.
        """
        done, total, loss = (number_of(event.get(key)) for key in ("done", "total", "loss"))
        for key in _COUNTS:
            count = number_of(event.get(key))
            if count is not None and math.isfinite(count):
                self.counts[key] = count
        self.unit = str(event.get("unit") or self.unit)
        self.checkpoint = str(event.get("checkpoint") or self.checkpoint)
        self.message = str(event.get("message") or self.message)
        self._take(done, total, loss, now)

    def take_event_line(self, line: str, now: float) -> None:
        """Take a line of the file of events; one that a kill has torn is passed over.

        Args:
            line: the line, JSON.
            now: seconds of a clock that goes on.
        """
        try:
            event = json.loads(line)
        except ValueError:
            return
        if isinstance(event, dict):
            self.take_event(event, now)

    def take_line(self, line: str, now: float) -> None:
        """Take a line that the step printed.

        Args:
            line: the line.
            now: seconds of a clock that goes on.
        """
        text = line.strip()
        if text.startswith("{") and text.endswith("}"):
            try:
                content = json.loads(text)
            except ValueError:
                content = None
            if isinstance(content, dict) and ("loss" in content or "done" in content):
                event = dict(content)
                if "step" in content and "done" not in content:
                    event["done"] = content["step"]
                self.take_event(event, now)
                return
        of, loss = _OF.search(text), _LOSS.search(text)
        done, total = (float(one.replace(",", "")) for one in of.groups()) if of else (None, None)
        if total is not None and done is not None and done > total:
            done = total = None
        self._take(done, total, float(loss[1]) if loss else None, now)

    def seconds_left(self, now: float) -> float | None:
        """Return how long the rest will take at the pace so far; None where that can't be said."""
        if self.done is None or not self.total or self._begun_at is None:
            return None
        made, spent = self.done - self._begun_at, now - self._began
        return spent / made * (self.total - self.done) if made > 0 and spent > 0 else None

    def usual_gap(self) -> float | None:
        """Return the usual seconds between two signs of progress; None before there were three."""
        return median(self._gaps) if len(self._gaps) >= 3 else None

    def _take(self, done: float | None, total: float | None, loss: float | None, now: float) -> None:
        if total is not None:
            self.total = total
        moved = done is not None and done != self.done
        if moved:
            if self._begun_at is None:
                self._begun_at = done  # what a step that goes on finds done already
                self._began = now
            self.done = done
        if loss is not None:
            moved = True
            self.loss = loss
            self.losses = [*self.losses[-_KEPT:], (self.done, loss)]
            if math.isfinite(loss):
                self.first_loss = loss if self.first_loss is None else self.first_loss
                self.best_loss = loss if self.best_loss is None else min(self.best_loss, loss)
        if moved:
            self._gaps = [*self._gaps[-_KEPT:], now - self.moved]
            self.longest_gap = max(self.longest_gap, now - self.moved)
            self.moved = now
