"""A start after a kill: what the last state lacks is done again, turn by turn, out of the journal.

Turns are done with the requests that they had, in the order that they had, so that all bits are those of before; what
was answered is compared with what comes of it now. A difference, or another torch, device or number of threads where
there is anything to do again, is an error that names the first request which would be lost. What was accepted and not
done waits in its order, as before; requests for samples that had no answer begin anew.

Where it need not be exact, no difference is an error: what clients were told stays what they were told, models go on
from the numbers of now, and the differences are counted and told.
"""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm.adapter_state_files import STATE as ADAPTER_STATE
from llm.adapter_state_files import load_state
from llm.engine_error import EngineError
from llm.loss_pass import LossRequest
from llm.model_error import ModelError
from service.journal.journal import Then
from service.journal.journal_file import JournalError, Record
from service.journal.store import State, Store
from service.sampling.served_models import ServedModel, UnknownModelError
from service.tinker.kept_answers import pack, unpack
from service.tinker.promises import Ended, Promise, Promises
from service.tinker.tinker_models import TinkerModels
from service.tinker.tinker_work import Asked, TinkerWork
from service.tinker.training_queue import Redone, TrainingQueue
from service.web.tinker_error import TinkerError
from storage.files import file_digest

_LOG = logging.getLogger(__name__)
SAMPLE = "asample"  # what requests for samples are in the journal


@dataclass(frozen=True)
class SampleToBegin:
    """A request for samples that was promised and has no answer.

    Attributes:
        body: the request.
        served: name of the weights.
        promise: who waits for it.
    """

    body: bytes
    served: str
    promise: Promise


