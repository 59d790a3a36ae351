"""What the Tinker protocol's requests do: sessions, models, checkpoints and samplers over one engine.

Methods under "on the engine's thread" are work for `TrainingQueue`; the others are for the server's event loop.
A checkpoint lies in a folder of its own (`llm/adapter_state_files.py`: PEFT's files, moments, digests), whole or not
there. One that is saved anew under its name gets another folder, so that what began with the old one can be done again
after a kill; folders that nobody needs are `retired`, and go with the next state of the service. Changes that are no
request of a model are noted in the journal; `kept` and `put_back` are the registry as plain data.
"""

import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from llm.adam import AdamSettings
from llm.adapter_state_files import load_state, save_state
from llm.engine import AdapterInfo, Engine
from llm.sampling_settings import SampleRequest
from model.lora import LoraAdapter
from service.journal.journal import Unkept
from service.sampling.sampling_loop import SamplingLoop, Ticket
from service.sampling.served_models import ServedModel
from service.tinker.tinker_fields import Json
from service.tinker.tinker_messages import (
    CHECKPOINT_TYPES,
    Answer,
    CreateModel,
    LoadWeights,
    PlainAnswer,
    SaveWeights,
    TinkerPath,
)
from service.tinker.tinker_sessions import Session, iso_time
from service.tinker.training_queue import Later
from service.web.tinker_error import TinkerError

T = TypeVar("T")
_SNAPSHOTS = 32  # of a model that can be sampled from without a name; the oldest go first
_TARGETS = (("train_attn", "attention"), ("train_mlp", "mlp"), ("train_unembed", "unembedding"))


@dataclass
class Checkpoint:
    """Weights that were saved under a name.

    Attributes:
        path: its address.
        folder: where its files are.
        saved: when it was saved, seconds since 1970.
        bytes: size of its files.
        expires: when it goes by itself; None for never.
        metadata: data of the user's own.
        info: rank and layers of the adapter.
        version: version that the engine holds for it; None for one that isn't sampled from.
    """

    path: TinkerPath
    folder: Path
    saved: float
    bytes: int
    expires: float | None
    metadata: Json | None
    info: AdapterInfo
    version: str | None = None

    def told(self) -> Json:
        """Return it as the protocol tells it."""
        return {
            "checkpoint_id": self.path.id,
            "checkpoint_type": CHECKPOINT_TYPES[self.path.kind],
            "time": iso_time(self.saved), "tinker_path": str(self.path), "size_bytes": self.bytes, "public": False,
            "expires_at": None if self.expires is None else iso_time(self.expires), "user_metadata": self.metadata,
        }  # fmt: skip


@dataclass
class TrainingRun:
    """A model that a client trains, and its checkpoints by their ids."""

    id: str
    session: str
    metadata: Json | None
    info: AdapterInfo
    last_request: float
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    snapshots: deque[tuple[str, str]] = field(default_factory=deque)  # sampler id, version
    saves: dict[str, int] = field(default_factory=dict)  # how often each checkpoint was saved


@dataclass(frozen=True)
class SamplingSession:
    """A client's view of one model's weights: the name under which they are served, and their path if they have one."""

    id: str
    served: str
    path: str | None


