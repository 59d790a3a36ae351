"""Writes the state of a service now and then, so that a start has little to do again.

The engine's thread only takes hold of what there is, between two turns: weights, moments and gradients are never
changed in place, so that costs nothing. A thread of its own writes them: at most a thirtieth of the time is spent on it
while the engine is busy, a tenth while it rests. What has not changed since the last state is linked to, not copied.
"""

import logging
import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm.adapter_state_files import STATE as ADAPTER_STATE
from llm.adapter_state_files import save_state
from llm.engine import AdapterState
from service.journal.journal_file import Place
from service.journal.store import CARRIED, FORMAT, STATE, Store, digest_of
from service.sampling.sampling_loop import LoopEndedError
from service.tinker.tinker_fields import Json
from service.tinker.tinker_models import TinkerModels
from service.tinker.training_queue import TrainingQueue
from storage.errors import OutputError
from storage.files import TEMPORARY, file_digest, output_errors, sync, write_json

_LOG = logging.getLogger(__name__)
_LOOK = 0.25  # seconds between two looks


@dataclass(frozen=True)
class Cadence:
    """When states are written.

    Attributes:
        seconds: time between two states at least, while the engine is busy.
        times: or so many times as long as the last one took to be written.
        rest: seconds for which nothing must have happened for a state to be written before that.
        rest_times: and so many times as long as the last one took must have gone by.
        bytes: of the journal, after which a state is written in any case.
    """

    seconds: float = 20.0
    times: float = 30.0
    rest: float = 2.0
    rest_times: float = 10.0
    bytes: int = 512 * 2**20


@dataclass(frozen=True)
class _Held:
    """What there is at one moment."""

    number: int  # of the file of the journal that begins with it
    record: int  # number of the first record of that file
    live: Sequence[Place]
    registry: Json
    orders: Mapping[str, int]
    changes: Mapping[str, int]
    models: Mapping[str, AdapterState]
    weights: Mapping[str, AdapterState]
    retired: Sequence[Path]
    bytes: int


