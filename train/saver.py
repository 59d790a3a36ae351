"""When files are written. A run of short epochs would otherwise spend more time on its disk than on its model."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from train.checkpoints import Checkpoint, plain_weights
from train.run_state import capture, held_bytes

_HELD_BYTES = 2**28  # a state up to this size may wait in memory; a larger one is written when it comes


class Pace:
    """Lets something happen as often as it takes at most a share of the time.

    Args:
        share: above 0; 1 lets it happen always.
    """

    def __init__(self, share: float) -> None:
        self._pause = 1.0 / share - 1.0  # seconds without it for each second of it
        self._next = 0.0

    @property
    def due(self) -> bool:
        """Whether it may happen now."""
        return self._pause == 0.0 or time.monotonic() >= self._next

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Surround it, to see how long it takes."""
        start = time.monotonic()
        try:
            yield
        finally:
            end = time.monotonic()
            self._next = end + (end - start) * self._pause


class Saver:
    """Writes a run's checkpoints, best weights and metrics.json, for at most a share of the run's time.

    What is not written at once waits in memory, the newest in place of the one before. It is written when its time
    comes, and when the run ends: done, stopped, interrupted or failed. A kill that leaves no time for that loses the
    epochs since the last checkpoint, which took about `2 / share` times as long as writing it did.

    Args:
        share: of the time, above 0; 1 writes at once, always.
    """

    def __init__(self, share: float) -> None:
        half = 1.0 if share == 1.0 else share / 2
        self._checkpoints, self._metrics = Pace(half), Pace(half)
        self._state: tuple[int, int, Checkpoint, Callable[[], dict[str, Any]], int | None] | None = None
        self._write_model: Callable[[], None] | None = None
        self._write_metrics: Callable[[], None] | None = None

    def save_metrics(self, write: Callable[[], None], at_once: bool) -> None:
        """Write metrics.json, now or later.

        Args:
            write: does it, with the numbers there are when it is called.
            at_once: not later.
        """
        self._write_metrics = write
        if at_once or self._metrics.due:
            self._flush_metrics()

    def save(self, trainer: Any, epoch: int, is_best: bool) -> None:
        """Save a trainer's state, and where it is the best its model, now or later.

        Args:
            trainer: a BaseTrainer at the end of an epoch.
            epoch: epochs finished.
            is_best: whether its validation loss is the lowest so far.
        """
        now = trainer.owns_loop or self._checkpoints.due or held_bytes(trainer) > _HELD_BYTES
        record, checkpoint = trainer.record, capture(trainer, held=not now)
        self._state = (epoch, 0, checkpoint, record.frozen(), record.progress.best_epoch)
        if is_best and trainer.saves_plain_weights:
            weights = checkpoint.weights
            if trainer.config.ema_decay:
                with trainer.averaged_weights():
                    weights = plain_weights(trainer.model)
            self._write_model = lambda: trainer.save_weights(weights)
        elif is_best:  # whatever a save_model of the trainer's own writes, it writes of the model as it is now
            self._write_model = trainer.save_model
            self._flush_model()
        if now:
            self._flush_checkpoint(trainer)

    def save_inside(self, trainer: Any) -> None:
        """Save a trainer's state inside an epoch, at once."""
        record, position = trainer.record, trainer._position
        state = (record.progress.epoch, position.steps, capture(trainer), record.frozen(), record.progress.best_epoch)
        self._flush_metrics()
        self._state = state
        self._flush_checkpoint(trainer)
        position.note_saved(position.steps)

    def flush(self, trainer: Any) -> None:
        """Write what waits.

        Args:
            trainer: the BaseTrainer that it is of.
        """
        self._flush_metrics()
        self._flush_checkpoint(trainer)

    def _flush_metrics(self) -> None:
        if self._write_metrics is not None:
            write, self._write_metrics = self._write_metrics, None
            with self._metrics.spending():
                write()

    def _flush_model(self) -> None:
        if self._write_model is not None:
            write, self._write_model = self._write_model, None
            write()

    def _flush_checkpoint(self, trainer: Any) -> None:
        if self._state is None:
            return
        (epoch, steps, checkpoint, record, best_epoch), self._state = self._state, None
        with self._checkpoints.spending():
            # The best model first: a run that resumes from this checkpoint doesn't come by its best epoch again.
            self._flush_model()
            checkpoint.state["record"] = record()
            trainer.checkpoints.save(epoch, checkpoint, best_epoch, steps)
