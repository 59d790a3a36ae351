"""The Tinker protocol over HTTP, for any version of its client: /api/v1/...

    request -> checked here (tinker_messages) -> Promise, told at once -> TrainingQueue or SamplingLoop -> the engine's
    thread -> the promise ends -> retrieve_future, which waits for it, writes it as JSON or protobuf

Whether a client reads protobuf is known by its headers alone, never by its version. What is wrong with the contents of
a request that has a number makes its promise fail, and not the request: its number is used, and those after it go on.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from service.openai.openai_answers import to_json
from service.tinker.promises import Promise, Promises
from service.tinker.replay import SampleToBegin
from service.tinker.tinker_endpoint import Handler, TinkerLimits, beside, read_body, read_object
from service.tinker.tinker_fields import Fields, Json, read_json
from service.tinker.tinker_listing import ListingEndpoints
from service.tinker.tinker_models import TinkerModels
from service.tinker.tinker_sampling import SamplingEndpoints
from service.tinker.tinker_work import Asked, TinkerWork
from service.tinker.training_queue import TrainingQueue
from service.web.download_links import DownloadLinks
from service.web.http_call import ClientGone, HttpCall
from service.web.tinker_error import TinkerError

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
    samples: Sequence[SampleToBegin] = (),
) -> "list[Route]":
    """Make the routes of the protocol.

    Args:
        models: sessions, models, checkpoints.
        queue: what trains.
        promises: answers to come.
        key: what clients must send as X-API-Key; None serves everybody.
        limits: what is taken.
        samples: requests for samples that were promised before this process began.

    Returns:
        Routes for a Starlette app.
    """
    from starlette.routing import Route

    limits, links = limits or TinkerLimits(), DownloadLinks()
    app = _Endpoint(models, queue, promises, limits)
    sampling, listing = app.sampling, ListingEndpoints(models, limits, links)
    for each in samples:
        sampling.begin(read_json(each.body), each.served, each.promise)
    table: list[tuple[str, str, Callable[[HttpCall], Awaitable[None]]]] = [
        ("POST", "retrieve_future", app.retrieve), ("POST", "session_heartbeat", app.heartbeat),  # most of all calls
        ("POST", "client/config", app.client_config), ("POST", "client/dynamic_config", app.dynamic_config),
        ("POST", "create_session", app.create_session),
        ("POST", "telemetry", app.telemetry), ("GET", "healthz", app.health),
        ("GET", "get_server_capabilities", app.capabilities),
        ("POST", "sessions/search", listing.search_sessions), ("POST", "sessions/{session}/finish", app.finish_session),
        ("GET", "sessions", listing.sessions), ("GET", "sessions/{session}", listing.session),
        ("POST", "cancel_future", sampling.cancel),
        ("POST", "retrieve_futures", sampling.ended), ("POST", "join_sampling_session", sampling.join),
        ("POST", "create_model", app.create_model),
        ("POST", "get_info", app.get_info), ("POST", "forward", app.forward),
        ("POST", "forward_backward", app.forward_backward), ("POST", "optim_step", app.optim_step),
        *(("POST", what, partial(app.save_weights, what))
          for what in ("save_weights", "save_weights_for_sampler", "save_weights_external")),
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
        self._journal, self._work = models.journal, TinkerWork(models, queue)
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
        await self._models.settled()
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
        self._models.end_session(call.parameter("session") or "", read_json(body or b"{}"))
        await self._models.settled()
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
            told: Json = {"type": "try_again", "request_id": promise.id, "queue_state": "active"}
            if self._journal.trouble is not None:  # what is done is told when it is kept
                told |= {"queue_state": "paused_capacity", "queue_state_reason": self._journal.trouble}
            await call.reply(408, to_json(told))

    async def _promise(
        self, call: HttpCall, id: str, begin: Callable[[Promise], None], more: Json | None = None
    ) -> None:
        """Answer by the promise of an id, once it will outlive this process; a new one is begun."""
        promise, new = self._promises.once(id)
        if new:
            try:
                begin(promise)
            except TinkerError as error:
                self._promises.refuse(promise, error)
                raise
        await self._journal.settled(promise.accepted)
        await call.reply(200, to_json({"request_id": id, **(more or {})}))

    # --------------------------------------------------------------------------------------------------------- training

    async def create_model(self, call: HttpCall) -> None:
        """Make a model."""
        await self._in_order("create_model", call)

    async def get_info(self, call: HttpCall) -> None:
        """Tell of a model."""
        await call.reply(
            200, to_json(self._models.info(Fields(await read_object(call, self._limits)).text("model_id")))
        )

    async def forward(self, call: HttpCall) -> None:
        """Measure rows."""
        await self._in_order("forward", call)

    async def forward_backward(self, call: HttpCall) -> None:
        """Measure rows and add up their gradients."""
        await self._in_order("forward_backward", call)

    async def optim_step(self, call: HttpCall) -> None:
        """Do an optimizer step."""
        await self._in_order("optim_step", call)

    async def save_weights(self, what: str, call: HttpCall) -> None:
        """Keep a model's weights, in the way that the route says."""
        await self._in_order(what, call)

    async def load_weights(self, call: HttpCall) -> None:
        """Let a model go on from a checkpoint, one that there is or a new one."""
        await self._in_order("load_weights", call)

    async def unload_model(self, call: HttpCall) -> None:
        """Forget a model, after all that was asked of it."""
        await self._in_order("unload_model", call)

    async def _in_order(self, what: str, call: HttpCall) -> None:
        """Take in a request that has a place in its model's order, even where its contents are wrong."""
        body = await read_body(call, self._limits)
        protobuf = what in ("forward", "forward_backward") and _PROTOBUF in call.header(b"content-type")
        asked = await beside(len(body), partial(self._work.read, what, body, protobuf))
        if not asked.opens and not self._queue.has(asked.model):
            raise TinkerError(f"there is no model {asked.model!r}, or it was unloaded: load a checkpoint of it", 404)
        asked.require()
        id = f"{asked.model}:{uuid.uuid4().hex if asked.number is None else asked.number}"

        def begin(promise: Promise) -> None:
            now = time.time()
            self._models.touch(asked.model, now)
            accept = partial(self._accept, what, asked, id, protobuf, body, now)
            if asked.opens:
                self._make_room()
                self._queue.open(asked.model, asked.work, promise, accept)
            else:
                self._queue.submit(asked.model, asked.number, asked.work, promise, accept)

        await self._promise(call, id, begin)

    def _make_room(self) -> None:
        """Unload models whose clients are gone, where there is no place for one more: many clients never do it."""
        models = self._queue.models
        missing = len(models) + 1 - self._models.engine.limits.adapters
        for model in self._models.forsaken(models)[: max(0, missing)]:
            what, id, body = "unload_model", f"{model}:unload", to_json({"model_id": model})
            promise, new = self._promises.once(id)
            if new:
                asked = self._work.read(what, body)
                accept = partial(self._accept, what, asked, id, False, body, time.time())
                self._queue.submit(model, None, asked.work, promise, accept)

    def _accept(self, what: str, asked: Asked, id: str, protobuf: bool, body: bytes, time: float, number: int) -> int:
        """Write a request down under its number, and return the number of the record."""
        told = {"what": what, "model": asked.model, "number": number, "protobuf": protobuf, "opens": asked.opens}
        return self._journal.accept(id, {**told, "time": time}, body)


async def _wait(call: HttpCall, promise: Promise, seconds: float) -> None:
    """Wait for the end of a promise.

    Raises:
        ClientGone: the client waits no more.
    """
    gone = asyncio.ensure_future(call.gone())
    try:
        if not await promise.wait(seconds, unless=gone) and gone.done():
            raise ClientGone
    finally:
        gone.cancel()
