"""When files are written. A run of short epochs would otherwise spend more time on its disk than on its model."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from beautilog import logger

from storage.checkpoint_store import Checkpoint, CheckpointStore
from storage.errors import OutputError
from train.checkpointing.run_state import capture, held_bytes
from train.checkpointing.weights import plain_weights
from train.distributed.shard_files import save_together
from train.errors import ElsewhereError
from train.process_group import process_group

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


@dataclass
class _Waiting:
    """A state that is to be written.

    Attributes:
        record: gives the record's part of it; called when it is written, since a history may be long.
        write_model: writes the best model, where this is its epoch.
    """

    checkpoint: Checkpoint
    record: Callable[[], dict[str, Any]]
    epoch: int
    best_epoch: int | None
    inside: str
    step: int
    write_model: Callable[[], None] | None = None


class Saver:
    """Writes a run's checkpoints, best weights and metrics.json, for at most a share of the run's time.

    What is not written at once waits in memory, the newest in place of the one before. It is written when its time
    comes, and when the run ends: done, stopped, interrupted or failed. A kill that leaves no time for that loses the
    epochs since the last checkpoint, which took about `2 / share` times as long as writing it did.

    Args:
        share: of the time, above 0; 1 writes at once, always.
        in_background: checkpoints are written by a thread while training goes on with the next steps.
        go_on: a file that can't be written is a warning; else it ends the run.
    """

    def __init__(self, share: float, in_background: bool = False, go_on: bool = False) -> None:
        half = 1.0 if share == 1.0 else share / 2
        self._checkpoints, self._metrics = Pace(half), Pace(half)
        self._in_background, self._go_on = in_background, go_on
        self._waiting: _Waiting | None = None
        self._write_model: Callable[[], None] | None = None
        self._write_metrics: Callable[[], None] | None = None
        self._skipped: int | None = None  # the epoch of a sharded state that was not written; it can't wait in memory
        self._writer: threading.Thread | None = None
        self._failure: OutputError | None = None  # of the writer, until the main thread hears of it
        self.written, self.seconds, self.stall = 0, 0.0, 0.0

    def summary(self) -> dict[str, Any]:
        """Return what metrics.json says: checkpoints written, in which time, and how long training waited for it."""
        return {"checkpoints": self.written, "seconds": round(self.seconds, 3), "stall_seconds": round(self.stall, 3)}

    def save_metrics(self, write: Callable[[], None], at_once: bool) -> None:
        """Write metrics.json, now or later.

        Args:
            write: does it, with the numbers there are when it is called.
            at_once: not later.
        """
        if not process_group().is_main_process:
            return
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
        with self._stalling():
            if trainer._sharded is not None:
                self._save_sharded(trainer, epoch, is_best)
                return
            idle = self._writer is None or not self._writer.is_alive()
            now = trainer.owns_loop or (self._checkpoints.due and idle) or held_bytes(trainer) > _HELD_BYTES
            self._take(trainer, epoch, "", held=not now or self._in_background)
            if not trainer._process_group.is_main_process:  # it has given the main process its part
                self._waiting = None
                return
            if is_best and trainer.saves_plain_weights:
                weights = self._waiting.checkpoint.weights
                if trainer.config.ema_decay:
                    with trainer.averaged_weights():
                        weights = plain_weights(trainer.model)
                self._write_model = lambda: trainer.save_weights(weights)
            elif is_best:  # whatever a save_model of the trainer's own writes, it writes of the model as it is now
                self._write_model = None
                with self._tolerating():
                    trainer.save_model()
            if now:
                self._flush_checkpoint(trainer)

    def _save_sharded(self, trainer: Any, epoch: int, is_best: bool) -> None:
        """As `save`, by all processes together. What the main one's clock puts off can't wait in memory."""
        world = trainer._process_group
        if is_best:
            with trainer.averaged_weights():
                weights = plain_weights(trainer.model)
            self._write_model = (lambda: trainer.save_weights(weights)) if world.is_main_process else None
        self._skipped = epoch
        if world.all_reduce_max(world.is_main_process and self._checkpoints.due):
            self._write_skipped(trainer)

    def _write_skipped(self, trainer: Any) -> None:
        if self._skipped is not None:
            epoch, self._skipped = self._skipped, None
            self._take(trainer, epoch, "", held=False)
            self._flush_checkpoint(trainer)

    def save_inside(self, trainer: Any) -> None:
        """Save a trainer's state inside an epoch, at once."""
        with self._stalling():
            position, self._skipped = trainer._position, None
            self._take(trainer, trainer.record.progress.epoch - position.validating, position.name, self._in_background)
            position.note_saved(position.steps)
            if trainer._sharded is None and not trainer._process_group.is_main_process:
                self._waiting = None
                return
            self._flush_metrics()
            self._flush_checkpoint(trainer)

    def flush(self, trainer: Any, together: bool = True) -> None:
        """Write what waits, and wait for what is being written.

        Args:
            trainer: the BaseTrainer that it is of.
            together: whether all processes do this now.

        Raises:
            OutputError: it can't be written, whatever `go_on` says: there is no later time.
        """
        with self._stalling():
            self._join()
            self._go_on = False
            self._flush_metrics()
            if together:
                self._write_skipped(trainer)
            self._flush_checkpoint(trainer)
            self._join()

    def _take(self, trainer: Any, epoch: int, inside: str, held: bool) -> None:
        progress, record = trainer.record.progress, trainer.record.frozen()
        state = capture(trainer, held)
        self._waiting = _Waiting(state, record, epoch, progress.best_epoch, inside, progress.step)

    def _flush_metrics(self) -> None:
        if self._write_metrics is not None:
            write, self._write_metrics = self._write_metrics, None
            with self._metrics.spending(), self._tolerating():
                write()

    def _flush_checkpoint(self, trainer: Any) -> None:
        self._join()  # a writer that has failed gives back what it has not written
        if self._waiting is None:
            return
        waiting, self._waiting = self._waiting, None
        waiting.write_model, self._write_model = self._write_model, None
        waiting.checkpoint.state["record"] = waiting.record()
        store = trainer.checkpoints
        if self._in_background:
            # A daemon, since a second Ctrl-C shall not wait for it; what it leaves is removed at the next start.
            self._writer = threading.Thread(target=self._write_aside, args=(store, waiting), daemon=True)
            self._writer.start()
        else:
            with self._tolerating():
                self._write(store, waiting)

    def _write(self, store: CheckpointStore, waiting: _Waiting) -> None:
        start = time.monotonic()
        with self._checkpoints.spending():
            # The best model first: a run that resumes from this checkpoint doesn't come by its best epoch again.
            try:
                sharded, write_model = waiting.checkpoint.sharded, waiting.write_model or (lambda: None)
                process_group().broadcast_object(write_model) if sharded else write_model()
                save = partial(save_together, store) if sharded else store.save
                save(waiting.epoch, waiting.checkpoint, waiting.best_epoch, waiting.inside, waiting.step)
            except (OutputError, ElsewhereError):  # it waits again, unless there is something newer by now
                self._write_model = self._write_model or waiting.write_model
                if not sharded:
                    self._waiting = self._waiting or waiting
                elif not waiting.inside:  # all processes are here; they write it anew, together
                    self._skipped = waiting.epoch
                raise
        self.written += 1
        self.seconds += time.monotonic() - start

    def _write_aside(self, store: CheckpointStore, waiting: _Waiting) -> None:
        try:
            self._write(store, waiting)
        except OutputError as error:
            self._failure = error

    def _join(self) -> None:
        """Wait until the writer has nothing to do, and tell how it went."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            with self._tolerating():
                raise failure

    @contextmanager
    def _tolerating(self) -> Iterator[None]:
        try:
            yield
        except (OutputError, ElsewhereError) as error:
            if not self._go_on:
                raise
            logger.warning(f"{error} Training goes on (on_write_error = go_on).")

    @contextmanager
    def _stalling(self) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.stall += time.monotonic() - start
