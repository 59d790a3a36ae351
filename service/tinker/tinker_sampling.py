"""Samples by the Tinker protocol: samplers, requests, and what is done when nobody waits for them any more.

A client that waits for a sample asks for it again and again, and holds a connection while it does. So a request that
nobody has asked about for some seconds is cancelled, and its place is free for others; a client that comes back after
all is told that it is unknown (410), on which it sends the request again.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from llm.engine_error import EngineError
from llm.sample_result import CANCELLED, SampleHandle
from llm.sampling_settings import SettingError
from service.openai.openai_answers import to_json
from service.sampling.sampling_loop import LoopEndedError, Ticket
from service.sampling.served_models import UnknownModelError
from service.tinker.promises import Promise, Promises
from service.tinker.replay import SAMPLE
from service.tinker.sample_updates import SampleUpdates
from service.tinker.tinker_endpoint import MOST_LISTED, TinkerLimits, beside, read_body, read_object
from service.tinker.tinker_fields import Fields, Json, read_json
from service.tinker.tinker_messages import SampleAnswer, Sampling, TinkerPath, setting_refused
from service.tinker.tinker_models import TinkerModels
from service.web.http_call import HttpCall
from service.web.tinker_error import TinkerError

_LOG = logging.getLogger(__name__)
_RETRY_AFTER = 1  # seconds


class Promised(Protocol):
    """Answers a call by the promise of an id; a new one is begun."""

    def __call__(
        self, call: HttpCall, id: str, begin: Callable[[Promise], None], more: Json | None = None
    ) -> Awaitable[None]:
        """Answer the call."""


@dataclass(eq=False)
class _Waited:
    """A sample that has not ended."""

    promise: Promise
    ticket: Ticket
    asking: int = 0  # calls that wait for it now
    turn: int = 0  # of the calls that have waited


class SamplingEndpoints:
    """What is done with requests for samples.

    Args:
        models: sessions, models, samplers.
        promises: answers to come.
        limits: what is taken.
        promised: answers a call by a promise.
    """

    def __init__(self, models: TinkerModels, promises: Promises, limits: TinkerLimits, promised: Promised) -> None:
        self._models, self._promises, self._limits, self._promised = models, promises, limits, promised
        self._waited: dict[str, _Waited] = {}
        self._updates = SampleUpdates()
        for promise in promises.all():  # of before this process
            session, _, number = promise.id.rpartition(":")
            if number.isdecimal() and session in models.samplers:
                self._updates.note(session, int(number), promise)

    async def create_sampling_session(self, call: HttpCall) -> None:
        """Make a sampler of the base model or of a checkpoint."""
        given = Fields(await read_object(call, self._limits))
        path = TinkerPath.of(given.text("model_path")) if given.has("model_path") else None
        base = given.text("base_model") if given.has("base_model") else None
        session = given.text("session_id")
        self._models.require_session(session)
        made = self._models.open_sampler(session, given.whole("sampling_session_seq_id"), base, path)
        await self._models.settled()
        await call.reply(200, to_json({"type": "create_sampling_session", "sampling_session_id": made.id}))

    async def sampler(self, call: HttpCall) -> None:
        """Tell of a sampler."""
        found = self._models.sampler(call.parameter("sampler") or "")
        told = {"sampler_id": found.id, "base_model": self._models.name, "model_path": found.path}
        await call.reply(200, to_json(told))

    async def sample(self, call: HttpCall) -> None:
        """Sample."""
        raw = await read_body(call, self._limits)
        body = await beside(len(raw), partial(read_json, raw))
        given = Fields(body)
        session, number = "", None
        if given.has("sampling_session_id"):
            session = given.text("sampling_session_id")
            served = self._models.sampler(session).served
            number = given.whole("seq_id") if given.has("seq_id") else None
            id = f"{session}:{uuid.uuid4().hex if number is None else number}"
        else:
            path = TinkerPath.of(given.text("model_path")) if given.has("model_path") else None
            served = self._models.served(given.text("base_model") if given.has("base_model") else None, path)
            id = f"sample:{uuid.uuid4().hex}"
        samples = given.whole("num_samples", 1, least=1, most=MOST_LISTED)
        more = {"sample_sequence_ids": [f"{id}:{place}" for place in range(samples)]}

        def begin(promise: Promise) -> None:
            self._require_room()
            if number is not None:
                self._updates.note(session, number, promise)
            told = {"what": SAMPLE, "served": served, "model": None, "number": None, "protobuf": False}
            promise.accepted = self._models.journal.accept(id, told, raw)
            self.begin(body, served, promise)

        await self._promised(call, id, begin, more)

    async def cancel(self, call: HttpCall) -> None:
        """Cancel a sample. One that has ended or is unknown, and what is no sample, is left alone."""
        waited = self._waited.get(Fields(await read_object(call, self._limits)).text("request_id"))
        if waited is not None:
            self._models.loop.cancel(waited.ticket)
            waited.promise.fail(TinkerError("the request was cancelled by its client"))
        await call.reply(204, b"")

    async def join(self, call: HttpCall) -> None:
        """Let one more client use a sampler, under a number of its own."""
        id = Fields(await read_object(call, self._limits)).text("sampling_session_id")
        self._models.sampler(id)
        told = {"type": "join_sampling_session", "client_counter": self._updates.join(id)}
        await call.reply(200, to_json(told))

    async def ended(self, call: HttpCall) -> None:
        """Tell which samples of one client of a sampler have ended."""
        given = Fields(await read_object(call, self._limits))
        target = given.inside("target")
        if target.text("type", "sampling_session") != "sampling_session":
            raise target.wrong("type", target.raw("type"), "it must be sampling_session")
        id, clone = target.text("sampling_session_id"), target.whole("cloned_sampler_id", 0)
        self._models.sampler(id)
        with ExitStack() as waiting:
            for promise in self._updates.of(id, clone):
                waiting.enter_context(self.asking(promise))
            told = await self._updates.ended(given, id, clone, self._limits.hold)
        await call.reply(200, to_json(told))

    @contextmanager
    def asking(self, promise: Promise) -> Iterator[None]:
        """Note that a client waits for a promise inside of the block."""
        waited = self._waited.get(promise.id)
        if waited is None:
            yield
            return
        waited.asking += 1
        try:
            yield
        finally:
            waited.asking -= 1
            if not promise.done:
                self._cancel_after(self._limits.silent, waited)

    def begin(self, body: Json, served: str, promise: Promise) -> None:
        """Let samples be made.

        Args:
            body: the request.
            served: name of the weights.
            promise: who waits for them.

        Raises:
            TinkerError: the service has been closed.
        """
        tickets: list[Ticket] = []

        def ended() -> None:
            for ticket in tickets:
                if ticket.done:
                    self._end(promise, asked, ticket)
                    self._waited.pop(promise.id, None)

        try:
            asked = Sampling.of(body)
            tickets.append(self._models.sample(served, asked.request, partial(ended)))
        except TinkerError as error:
            promise.fail(error)
        except SettingError as error:
            promise.fail(setting_refused(error))
        except UnknownModelError as error:
            promise.fail(TinkerError(str(error)))
        except LoopEndedError as error:
            raise TinkerError(str(error), 503, "server") from error
        except EngineError as error:
            promise.fail(TinkerError(str(error)))
        else:
            self._waited[promise.id] = waited = _Waited(promise, tickets[0])
            self._cancel_after(self._limits.unasked, waited)
            ended()  # where that was before the ticket was there

    def _require_room(self) -> None:
        if len(self._waited) >= self._limits.samples:
            told = f"{len(self._waited)} requests for samples wait already: send this one again later"
            raise TinkerError(told, 429, "server", retry_after=_RETRY_AFTER)

    def _cancel_after(self, seconds: float, waited: _Waited) -> None:
        """Cancel a sample after some seconds in which nobody asks for it."""
        waited.turn += 1
        with suppress(RuntimeError):  # of before this process: it runs on until somebody has asked
            asyncio.get_running_loop().call_later(seconds, self._cancel_unwanted, waited.promise.id, waited.turn)

    def _cancel_unwanted(self, id: str, turn: int) -> None:
        waited = self._waited.get(id)
        if waited is None or waited.asking or waited.turn != turn or waited.promise.done:
            return
        self._models.loop.cancel(waited.ticket)
        # Whoever asks after all is told to send it again.
        told = TinkerError("nobody has asked for these samples for long: send the request again")
        self._promises.refuse(waited.promise, told)

    def _end(self, promise: Promise, asked: Sampling, ticket: Ticket) -> None:
        """End a promise by what has become of its samples."""
        handle = ticket.handle
        if isinstance(ticket.error, LoopEndedError):  # not for ever: a later process samples it
            promise.refuse(TinkerError(str(ticket.error), category="server"))
        elif ticket.error is not None:
            user = isinstance(ticket.error, SettingError | UnknownModelError)
            promise.fail(TinkerError(str(ticket.error), category="user" if user else "server"))
        elif handle is None or any(sample.finish == CANCELLED for sample in handle.samples):
            promise.fail(TinkerError("the request was cancelled"))
        elif asked.extras.any:
            try:
                self._models.loop.between_steps(partial(self._find_extras, promise, asked, handle))
            except LoopEndedError as error:
                promise.refuse(TinkerError(str(error), category="server"))
        else:
            promise.keep(SampleAnswer(asked, handle))

    def _find_extras(self, promise: Promise, asked: Sampling, handle: SampleHandle) -> None:
        """End a promise by samples, and what else is wanted of their prompt; on the engine's thread."""
        try:
            promise.keep(SampleAnswer(asked, handle, asked.extras.found(self._models.engine, handle)))
        except EngineError as error:
            promise.fail(TinkerError(str(error)))
        except Exception as error:
            _LOG.exception("a prompt could not be scored")
            promise.fail(TinkerError(f"the service failed: {error}", category="server"))
