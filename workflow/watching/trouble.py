"""What is wrong with a running step, before it costs more."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from workflow.definition.facts import Watch
from workflow.watching.progress import Progress

_LEAST_STALL = 60.0  # seconds that a step may always be silent
_STOPPED_AFTER = 4  # times as long as a stall: then nothing is to be hoped for
_EXPLODED = 3  # losses in a row that are beyond the bound
_DISK = 100e6  # bytes; below it nothing can be saved any more


@dataclass(frozen=True)
class Trouble:
    """Something that is wrong.

    Attributes:
        kind: "nan", "explosion", "stall" or "disk".
        text: what was seen, with figures.
        stops: whether the step is stopped for it.
    """

    kind: str
    text: str
    stops: bool


class Watcher:
    """Looks at a step while it runs.

    Args:
        watch: what is looked at.
        folder: the project's folder, whose disk is looked at.
    """

    def __init__(self, watch: Watch, folder: Path) -> None:
        self._watch, self._folder = watch, folder
        self._high = 0
        self._first = self._best = math.inf
        self._told: set[str] = set()

    def look(self, progress: Progress, now: float) -> Trouble | None:
        """Return what is wrong and was not told before; what stops a step goes first.

        Args:
            progress: how far the step is.
            now: seconds of the clock that the progress was told by.
        """
        for found in (self._loss(progress), self._disk(), self._stall(progress, now)):
            if found is not None and (found.stops or found.kind not in self._told):
                self._told.add(found.kind)
                return found
        return None

    def _loss(self, progress: Progress) -> Trouble | None:
        told, progress.losses = progress.losses, []
        if not self._watch.loss:
            return None
        for done, loss in told:
            where = f" at {progress.unit or 'step'} {done:g}" if done is not None else ""
            if not math.isfinite(loss):
                return Trouble("nan", f"the loss is {loss}{where}", True)
            self._first = min(self._first, loss) if self._best == math.inf else self._first
            beyond = loss > self._watch.explosion * max(self._best, 0.0) and loss > self._first
            self._best = min(self._best, loss)
            self._high = self._high + 1 if beyond else 0
            if self._high >= _EXPLODED:
                text = f"the loss is {loss:.4g}{where}, {self._watch.explosion:g} times its best, {self._best:.4g}"
                return Trouble("explosion", text, True)
        return None

    def _stall(self, progress: Progress, now: float) -> Trouble | None:
        usual = progress.usual_gap()
        if usual is None:
            return None
        # What comes in bursts, as answers of one batch do, is usually quick and waits long between them.
        patience = max(self._watch.stall * usual, progress.longest_gap, _LEAST_STALL)
        silent = now - progress.moved
        if silent < patience:
            self._told.discard("stall")
            return None
        text = f"nothing has moved for {silent:.0f} s; it usually moves every {usual:.2g} s"
        return Trouble("stall", text, silent > _STOPPED_AFTER * patience)

    def _disk(self) -> Trouble | None:
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError:
            return None
        if free >= _DISK:
            return None
        return Trouble("disk", f"{free / 1e6:.0f} MB are free on the disk of {self._folder}", True)
