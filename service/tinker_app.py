"""The Tinker protocol over HTTP, for any version of its client: /api/v1/...

    request -> checked here (tinker_messages) -> Promise, told at once -> TrainingQueue or SamplingLoop -> the engine's
    thread -> the promise ends -> retrieve_future, which waits for it, writes it as JSON or protobuf

Whether a client reads protobuf is known by its headers alone, never by its version. What is wrong with the contents of
a request that has a number makes its promise fail, and not the request: its number is used, and those after it go on.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from llm.loss_pass import LossRequest
from service.download_links import DownloadLinks
from service.http_call import ClientGone, HttpCall
from service.openai_answers import to_json
from service.promises import Promise, Promises
from service.tinker_endpoint import Handler, TinkerLimits, beside, read_body, read_object
from service.tinker_error import TinkerError
from service.tinker_fields import Fields, Json, read_json
from service.tinker_listing import ListingEndpoints
from service.tinker_messages import (
    Answer,
    CreateModel,
    Envelope,
    LoadWeights,
    SaveWeights,
    adam_settings,
    loss_request,
    loss_request_of_protobuf,
)
from service.tinker_models import TinkerModels
from service.tinker_sampling import SamplingEndpoints
from service.training_queue import TrainingQueue, Work

if TYPE_CHECKING:
    from starlette.routing import Route

_PROTOBUF = "application/x-protobuf"
_CHECKPOINT = "training_runs/{run}/checkpoints/{kind}/{name}"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# What the hosted service has beside models: accounts, bills, copies between them, losses as programs of the client's.
_HOSTED = (
    ("POST", "copy_weights"), ("POST", "create_custom_loss"),
    ("POST", "auth/token"), ("GET", "auth/apikey/me"), ("DELETE", "auth/apikey/me"), ("GET", "audit"),
    ("GET", "billing/{what:path}"), ("PUT", "sessions/{session}/project"),
    *((method, "sessions/{session}/trace_export") for method in ("GET", "POST")),
)  # fmt: skip


def tinker_routes(
    models: TinkerModels,
    queue: TrainingQueue,
    promises: Promises,
    key: str | None = None,
    limits: TinkerLimits | None = None,
) -> "list[Route]":
    """Make the routes of the protocol.

    Args:
        models: sessions, models, checkpoints.
        queue: what trains.
        promises: answers to come.
        key: what clients must send as X-API-Key; None serves everybody.
        limits: what is taken.

    Returns:
        Routes for a Starlette app.
    """
    from starlette.routing import Route

    limits, links = limits or TinkerLimits(), DownloadLinks()
    app = _Endpoint(models, queue, promises, limits)
    sampling, listing = app.sampling, ListingEndpoints(models, limits, links)
    table: list[tuple[str, str, Callable[[HttpCall], Awaitable[None]]]] = [
        ("POST", "client/config", app.client_config), ("POST", "client/dynamic_config", app.dynamic_config),
        ("POST", "create_session", app.create_session), ("POST", "session_heartbeat", app.heartbeat),
        ("POST", "telemetry", app.telemetry), ("GET", "healthz", app.health),
        ("GET", "get_server_capabilities", app.capabilities),
        ("POST", "sessions/search", listing.search_sessions), ("POST", "sessions/{session}/finish", app.finish_session),
        ("GET", "sessions", listing.sessions), ("GET", "sessions/{session}", listing.session),
        ("POST", "retrieve_future", app.retrieve), ("POST", "cancel_future", sampling.cancel),
        ("POST", "create_model", app.create_model),
        ("POST", "get_info", app.get_info), ("POST", "forward", app.forward),
        ("POST", "forward_backward", app.forward_backward), ("POST", "optim_step", app.optim_step),
        ("POST", "save_weights", partial(app.save_weights, False)),
        ("POST", "save_weights_for_sampler", partial(app.save_weights, True)),
        ("POST", "save_weights_external", partial(app.save_weights, False, external=True)),
        ("POST", "load_weights", app.load_weights), ("POST", "weights_info", listing.weights_info),
        ("POST", "unload_model", app.unload_model),
        ("POST", "create_sampling_session", sampling.create_sampling_session),
        ("GET", "samplers/{sampler}", sampling.sampler), ("POST", "asample", sampling.sample),
        ("GET", "training_runs", listing.runs), ("GET", "training_runs/{run}", listing.run),
        ("GET", "training_runs/{run}/checkpoints", listing.run_checkpoints),
        ("GET", "checkpoints", listing.checkpoints),
        ("DELETE", _CHECKPOINT, listing.delete), ("PUT", f"{_CHECKPOINT}/ttl", listing.set_ttl),
        *((method, f"{_CHECKPOINT}/publish", listing.publish) for method in ("POST", "DELETE")),
        ("GET", f"{_CHECKPOINT}/archive", listing.archive_address),
        ("GET", f"{_CHECKPOINT}/external_weights_urls", listing.file_addresses),
        *((method, path, app.hosted_only) for method, path in _HOSTED),
    ]  # fmt: skip
    files = [("archive/adapter.tar.gz", listing.archive), ("files/{file}", listing.file)]
    routes = [Route(f"/api/v1/{path}", endpoint=Handler(answer, key), methods=[method])
              for method, path, answer in table]  # fmt: skip
    routes += [Route(f"/api/v1/{_CHECKPOINT}/{path}", endpoint=Handler(answer, key, links), methods=["GET"])
               for path, answer in files]  # fmt: skip
    routes.append(Route("/api/v1/{rest:path}", endpoint=Handler(app.unknown, key), methods=[*_METHODS]))
    routes.append(Route("/healthz", endpoint=Handler(app.health, None), methods=["GET"]))
    return routes


class _Endpoint:
    """What is done with each request that is no list and no sample."""

    def __init__(self, models: TinkerModels, queue: TrainingQueue, promises: Promises, limits: TinkerLimits) -> None:
        self._models, self._queue, self._promises, self._limits = models, queue, promises, limits
        self.sampling = SamplingEndpoints(models, promises, limits, self._promise)

    # --------------------------------------------------------------------------------------------------------- sessions

    async def client_config(self, call: HttpCall) -> None:
        """Answer that all is as the client has it by default."""
        await read_body(call, self._limits)
        await call.reply(200, b"{}")

    async def dynamic_config(self, call: HttpCall) -> None:
        """Let the client tell when it waits for a sample no more."""
        await read_body(call, self._limits)
        await call.reply(200, to_json({"sample_cancel_enabled": True}))

    async def create_session(self, call: HttpCall) -> None:
        """Begin a session."""
        made = self._models.open_session(await read_object(call, self._limits))
        await call.reply(200, to_json({"session_id": made, "type": "create_session"}))

    async def heartbeat(self, call: HttpCall) -> None:
        """Hear that a client is there."""
        id = Fields(await read_object(call, self._limits)).text("session_id")
        session = self._models.require_session(id, 410)
        if session.finish is not None:
            raise TinkerError(f"session {id!r} has ended", 410)
        session.heard = time.time()
        await call.reply(200, to_json({"type": "session_heartbeat"}))

    async def telemetry(self, call: HttpCall) -> None:
        """Take what clients tell of themselves, and keep nothing of it."""
        await read_body(call, self._limits)
        await call.reply(200, to_json({"status": "accepted"}))

    async def health(self, call: HttpCall) -> None:
        """Say that the service runs."""
        await call.reply(200, to_json({"status": "ok"}))

    async def capabilities(self, call: HttpCall) -> None:
        """Tell which base model there is."""
        context = self._models.engine.base.context
        model = {"model_name": self._models.name, "max_context_length": context, "trainable": True, "sampleable": True}
        await call.reply(200, to_json({"supported_models": [model]}))

    async def finish_session(self, call: HttpCall) -> None:
        """Hear that a client is done. Its models and samplers stay, as others may use them."""
        body = await read_body(call, self._limits)
        self._models.require_session(call.parameter("session") or "").end(read_json(body or b"{}"))
        await call.reply(204, b"")

    async def hosted_only(self, call: HttpCall) -> None:
        """Refuse what only the hosted service has."""
        await read_body(call, self._limits)
        what = call.path.removeprefix("/api/v1/")
        raise TinkerError(f"{what} is a feature of the hosted service, which a local one doesn't have", 404)

    async def unknown(self, call: HttpCall) -> None:
        """Refuse what is no part of the protocol."""
        raise TinkerError(f"{call.method} {call.path[:200]} is not served here", 404)

    # --------------------------------------------------------------------------------------------------------- promises

    async def retrieve(self, call: HttpCall) -> None:
        """Tell what came of a request, as soon as it is known."""
        promise = self._promises.find(Fields(await read_object(call, self._limits)).text("request_id"))
        self._queue.give_up_gaps()
        if not promise.done:
            with self.sampling.asking(promise):
                await _wait(call, promise, self._limits.hold)
            self._queue.give_up_gaps()
        if promise.error is not None:
            promise.read = True
            await call.reply(200, promise.error.body())
        elif promise.answer is not None:
            packed = promise.answer.protobuf() if _PROTOBUF in call.header(b"accept") else None
            if packed is None:
                await call.reply(200, to_json(promise.answer.json()))
            else:
                await call.reply(200, packed, _PROTOBUF.encode())
            promise.read = True
        else:
            told = {"type": "try_again", "request_id": promise.id, "queue_state": "active"}
            await call.reply(408, to_json(told))

    async def _promise(
        self, call: HttpCall, id: str, begin: Callable[[Promise], None], more: Json | None = None
    ) -> None:
        """Answer by the promise of an id; a new one is begun."""
        promise, new = self._promises.once(id)
        if new:
            try:
                begin(promise)
            except TinkerError as error:
                promise.fail(error)
                self._promises.forget(id)
                raise
        await call.reply(200, to_json({"request_id": id, **(more or {})}))

    # --------------------------------------------------------------------------------------------------------- training

    async def create_model(self, call: HttpCall) -> None:
        """Make a model."""
        asked = CreateModel.of(await read_object(call, self._limits))
        self._models.require_session(asked.session)
        self._models.require_base(asked.base_model)
        id = _model_id(asked.session, asked.number)
        await self._promise(call, f"{id}:0", partial(self._open, id, partial(self._models.create, id, asked)))

    async def get_info(self, call: HttpCall) -> None:
        """Tell of a model."""
        await call.reply(
            200, to_json(self._models.info(Fields(await read_object(call, self._limits)).text("model_id")))
        )

    async def forward(self, call: HttpCall) -> None:
        """Measure rows."""
        await self._loss(call, backward=False)

    async def forward_backward(self, call: HttpCall) -> None:
        """Measure rows and add up their gradients."""
        await self._loss(call, backward=True)

    async def optim_step(self, call: HttpCall) -> None:
        """Do an optimizer step."""
        body = await read_object(call, self._limits)
        id = Envelope.of(body).model
        await self._in_order(call, Envelope.of(body), lambda: partial(self._models.step, id, adam_settings(body)))

    async def save_weights(self, for_sampler: bool, call: HttpCall, external: bool = False) -> None:
        """Keep a model's weights."""
        body = await read_object(call, self._limits)
        envelope = Envelope.of(body)

        def work() -> Work:
            return partial(self._models.save, envelope.model, SaveWeights.of(body, for_sampler, external), for_sampler)

        await self._in_order(call, envelope, work)

    async def load_weights(self, call: HttpCall) -> None:
        """Let a model go on from a checkpoint, one that there is or a new one."""
        body = await read_object(call, self._limits)
        if Fields(body).has("model_id"):
            envelope = Envelope.of(body)
            await self._in_order(
                call, envelope, lambda: partial(self._models.load, envelope.model, LoadWeights.of(body))
            )
            return
        asked = LoadWeights.of(body)
        session = asked.session or ""
        self._models.require_session(session)
        self._models.checkpoint(asked.path)
        id = _model_id(session, asked.number)
        await self._promise(call, f"{id}:0", partial(self._open, id, partial(self._models.load, id, asked)))

    async def unload_model(self, call: HttpCall) -> None:
        """Forget a model, after all that was asked of it."""
        id = Fields(await read_object(call, self._limits)).text("model_id")
        await self._in_order(call, Envelope(id, None), lambda: partial(self._unload, id))

    def _open(self, id: str, work: Callable[[], Answer], promise: Promise) -> None:
        """Begin the order of a model; where it can't be made, there is none."""
        self._make_room()

        def made() -> Answer:
            try:
                return work()
            except BaseException:
                self._queue.close_model(id)
                raise

        self._queue.open(id, made, promise)

    def _make_room(self) -> None:
        """Unload models whose clients are gone, where there is no place for one more: many clients never do it."""
        models = self._queue.models
        missing = len(models) + 1 - self._models.engine.limits.adapters
        for id in self._models.forsaken(models)[: max(0, missing)]:
            self._queue.submit(id, None, partial(self._unload, id), Promise(f"{id}:unload"))

    def _unload(self, id: str) -> Answer:
        self._queue.close_model(id)
        return self._models.unload(id)

    async def _loss(self, call: HttpCall, backward: bool) -> None:
        body = await read_body(call, self._limits)
        if _PROTOBUF in call.header(b"content-type"):
            envelope, asked = await beside(len(body), partial(loss_request_of_protobuf, body))
        else:
            fields = await beside(len(body), partial(read_json, body))
            envelope = Envelope.of(fields)
            asked = await beside(len(body), partial(_loss_of_json, fields, backward))

        def work() -> Work:
            if isinstance(asked, TinkerError):
                raise asked
            return asked

        await self._in_order(call, envelope, work)

    async def _in_order(self, call: HttpCall, envelope: Envelope, work: Callable[[], Work]) -> None:
        """Take in a request that has a place in its model's order, even where its contents are wrong."""
        if not self._queue.has(envelope.model):
            raise TinkerError(f"there is no model {envelope.model!r}, or it was unloaded: load a checkpoint of it", 404)
        self._models.touch(envelope.model)
        try:
            found = work()
        except TinkerError as error:
            found = partial(_refuse, error)
        if envelope.number is None:
            id = f"{envelope.model}:{uuid.uuid4().hex}"
        else:
            id = f"{envelope.model}:{envelope.number}"
        await self._promise(call, id, partial(self._queue.submit, envelope.model, envelope.number, found))


async def _wait(call: HttpCall, promise: Promise, seconds: float) -> None:
    """Wait for the end of a promise.

    Raises:
        ClientGone: the client waits no more.
    """
    here, gone = asyncio.ensure_future(promise.wait(seconds)), asyncio.ensure_future(call.gone())
    try:
        await asyncio.wait((here, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        here.cancel()
        gone.cancel()
    if not promise.done and gone.done() and not here.done():
        raise ClientGone


def _model_id(session: str, number: int) -> str:
    """Return a model's id, which clients work out themselves."""
    return f"{session}:train:{number}"


def _refuse(error: TinkerError) -> Answer:
    raise error


def _loss_of_json(fields: Json, backward: bool) -> LossRequest | TinkerError:
    try:
        return loss_request(fields, backward)
    except TinkerError as error:
        return error