class TinkerModels:
    """Sessions, models, checkpoints and samplers of one service.

    Args:
        engine: the engine.
        loop: what samples; its models get the checkpoints that are saved for a sampler, under their paths.
        name: name of the base model, as clients know it.
        folder: where checkpoints go.
        tokenizer: folder of the tokenizer's files, which clients on this machine load; None for none.
        room: bytes that checkpoints may take; 0 for what the disk has.
        journal: what is told of changes.

    Attributes:
        replaying: whether what was done before this process began is done again: time stands still.
    """

    def __init__(
        self,
        engine: Engine,
        loop: SamplingLoop,
        name: str,
        folder: Path,
        tokenizer: Path | None = None,
        room: int = 0,
        journal: Unkept | None = None,
    ) -> None:
        self.engine, self.loop, self.name, self.folder, self.tokenizer = engine, loop, name, folder, tokenizer
        self._room = room
        self.journal = journal or Unkept()
        self.replaying = False
        self._noted = 0  # number of the last note
        self._retired: list[Path] = []  # folders that nobody needs
        self._files = ThreadPoolExecutor(1, "checkpoints")
        self._writing: dict[Path, int] = {}  # folders of checkpoints that are being written, and about how many bytes
        self.sessions: dict[str, Session] = {}
        self.samplers: dict[str, SamplingSession] = {}
        self._runs: dict[str, TrainingRun] = {}
        self._lock = threading.RLock()  # of the registry; never held while the engine works
        loop.models.put(ServedModel(name, engine.base.digest[:24]))

    # -------------------------------------------------------------------------------------------- sessions and samplers

    def open_session(self, body: Json) -> str:
        """Return the id of a new session.

        Raises:
            TinkerError: a field of the request can't be used, or there is no room to write it down.
        """
        made = Session.of(uuid.uuid4().hex, body)
        with self._lock:
            self._noted = self.journal.note("session", must=True, session=asdict(made))
            self.sessions[made.id] = made
        return made.id

    def end_session(self, id: str, body: Json) -> None:
        """Note how a session has ended.

        Raises:
            TinkerError: there is none, a field can't be used, or there is no room to write it down.
        """
        session = self.require_session(id)
        with self._lock:
            session.end(body)
            self._noted = self.journal.note("finish", must=True, id=id, finish=session.finish)

    async def settled(self) -> None:
        """Wait until what the caller has just changed will outlive the process.

        Raises:
            TinkerError: it can't be.
        """
        await self.journal.settled(self._noted)

    def require_session(self, session: str, status: int = 404) -> Session:
        """Return a session.

        Raises:
            TinkerError: there is none; `status` is its HTTP status.
        """
        if session not in self.sessions:
            raise TinkerError(f"there is no session {session!r}: it has ended, or the service was started anew", status)
        return self.sessions[session]

    def require_base(self, name: str) -> None:
        """Refuse another base model than the one there is.

        Raises:
            TinkerError: it is another one.
        """
        if name != self.name:
            raise TinkerError(f"base_model is {name!r}; this service has {self.name!r}")

    def open_sampler(self, session: str, number: int, base: str | None, path: TinkerPath | None) -> SamplingSession:
        """Return the sampler of a number in a session; the same one when it is asked for again.

        Raises:
            TinkerError: there are no such weights.
        """
        id = f"{session}:sample:{number}"
        if id not in self.samplers:
            made = SamplingSession(id, self.served(base, path), None if path is None else str(path))
            with self._lock:
                self._noted = self.journal.note("sampler", must=True, id=id, served=made.served, path=made.path)
                self.samplers[id] = made
        return self.samplers[id]

    def sampler(self, id: str) -> SamplingSession:
        """Return a sampler.

        Raises:
            TinkerError: there is none.
        """
        if id not in self.samplers:
            raise TinkerError(f"there is no sampling session {id!r}", 404)
        return self.samplers[id]

    def served(self, base: str | None, path: TinkerPath | None) -> str:
        """Return the name under which weights are served.

        Raises:
            TinkerError: they can't be sampled from.
        """
        if base is not None:
            self.require_base(base)
        if path is None:
            if base is None:
                raise TinkerError("base_model or model_path is missing")
            return base
        if path.kind != "sampler_weights":
            raise TinkerError(
                f"{path} was not saved to be sampled from: sample from what save_weights_for_sampler answers"
            )
        self.checkpoint(path)
        return str(path)

    def sample(self, served: str, request: SampleRequest, changed: "partial[None]") -> Ticket:
        """Let a request be sampled; `changed` is called when it has ended."""
        return self.loop.submit("tinker", served, request, changed=changed)

    # ------------------------------------------------------------------------------------------------------------ lists

    def runs(self) -> list[TrainingRun]:
        """Return all models, newest first."""
        self._drop_expired()
        with self._lock:
            return list(reversed(self._runs.values()))

    def run(self, id: str) -> TrainingRun:
        """Return a model.

        Raises:
            TinkerError: there is none.
        """
        self._drop_expired()
        run = self._runs.get(id)
        if run is None:
            raise TinkerError(f"there is no model {id!r}", 404)
        return run

    def touch(self, id: str, when: float | None = None) -> None:
        """Note that a model was asked for something: now, or when it was."""
        run = self._runs.get(id)
        if run is not None:
            self.sessions[run.session].heard = time.time()
            run.last_request = when or time.time()

    def forsaken(self, models: Iterable[str]) -> list[str]:
        """Return those of some models whose clients have ended or fallen silent, the longest idle first."""
        runs = [self._runs[id] for id in models if id in self._runs]
        idle = [run for run in runs if self.sessions[run.session].over]
        return [run.id for run in sorted(idle, key=lambda run: run.last_request)]

    def checkpoints_of(self, models: Iterable[str]) -> list[Checkpoint]:
        """Return the checkpoints of some models."""
        self._drop_expired()
        with self._lock:
            runs = [self._runs[id] for id in models if id in self._runs]
            return [each for run in runs for each in run.checkpoints.values()]

    def checkpoints(self) -> list[Checkpoint]:
        """Return all checkpoints, newest first."""
        found = [each for run in self.runs() for each in run.checkpoints.values()]
        return sorted(found, key=lambda each: -each.saved)

    def checkpoint(self, path: TinkerPath) -> Checkpoint:
        """Return a checkpoint.

        Raises:
            TinkerError: there is none.
        """
        self._drop_expired()
        with self._lock:
            run = self._runs.get(path.model)
            found = run.checkpoints.get(path.id) if run else None
        if found is None:
            raise TinkerError(f"there is no checkpoint {path}", 404)
        return found

    def told(self, run: TrainingRun) -> Json:
        """Return a model as the protocol tells it."""
        last: dict[str, Json] = {}
        for each in sorted(run.checkpoints.values(), key=lambda each: each.saved):
            last[each.path.kind] = each.told()
        return {
            "training_run_id": run.id, "base_model": self.name, "model_owner": "local", "is_lora": True,
            "corrupted": False, "lora_rank": run.info.rank, "last_request_time": iso_time(run.last_request),
            "last_checkpoint": last.get("weights"), "last_sampler_checkpoint": last.get("sampler_weights"),
            "user_metadata": run.metadata,
        }  # fmt: skip

    def info(self, id: str) -> Json:
        """Return what get_info answers of a model."""
        run = self.run(id)
        data: Json = {"arch": self.engine.base.config.get("model_type", "llama"), "model_name": self.name}
        if self.tokenizer is not None:
            data["tokenizer_id"] = str(self.tokenizer)
        return {
            "type": "get_info", "model_id": id, "model_data": data, "is_lora": True, "lora_rank": run.info.rank,
            "model_name": self.name, "optimizer_config": {"type": "adamw"},
        }  # fmt: skip

    def weights_info(self, path: TinkerPath) -> Json:
        """Return what weights_info answers of a checkpoint."""
        info = self.checkpoint(path).info
        switches = {name: target in info.targets for name, target in _TARGETS}
        return {"base_model": self.name, "is_lora": True, "lora_rank": info.rank, **switches}

    def delete(self, path: TinkerPath) -> None:
        """Delete a checkpoint; samples of it under way come to their end.

        Raises:
            TinkerError: there is none.
        """
        found = self.checkpoint(path)
        with self._lock:
            self._noted = self.journal.note("dropped", must=True, path=str(path), folder=found.folder.name)
            self._runs[path.model].checkpoints.pop(path.id, None)
        self._forget(found)

    def set_ttl(self, path: TinkerPath, seconds: int | None) -> None:
        """Let a checkpoint go by itself after so long; None for never."""
        found = self.checkpoint(path)
        expires = None if seconds is None else time.time() + seconds
        with self._lock:
            self._noted = self.journal.note("ttl", must=True, path=str(path), folder=found.folder.name, expires=expires)
            found.expires = expires

    # ------------------------------------------------------------------------------------------ on the engine's thread

    def create(self, id: str, asked: CreateModel) -> Answer:
        """Make a model."""
        info = self.engine.create(id, asked.settings)
        self._enter(id, asked.session, asked.metadata, info)
        return PlainAnswer({"model_id": id, "type": "create_model"})

    def load(self, id: str, asked: LoadWeights) -> Answer:
        """Let a model go on from a checkpoint; a new one is made where a session is named."""
        if asked.base_model is not None:
            self.require_base(asked.base_model)
        folder = self.checkpoint(asked.path).folder
        state = self._aside(partial(load_state, folder, self.engine.base, self.engine.device))
        if asked.session is None:
            now = self.engine.info(id)
            other = self.engine.state(id, optimizer=False).adapter.parts() != state.adapter.parts()
            if other and now.step == 0 and now.rank == max(part.rank for part in state.adapter.parts()):
                # Old clients make a model of the rank alone, and load the checkpoint into it.
                self.engine.delete(id)
                self.engine.create_from(id, state, asked.optimizer)
            else:
                self.engine.put_back(id, state, asked.optimizer)
            self.run(id).info = self.engine.info(id)
        else:
            info = self.engine.create_from(id, state, asked.optimizer)
            self._enter(id, asked.session, asked.metadata, info)
        return PlainAnswer({"path": str(asked.path), "model_id": id, "type": "load_weights"})

    def step(self, id: str, settings: AdamSettings) -> Answer:
        """Do an optimizer step."""
        result = self.engine.optimizer_step(id, settings)
        metrics = {"step:max": float(result.step), "gradient_norm:mean": result.gradient_norm}
        return PlainAnswer({"metrics": metrics | {"skipped:sum": float(result.skipped)}, "type": "optim_step"})

    def save(self, id: str, asked: SaveWeights, for_sampler: bool) -> Answer | Later:
        """Keep a model's weights as they are now. They are written by another thread, and no turn waits for that."""
        run = self.run(id)
        kind = "save_weights_for_sampler" if for_sampler else "save_weights"
        if asked.external:
            kind = "save_weights_external"
        if asked.name is None:
            sampler = f"{id.rpartition(':train:')[0]}:sample:{asked.session_number}"
            self._snapshot(run, sampler)
            return PlainAnswer({"path": None, "sampling_session_id": sampler, "type": kind})
        folders = "sampler_weights" if for_sampler else "external_weights" if asked.external else "weights"
        path = TinkerPath(id, folders, asked.name)
        if path.id in run.checkpoints and not asked.overwrite and not self.replaying:
            raise TinkerError(f"there is a checkpoint {path} already: use another name, or overwrite=True")
        size = self.engine.info(id).parameters * (4 if for_sampler else 12)  # fp32, and two moments
        if not self.replaying:
            self._require_room(size)
        saves = run.saves.get(path.id, 0) + 1
        folder = self.folder / id.replace(":", ".") / path.kind / (path.name if saves == 1 else f"{path.name}@{saves}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        state = self.engine.state(id, optimizer=folders == "weights")
        now = self._turn_time
        expires = None if asked.ttl_seconds is None else now + asked.ttl_seconds
        made = Checkpoint(path, folder, now, size, expires, asked.metadata, self.engine.info(id))
        if for_sampler:
            made.version = self.engine.hold_version(id)
        self._writing[folder] = size
        doing = self._files.submit(save_state, folder, self.engine.base, state, {"path": str(path)})
        finish = partial(self._saved, run, made, saves, kind, doing)
        return finish() if self.replaying else Later(doing, finish)

    def _saved(self, run: TrainingRun, made: Checkpoint, saves: int, kind: str, written: "Future[str]") -> Answer:
        """Enter a checkpoint whose files have been written."""
        path = made.path
        try:
            written.result()
        except BaseException:
            if made.version is not None:
                self.engine.release_version(made.version)
            raise
        finally:
            del self._writing[made.folder]
        made.bytes = sum(each.stat().st_size for each in made.folder.iterdir())
        if made.version is not None:
            self.loop.models.put(ServedModel(str(path), made.version, made.version))
        with self._lock:
            before = run.checkpoints.pop(path.id, None)
            run.checkpoints[path.id], run.saves[path.id] = made, saves
            if before is not None and self.journal.keeps:
                self._retired.append(before.folder)
        if before is not None:
            self._release(before)
        return PlainAnswer({"path": str(path), "type": kind})

    def unload(self, id: str) -> Answer:
        """Forget what a model is trained by, and its samplers without a name. Its checkpoints stay."""
        self.engine.delete(id)
        run = self.run(id)
        while run.snapshots:
            self._drop_snapshot(run)
        return PlainAnswer({"model_id": id, "type": "unload_model"})

    # ----------------------------------------------------------------------------------------------- what outlives it

    def kept(self) -> Json:
        """Return the registry as plain data, for `put_back`."""
        with self._lock:
            return {
                "sessions": [asdict(each) for each in self.sessions.values()],
                "samplers": [vars(each) for each in self.samplers.values()],
                "runs": [self._kept_run(run) for run in self._runs.values()],
                "retired": [str(each.relative_to(self.folder)) for each in self._retired],
            }

    @contextmanager
    def still(self) -> Iterator[Json]:
        """Let nothing change inside of a block; what `kept` gives."""
        with self._lock:
            yield self.kept()

    def put_back(self, kept: Json, versions: Mapping[str, LoraAdapter]) -> None:
        """Put back a registry, and all weights that can be sampled from.

        Args:
            kept: what `kept` has given.
            versions: the weights of snapshots.

        Raises:
            ModelError: a checkpoint is missing or damaged.
        """
        for each in kept["sessions"]:
            self._enter_session(each)
        self.samplers = {each["id"]: SamplingSession(**each) for each in kept["samplers"]}
        self._retired = [self.folder / each for each in kept["retired"]]
        for each in kept["runs"]:
            run = TrainingRun(each["id"], each["session"], each["metadata"], _info(each["info"]), each["last_request"])
            run.saves = dict(each["saves"])
            for told in each["checkpoints"]:
                made = self._checkpoint(told)
                run.checkpoints[made.path.id] = made
            for sampler, version in each["snapshots"]:
                self._serve(sampler, versions[version])
                run.snapshots.append((sampler, version))
            self._runs[run.id] = run

    def note(self, told: Mapping[str, Any]) -> None:
        """Do again what was noted in the journal.

        Args:
            told: the note.
        """
        if told["what"] == "session":
            self._enter_session(told["session"])
        elif told["what"] == "finish":
            self.sessions[told["id"]].finish = told["finish"]
        elif told["what"] == "sampler":
            self.samplers[told["id"]] = SamplingSession(told["id"], told["served"], told["path"])
        elif told["what"] in ("dropped", "ttl"):
            path = TinkerPath.of(told["path"])
            run = self._runs.get(path.model)
            found = run.checkpoints.get(path.id) if run else None
            if run is None or found is None or found.folder.name != told["folder"]:
                return  # saved anew under its name meanwhile
            if told["what"] == "ttl":
                found.expires = told["expires"]
            else:
                del run.checkpoints[path.id]
                self._forget(found)

    def retired(self) -> list[Path]:
        """Return the folders of checkpoints that nobody needs once a state is written; they are no longer known."""
        with self._lock:
            gone, self._retired = self._retired, []
            return gone

    def retire(self, folders: Sequence[Path]) -> None:
        """Take back what `retired` has given: no state was written."""
        with self._lock:
            self._retired = [*folders, *self._retired]

    def _kept_run(self, run: TrainingRun) -> Json:
        return {
            "id": run.id, "session": run.session, "metadata": run.metadata, "info": asdict(run.info),
            "last_request": run.last_request,
            "saves": dict(run.saves), "snapshots": [list(each) for each in run.snapshots],
            "checkpoints": [{
                "path": str(each.path), "folder": str(each.folder.relative_to(self.folder)), "saved": each.saved,
                "bytes": each.bytes, "expires": each.expires, "metadata": each.metadata, "info": asdict(each.info),
                "served": each.version is not None,
            } for each in run.checkpoints.values()],
        }  # fmt: skip

    def _checkpoint(self, told: Json) -> Checkpoint:
        path, folder = TinkerPath.of(told["path"]), self.folder / told["folder"]
        info = _info(told["info"])
        made = Checkpoint(path, folder, told["saved"], told["bytes"], told["expires"], told["metadata"], info)
        if told["served"]:
            made.version = self._serve(str(path), load_state(folder, self.engine.base, self.engine.device).adapter)
        return made

    def _serve(self, name: str, adapter: LoraAdapter) -> str:
        version = self.engine.hold_weights(adapter)
        self.loop.models.put(ServedModel(name, version, version))
        return version

    # ----------------------------------------------------------------------------------------------------------- inside

    def _enter(self, id: str, session: str, metadata: Json | None, info: AdapterInfo) -> None:
        with self._lock:
            self._runs[id] = TrainingRun(id, session, metadata, info, self._turn_time)
            self.sessions[session].models.append(id)

    def _require_room(self, size: int) -> None:
        """Refuse a checkpoint for which there is no room."""
        taken = sum(each.bytes for each in self.checkpoints()) + sum(self._writing.values())
        if self._room and taken + size > self._room:
            raise TinkerError(
                f"checkpoints take {taken / 1e9:.3g} GB of the {self._room / 1e9:.3g} GB that they may "
                f"(checkpoints_gb), and this one would take {size / 1e9:.3g} GB: delete some, or save with a ttl"
            )

    def _snapshot(self, run: TrainingRun, sampler: str) -> None:
        version = self.engine.hold_version(run.id)
        self.loop.models.put(ServedModel(sampler, version, version))
        self.samplers[sampler] = SamplingSession(sampler, sampler, None)
        run.snapshots.append((sampler, version))
        if len(run.snapshots) > _SNAPSHOTS:
            self._drop_snapshot(run)

    def _drop_snapshot(self, run: TrainingRun) -> None:
        old, version = run.snapshots.popleft()
        self.samplers.pop(old, None)
        self.loop.models.remove(old)
        self.engine.release_version(version)

    def _aside(self, work: Callable[[], T]) -> T:
        """Let another thread read files, which can take seconds, while samples go on; nothing is trained."""
        doing = self._files.submit(work)
        self.loop.meanwhile(doing)
        return doing.result()

    def _enter_session(self, told: Json) -> None:
        made = Session(**told)
        made.heard = time.time()  # nobody could be heard while there was no service
        self.sessions[made.id] = made

    @property
    def _turn_time(self) -> float:
        return self.journal.turn_time or time.time()

    def _drop_expired(self) -> None:
        if self.replaying:
            return
        now = time.time()
        with self._lock:
            gone = [each for run in self._runs.values() for each in run.checkpoints.values()
                    if each.expires is not None and each.expires <= now]  # fmt: skip
            for each in gone:
                self.journal.note("dropped", path=str(each.path), folder=each.folder.name)
                del self._runs[each.path.model].checkpoints[each.path.id]
        for each in gone:
            self._forget(each)

    def _forget(self, gone: Checkpoint) -> None:
        """Let the engine's thread drop what is no longer in the registry."""
        with self._lock:
            run = self._runs.get(gone.path.model)
            if run is None or gone.path.id not in run.checkpoints:  # else it was saved anew under its name meanwhile
                self.loop.models.remove(str(gone.path))
            if self.journal.keeps:
                self._retired.append(gone.folder)
        if self.replaying:
            self._release(gone)
        else:
            self.loop.between_steps(partial(self._release, gone))

    def _release(self, gone: Checkpoint) -> None:
        if gone.version is not None:
            self.engine.release_version(gone.version)
        if not self.journal.keeps:
            shutil.rmtree(gone.folder, ignore_errors=True)


def _info(told: Json) -> AdapterInfo:
    return AdapterInfo(**{**told, "targets": tuple(told["targets"])})