class StateKeeper:
    """Writes states from `start` to `close`.

    Args:
        store: where to.
        models: sessions, models, checkpoints.
        queue: what trains.
        cadence: when.
    """

    def __init__(
        self, store: Store, models: TinkerModels, queue: TrainingQueue, cadence: Cadence | None = None
    ) -> None:
        self._store, self._models, self._queue = store, models, queue
        self._cadence = cadence or Cadence()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="states", daemon=True)
        self._took = 0.0  # seconds that the last one took
        self._last = time.monotonic()
        self._kept = 0 if store.behind else store.journal.number  # number of the record up to which all is in a state
        self._bytes = 0
        self._changes: dict[str, int] = {}  # of each model, at the last state of this process
        self._before: Path | None = None  # that state
        self._holding = threading.Event()
        self._held: _Held | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End by a last state, where anything has changed; the engine's thread must have ended."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.write()

    def write(self) -> None:
        """Write a state at once, where anything has changed; while neither this nor the engine's thread runs."""
        if self._changed:
            self._hold()
            self._write()

    @property
    def _changed(self) -> bool:
        return self._store.journal.number > self._kept

    def _run(self) -> None:
        seen, since = self._store.journal.number, time.monotonic()
        while not self._stop.wait(_LOOK):
            now = time.monotonic()
            if self._store.journal.number != seen:
                seen, since = self._store.journal.number, now
            if not self._changed or not self._due(now, since):
                continue
            self._holding.clear()
            try:
                self._models.loop.between_steps(self._hold_and_tell)
            except LoopEndedError:
                return
            while not self._holding.wait(_LOOK):
                if self._stop.is_set():
                    return
            self._write()

    def _due(self, now: float, since: float) -> bool:
        cadence, age = self._cadence, now - self._last
        if self._store.journal.bytes - self._bytes >= cadence.bytes:
            return True
        if now - since >= cadence.rest and age >= cadence.rest_times * self._took and not self._queue.waiting:
            return True
        return age >= max(cadence.seconds, cadence.times * self._took)

    def _hold_and_tell(self) -> None:
        try:
            self._hold()
        finally:
            self._holding.set()

    def _hold(self) -> None:
        """Take hold of what there is, between two turns."""
        engine = self._models.engine
        self._held = None
        if self._queue.saving:  # which is in no state, and is done again out of the journal
            return
        with self._queue.still() as (orders, changes), self._models.still() as registry:
            begun = self._store.journal.turn_over()
            if begun is None:
                return  # the disk is full
            retired = self._models.retired()
            states = {name: engine.state(name, gradients=True) for name in engine.names()}
            names = {version for run in registry["runs"] for _, version in run["snapshots"]}
            weights = {name: AdapterState(engine.bank[name]) for name in sorted(names)}
            self._held = _Held(*begun, registry, orders, changes, states, weights, retired, self._store.journal.bytes)

    def _write(self) -> None:
        held, self._held = self._held, None
        begin = time.monotonic()
        if held is not None:
            try:
                self._write_state(held)
            except (OutputError, OSError) as error:
                _LOG.warning("the service's state could not be written, and its journal grows on: %s", error)
                self._models.retire(held.retired)
        self._last = time.monotonic()
        self._took = self._last - begin

    def _write_state(self, held: _Held) -> None:
        folder = self._store.state_folder(held.number)
        temporary = folder.with_name(f".{folder.name}{TEMPORARY}")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            with output_errors(folder, "--folder"):
                told = self._fill(temporary, held)
                moved = self._carry(temporary, folder, held.live)
                told["carried"] = (temporary / CARRIED).stat().st_size
                write_json(temporary / STATE, {"content": told, "sha256": digest_of(told)}, durable=True)
                sync(temporary)
                os.replace(temporary, folder)
                sync(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._store.journal.move(moved)
        self._before, self._changes, self._kept, self._bytes = folder, dict(held.changes), held.record + 1, held.bytes
        self._store.drop_before(held.number)
        for path in held.retired:
            shutil.rmtree(path, ignore_errors=True)

    def _fill(self, temporary: Path, held: _Held) -> dict[str, Any]:
        """Write the adapters, and return what state.json says."""
        (temporary / "models").mkdir(parents=True)
        (temporary / "weights").mkdir()
        places: dict[str, dict[str, str]] = {"models": {}, "weights": {}}
        digests = {}
        for kind, states in (("models", held.models), ("weights", held.weights)):
            for name, state in states.items():
                place = f"{kind}/{name.replace(':', '.')}"
                same = kind == "weights" or self._changes.get(name) == held.changes.get(name)
                if not (same and self._linked(place, temporary)):
                    save_state(temporary / place, self._models.engine.base, state)
                digests[place] = file_digest(temporary / place / ADAPTER_STATE)
                places[kind][name] = place
        return {
            "format": FORMAT, "number": held.record, "facts": self._store.facts, "registry": held.registry,
            "orders": dict(held.orders), **places, "digests": digests,
        }  # fmt: skip

    def _linked(self, place: str, temporary: Path) -> bool:
        """Link to the files of the last state; return whether it has them."""
        if self._before is None or not (self._before / place).is_dir():
            return False
        try:
            shutil.copytree(self._before / place, temporary / place, copy_function=os.link)
            sync(temporary / place)
        except OSError:  # a file system without links
            shutil.rmtree(temporary / place, ignore_errors=True)
            return False
        return True

    @staticmethod
    def _carry(temporary: Path, folder: Path, live: Sequence[Place]) -> dict[Place, Place]:
        """Copy records of promises that still matter; return where each is to be found once the folder is in place."""
        moved, at = {}, 0
        handle = os.open(temporary / CARRIED, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        try:
            for place in live:
                rest = memoryview(place.read())
                moved[place] = Place(folder / CARRIED, at, at + len(rest))
                at += len(rest)
                while rest:
                    rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        return moved
