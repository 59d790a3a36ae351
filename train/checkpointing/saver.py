"""When files are written. A run of short epochs would otherwise spend more time on its disk than on its model."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from beautilog import logger

from storage.checkpoint_store import Checkpoint, CheckpointStore
from storage.errors import OutputError
from train.distributed.shard_files import save_together
from train.errors import ElsewhereError
from train.loop.record import RunRecord
from train.process_group import process_group

_HELD_BYTES = 2**28  # a state up to this size may wait in memory; a larger one is written when it comes


class Pace:
    """Lets something happen as often as it takes at most a share of the time.

    Args:
        share: largest share of the time, above 0; 1 lets it happen always.
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


BestModel = Callable[[dict[str, Any]], Callable[[], None] | None]


@dataclass(frozen=True)
class CheckpointSource:
    """Where a saver gets what it writes.

    Attributes:
        record: numbers of the run.
        capture: function that gives the rest of the run's state; the argument says whether training goes on before it
            is written.
        store: function that gives the store of the run's checkpoints.
        sharded: whether all processes write a checkpoint together.
    """

    record: RunRecord
    capture: Callable[[bool], Checkpoint]
    store: Callable[[], CheckpointStore]
    sharded: bool = False


@dataclass
class _Waiting:
    """A state that is to be written.

    Attributes:
        record: function that gives the record's part of the state; called when the state is written, since a history
            may be long.
        write_model: function that writes the best model, where this epoch is the best; else None.
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

    Checkpoints go to `<run folder>/checkpoints/` by `CheckpointStore.save`, those of several processes by
    `save_together`.

    What is not written at once waits in memory, the newest in place of the one before. It is written when its time
    comes, and when the run ends: done, stopped, interrupted or failed. A kill that leaves no time for that loses the
    epochs since the last checkpoint, which took about `2 / share` times as long as writing it did.

    Args:
        source: source of what is written.
        share: largest share of the run's time, above 0; 1 writes at once, always.
        in_background: whether checkpoints are written by a thread while training goes on with the next steps.
        go_on: whether a file that can't be written is a warning; else it ends the run.
    """

    def __init__(
        self, source: CheckpointSource, share: float, in_background: bool = False, go_on: bool = False
    ) -> None:
        self._source = source
        self.limit(share)
        self._in_background, self._go_on = in_background, go_on
        self._waiting: _Waiting | None = None
        self._write_model: Callable[[], None] | None = None
        self._write_metrics: Callable[[], None] | None = None
        self._skipped: int | None = None  # the epoch of a sharded state that was not written; it can't wait in memory
        self._writer: threading.Thread | None = None
        self._failure: OutputError | None = None  # of the writer, until the main thread hears of it
        self._written_paths: list[Path] = []
        self._saved = False
        self.written, self.seconds, self.stall = 0, 0.0, 0.0

    def limit(self, share: float) -> None:
        """Set the largest share of the run's time that writing takes, above 0; 1 writes at once, always."""
        half = 1.0 if share == 1.0 else share / 2
        self._checkpoints, self._metrics = Pace(half), Pace(half)

    def summary(self) -> dict[str, Any]:
        """Return what metrics.json says: checkpoints written, in which time, and how long training waited for it."""
        return {"checkpoints": self.written, "seconds": round(self.seconds, 3), "stall_seconds": round(self.stall, 3)}

    def save_metrics(self, write: Callable[[], None], at_once: bool) -> None:
        """Write metrics.json, now or later: not before the run's first checkpoint.

        A run that is killed between the two would else have a history that it can't go on from.

        Args:
            write: function that writes metrics.json, with the numbers there are when it is called.
            at_once: whether to write now in any case, not later.
        """
        if not process_group().is_main_process:
            return
        self._write_metrics = write
        if at_once:
            self._flush_metrics()
        else:
            self._flush_due_metrics()

    def save(self, epoch: int, best_model: BestModel | None, at_once: bool, size: int) -> None:
        """Save the run's state at an epoch's end, and where it is the best its model, now or later.

        Args:
            epoch: epochs finished.
            best_model: function that is given the model's weights and returns what writes the best model; None where
                this epoch isn't best.
            at_once: whether to write now in any case, not later.
            size: bytes of the state, roughly; a large one can't wait in memory.
        """
        with self._stalling():
            if self._source.sharded:
                self._save_sharded(epoch, best_model)
                return
            idle = self._writer is None or not self._writer.is_alive()
            now = at_once or (self._checkpoints.due and idle) or size > _HELD_BYTES
            waiting = self._take(epoch, "", held=not now or self._in_background)
            if not process_group().is_main_process:  # it has given the main process its part
                return
            self._waiting = waiting
            if best_model is not None:
                self._write_model = None
                with self._tolerating():
                    self._write_model = best_model(waiting.checkpoint.weights)
            if now:
                self._flush_checkpoint()
                self._flush_due_metrics()

    def _save_sharded(self, epoch: int, best_model: BestModel | None) -> None:
        """As `save`, by all processes together. What the main one's clock puts off can't wait in memory."""
        group = process_group()
        if best_model is not None:
            write = best_model({})  # which puts the weights together, so that all processes do it
            self._write_model = write if group.is_main_process else None
        self._skipped = epoch
        if group.all_reduce_max(group.is_main_process and self._checkpoints.due):
            self._write_skipped()
        self._flush_due_metrics()

    def _write_skipped(self) -> None:
        if self._skipped is not None:
            epoch, self._skipped = self._skipped, None
            self._waiting = self._take(epoch, "", held=False)
            self._flush_checkpoint()

    def save_inside(self, epoch: int, inside: str) -> None:
        """Save the run's state inside an epoch, at once.

        Args:
            epoch: epochs finished.
            inside: place in the unfinished epoch, such as `step-00000120`.
        """
        with self._stalling():
            self._skipped = None
            waiting = self._take(epoch, inside, self._in_background)
            if not self._source.sharded and not process_group().is_main_process:
                return
            self._waiting = waiting
            self._flush_metrics()
            self._flush_checkpoint()

    def flush(self, together: bool = True) -> None:
        """Write what waits, and wait for what is being written.

        Args:
            together: whether all processes do this now.

        Raises:
            OutputError: it can't be written, whatever `go_on` says: there is no later time.
        """
        with self._stalling():
            self._join()
            self._go_on = False
            self._flush_metrics()
            if together:
                self._write_skipped()
            self._flush_checkpoint()
            self._join()

    def take_written(self) -> list[Path]:
        """Return the checkpoints that were written since the last call."""
        count = len(self._written_paths)  # a thread may add one meanwhile
        found, self._written_paths[:count] = self._written_paths[:count], []
        return found

    def _has_checkpoint(self) -> bool:
        """Whether the run has a checkpoint, of this process or of an earlier one."""
        self._saved = self._saved or self.written > 0 or not self._source.store().empty
        return self._saved

    def _take(self, epoch: int, inside: str, held: bool) -> "_Waiting":
        progress, record = self._source.record.progress, self._source.record.frozen()
        checkpoint = self._source.capture(held)
        return _Waiting(checkpoint, record, epoch, progress.best_epoch, inside, progress.step)

    def _flush_due_metrics(self) -> None:
        if self._write_metrics is not None and self._metrics.due and self._has_checkpoint():
            self._flush_metrics()

    def _flush_metrics(self) -> None:
        if self._write_metrics is not None:
            write, self._write_metrics = self._write_metrics, None
            with self._metrics.spending(), self._tolerating():
                write()

    def _flush_checkpoint(self) -> None:
        self._join()  # a writer that has failed gives back what it has not written
        if self._waiting is None:
            return
        waiting, self._waiting = self._waiting, None
        waiting.write_model, self._write_model = self._write_model, None
        waiting.checkpoint.state["record"] = waiting.record()
        store = self._source.store()
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
                path = save(waiting.epoch, waiting.checkpoint, waiting.best_epoch, waiting.inside, waiting.step)
            except (OutputError, ElsewhereError):  # it waits again, unless there is something newer by now
                self._write_model = self._write_model or waiting.write_model
                if not sharded:
                    self._waiting = self._waiting or waiting
                elif not waiting.inside:  # all processes are here; they write it anew, together
                    self._skipped = waiting.epoch
                raise
        self.written += 1
        self._written_paths.append(path)
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