class Replay:
    """Puts back all that a store has.

    Args:
        store: the store, open.
        models: without anything.
        queue: without anything.
        promises: without any.
        exact: whether other numbers than before are an error.

    Attributes:
        turns: that were done again.
        others: requests that gave other numbers than before, by what they are called.
    """

    def __init__(
        self, store: Store, models: TinkerModels, queue: TrainingQueue, promises: Promises, exact: bool = True
    ) -> None:
        self._store, self._models, self._queue, self._promises = store, models, queue, promises
        self._exact = exact
        self.others: list[str] = []
        self._work = TinkerWork(models, queue)
        self._answers: dict[str, deque[Record]] = {}  # by promise, those that were not come to yet
        self._waiting: dict[str, Record] = {}  # requests that no turn has done
        self._samples: dict[str, ServedModel] = {}  # by promise, what answers
        self.turns = 0

    def run(self) -> list[SampleToBegin]:
        """Do it; nothing else may run meanwhile.

        Returns:
            Requests for samples that are to begin.

        Raises:
            JournalError: it can't be done to the same bits, or something is damaged.
        """
        state, records = self._store.state, self._store.records
        if self._exact:
            self._require_facts(records)
        for record in records:
            if record.fields["kind"] == "answer":
                self._answers.setdefault(record.fields["id"], deque()).append(record)
        self._models.replaying = True
        if state is not None:
            self._put_back(state)
            for record in state.carried:
                if record.fields["kind"] == "answer":
                    self._promises.restore(record.fields["id"], _ended(record))
                else:
                    self._do(record)
        for record in records:
            self._do(record)
        self._models.replaying = False
        self._models.journal.turn_time = 0.0
        self._queue_again()
        self._store.records = []
        if self.others:
            _LOG.warning(
                "%d of the requests that were done again gave other numbers than before, the first of them %s "
                "(replay = close): clients keep what they were told, and models go on from the numbers of now",
                len(self.others), self.others[0],
            )  # fmt: skip
        return self._samples_again()

    def _do(self, record: Record) -> None:
        fields = record.fields
        kind = fields["kind"]
        if kind == "request":
            self._waiting[fields["id"]] = record
            if fields["what"] == SAMPLE:
                self._hold(fields)
                return
            self._models.touch(fields["model"], fields["time"])
            if fields["opens"] and not self._queue.has(fields["model"]):
                self._queue.restore(fields["model"], 0)
        elif kind == "turn":
            self._turn(fields)
        elif kind == "answer":
            if self._waiting.pop(fields["id"], None) is not None:  # else a turn has come to it
                self._promises.restore(fields["id"], _ended(record))
        elif kind == "note" and fields["what"] == "forgotten":
            self._waiting.pop(fields["id"], None)
        elif kind == "note" and fields["what"] == "given_up":
            self._queue.restore(fields["model"], fields["next"])
        elif kind == "note":
            self._models.note(fields)

    # ------------------------------------------------------------------------------------------------------------ turns

    def _turn(self, turn: Mapping[str, Any]) -> None:
        """Do a turn again."""
        self.turns += 1
        self._models.journal.turn_time = turn["time"]
        ended: dict[str, Ended] = {}

        def keep(promise: Promise, what: Ended, then: Then) -> None:
            ended[promise.id] = what

        redone = []
        requests = []
        for id in turn["ids"]:
            answers = self._answers.get(id)
            requests.append((self._waiting.pop(id), answers.popleft() if answers else None))
        for record, known in requests:
            asked = self._read(record)
            if known is not None and known.fields["form"] == "error" and _changes_nothing(asked, known):
                if asked.opens:
                    self._queue.close_model(asked.model)
                elif self._queue.has(asked.model):
                    self._queue.restore(asked.model, record.fields["number"] + 1)
                continue
            promise = Promise(record.fields["id"], keeper=keep)
            redone.append(Redone(asked.model, record.fields["number"], asked.work, promise))
        self._queue.redo(redone)
        for record, known in requests:
            self._end(record, known, ended.get(record.fields["id"]))

    def _end(self, record: Record, known: Record | None, found: Ended | None) -> None:
        id = record.fields["id"]
        if known is None:
            promise = self._promises.restore(id, None)
            if isinstance(found, TinkerError):
                promise.fail(found)
            elif found is not None:
                promise.keep(found)
            return
        if found is not None:
            self._require_same(record, known, found)
        self._promises.restore(id, _ended(known))

    def _require_same(self, request: Record, known: Record, found: Ended) -> None:
        fields, content = pack(found)
        told = {name: value for name, value in known.fields.items() if name not in ("kind", "id")}
        if told == fields and known.content() == content:
            return
        if isinstance(found, TinkerError) and known.fields["form"] != "error":
            raise JournalError(
                f"{_named(request)} can't be done again: {found.message}. It would be lost, and all that follow it. "
                f"{self._remedy}"
            )
        if not self._exact:
            self.others.append(_named(request))
            return
        raise JournalError(
            f"{_named(request)} does not give what it gave before: the numbers of this device, or of this version, are "
            f"other ones, so that this request and all that follow it are lost. {self._remedy}"
        )

    def _read(self, record: Record) -> Asked:
        fields = record.fields
        return self._work.read(fields["what"], record.content(), fields["protobuf"])

    # ---------------------------------------------------------------------------------------------------------- samples

    def _hold(self, request: Mapping[str, Any]) -> None:
        """Keep weights that a request without an answer is to be sampled from, whatever comes after it."""
        if self._answers.get(request["id"]):
            return
        try:
            served = self._models.loop.models.find(request["served"])
        except UnknownModelError:
            return  # it says so when it begins
        if served.adapter is not None:
            self._models.engine.hold_weights(self._models.engine.bank[served.adapter])
        self._samples[request["id"]] = served

    def _samples_again(self) -> list[SampleToBegin]:
        found = []
        for id, record in self._waiting.items():
            if record.fields["what"] != SAMPLE:
                continue
            name, held = record.fields["served"], self._samples.get(id)
            if held is not None:
                try:
                    same = self._models.loop.models.find(name) == held
                except UnknownModelError:
                    same = False
                if same and held.adapter is not None:
                    self._models.engine.release_version(held.adapter)
                elif not same:  # under this name there are other weights by now: these stay under one of their own
                    name = f"{name} of {id}"
                    self._models.loop.models.put(ServedModel(name, held.version, held.adapter))
            found.append(SampleToBegin(record.content(), name, self._promises.restore(id, None)))
        return found

    # ----------------------------------------------------------------------------------------------------------- inside

    def _put_back(self, state: State) -> None:
        engine = self._models.engine
        for folder, digest in state.told["digests"].items():
            path = state.folder / folder / ADAPTER_STATE
            if not path.is_file() or file_digest(path) != digest:
                raise JournalError(f"{path} is damaged. Put the folder back from a copy, or serve from another folder")
        try:
            for id, folder in state.told["models"].items():
                engine.create_from(id, load_state(state.folder / folder, engine.base, engine.device), optimizer=True)
            weights = {version: load_state(state.folder / folder, engine.base, engine.device).adapter
                       for version, folder in state.told["weights"].items()}  # fmt: skip
            self._models.put_back(state.told["registry"], weights)
        except EngineError as error:  # limits are lower than they were
            raise JournalError(f"a model of before can't go on: {error}. {self._remedy}") from error
        except ModelError as error:
            raise JournalError(f"{error}. Put the folder back from a copy, or serve from another folder") from error
        for model, next in state.told["orders"].items():
            self._queue.restore(model, next)

    def _queue_again(self) -> None:
        """Let wait what was accepted and is not done."""
        for id, record in self._waiting.items():
            if record.fields["what"] == SAMPLE:
                continue
            promise = self._promises.restore(id, None)
            try:
                asked = self._read(record)
                self._queue.submit(asked.model, record.fields["number"], asked.work, promise)
            except TinkerError as error:
                promise.fail(error)

    def _require_facts(self, records: Sequence[Record]) -> None:
        """Refuse to do turns again whose bits would be others."""
        requests = {each.fields["id"]: each for each in records if each.fields["kind"] == "request"}
        if self._store.state is not None:
            requests |= {each.fields["id"]: each for each in self._store.state.carried
                         if each.fields["kind"] == "request"}  # fmt: skip
        facts: Mapping[str, Any] = {}
        for record in records:
            if record.fields["kind"] == "begin":
                facts = record.fields["facts"]
            elif record.fields["kind"] == "turn":
                other = [name for name, value in facts.items() if self._store.facts.get(name) != value]
                if other:
                    was = ", ".join(f"{name} {facts[name]}" for name in other)
                    now = ", ".join(f"{name} {self._store.facts.get(name)}" for name in other)
                    raise JournalError(
                        f"{_named(requests[record.fields['ids'][0]])} was done with {was}, and would be done again "
                        f"with {now}, which may give other numbers: this request and all that follow it would be lost. "
                        f"{self._remedy}"
                    )

    @property
    def _remedy(self) -> str:
        return (
            "Start the service as it was before, which goes on with all of them and, stopped by Ctrl-C, leaves nothing "
            "to be done again; or go on with other numbers by --replay close; or give another folder by --folder"
        )


def _changes_nothing(asked: Asked, error: Record) -> bool:
    """Return whether a request that has failed is left out: others that shared its pass got the same without it."""
    return error.fields["category"] == "server" or not isinstance(asked.work, LossRequest)


def _ended(record: Record) -> Ended:
    return unpack(record.fields, record.content())


def _named(request: Record) -> str:
    fields = request.fields
    return f"request {fields['number']} of model {fields['model']} ({fields['what']})"
