"""The Tinker protocol over HTTP, for any version of its client: /api/v1/...

    request -> checked here (tinker_messages) -> Promise, told at once -> TrainingQueue or SamplingLoop -> the engine's
    thread -> the promise ends -> retrieve_future, which waits for it, writes it as JSON or protobuf

Whether a client reads protobuf is known by its headers alone, never by its version. What is wrong with the contents of
a request that has a number makes its promise fail, and not the request: its number is used, and those after it go on.
"""

import asyncio
import hmac
import io
import logging
import tarfile
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from llm.engine_error import EngineError
from llm.loss_pass import LossRequest
from llm.sampling_settings import SettingError
from service.http_call import ClientGone, HttpCall
from service.openai_answers import to_json
from service.openai_error import RequestError
from service.promises import HOLD, Promise, Promises
from service.sampling_loop import LoopEndedError, Ticket
from service.served_models import UnknownModelError
from service.tinker_error import TinkerError
from service.tinker_fields import Fields, Json, read_json
from service.tinker_messages import (
    Answer,
    CreateModel,
    Envelope,
    LoadWeights,
    SampleAnswer,
    Sampling,
    SaveWeights,
    TinkerPath,
    adam_settings,
    checkpoint_name,
    loss_request,
    loss_request_of_protobuf,
    setting_refused,
)
from service.tinker_models import Checkpoint, TinkerModels
from service.training_queue import TrainingQueue, Work

if TYPE_CHECKING:
    from starlette.routing import Route
    from starlette.types import Receive, Scope, Send

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_PROTOBUF = "application/x-protobuf"
_LONG = 65536  # bytes of a request that is read beside the other clients
_MOST_LISTED = 1000
_NOT_HERE = ("save_weights_external", "copy_weights", "trace_export")


@dataclass(frozen=True)
class TinkerLimits:
    """What the app takes.

    Attributes:
        body: bytes of a request, also after it was unpacked.
        hold: seconds that a question for an answer is held.
    """

    body: int = 256 * 2**20
    hold: float = HOLD


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

    app = _Endpoint(models, queue, promises, limits or TinkerLimits())
    table: list[tuple[str, str, Callable[[HttpCall], Awaitable[None]]]] = [
        ("POST", "client/config", app.nothing), ("POST", "client/dynamic_config", app.nothing),
        ("POST", "create_session", app.create_session), ("POST", "session_heartbeat", app.heartbeat),
        ("POST", "telemetry", app.telemetry), ("GET", "healthz", app.health),
        ("GET", "get_server_capabilities", app.capabilities),
        ("POST", "sessions/{session}/finish", app.finish_session), ("GET", "sessions", app.sessions),
        ("GET", "sessions/{session}", app.session),
        ("POST", "retrieve_future", app.retrieve), ("POST", "create_model", app.create_model),
        ("POST", "get_info", app.get_info), ("POST", "forward", app.forward),
        ("POST", "forward_backward", app.forward_backward), ("POST", "optim_step", app.optim_step),
        ("POST", "save_weights", partial(app.save_weights, False)),
        ("POST", "save_weights_for_sampler", partial(app.save_weights, True)),
        ("POST", "load_weights", app.load_weights), ("POST", "weights_info", app.weights_info),
        ("POST", "unload_model", app.unload_model),
        ("POST", "create_sampling_session", app.create_sampling_session), ("GET", "samplers/{sampler}", app.sampler),
        ("POST", "asample", app.sample),
        ("GET", "training_runs", app.runs), ("GET", "training_runs/{run}", app.run),
        ("GET", "training_runs/{run}/checkpoints", app.run_checkpoints), ("GET", "checkpoints", app.checkpoints),
        *((method, "training_runs/{run}/checkpoints/{kind}/{name}", app.checkpoint) for method in ("DELETE", "GET")),
        *((method, "training_runs/{run}/checkpoints/{kind}/{name}/{verb:path}", app.checkpoint)
          for method in ("GET", "POST", "PUT", "DELETE")),
        *(("POST", path, app.not_here) for path in _NOT_HERE),
    ]  # fmt: skip
    routes = [Route(f"/api/v1/{path}", endpoint=_Handler(answer, key), methods=[method])
              for method, path, answer in table]  # fmt: skip
    routes.append(Route("/healthz", endpoint=_Handler(app.health, None), methods=["GET"]))
    return routes


class _Handler:
    """An ASGI app that answers calls by a function, and errors in the protocol's form."""

    def __init__(self, answer: Callable[[HttpCall], Awaitable[None]], key: str | None) -> None:
        self._answer, self._key = answer, key

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        call = HttpCall(scope, receive, send)
        try:
            if self._key is not None and not hmac.compare_digest(
                call.header(b"x-api-key").encode(), self._key.encode()
            ):
                raise TinkerError("the key is not this service's: send it as X-API-Key (api_key=, TINKER_API_KEY)", 401)
            await self._answer(call)
        except ClientGone:
            return
        except TinkerError as error:
            await call.reply(error.status, error.body())
        except RequestError as error:
            await call.reply(error.status, TinkerError(error.message).body())
        except asyncio.CancelledError:  # by the server's end, and nobody else
            await call.reply(503, TinkerError("the service has been closed", category="server").body())
        except Exception:
            _LOG.exception("a request failed")
            await call.reply(500, TinkerError("the service failed; its log says how", category="server").body())


class _Endpoint:
    """What is done with each request."""

    def __init__(self, models: TinkerModels, queue: TrainingQueue, promises: Promises, limits: TinkerLimits) -> None:
        self._models, self._queue, self._promises, self._limits = models, queue, promises, limits

    # --------------------------------------------------------------------------------------------------------- sessions

    async def nothing(self, call: HttpCall) -> None:
        """Answer that all is as the client has it by default."""
        await self._body(call)
        await call.reply(200, b"{}")

    async def create_session(self, call: HttpCall) -> None:
        """Begin a session."""
        await self._json(call)
        await call.reply(200, to_json({"session_id": self._models.open_session(), "type": "create_session"}))

    async def heartbeat(self, call: HttpCall) -> None:
        """Hear that a client is there."""
        self._models.require_session(Fields(await self._json(call)).text("session_id"), 410)
        await call.reply(200, to_json({"type": "session_heartbeat"}))

    async def telemetry(self, call: HttpCall) -> None:
        """Take what clients tell of themselves, and keep nothing of it."""
        await self._body(call)
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
        await self._body(call)
        await call.reply(204, b"")

    async def sessions(self, call: HttpCall) -> None:
        """List the sessions."""
        await call.reply(200, to_json({"sessions": list(self._models.sessions)}))

    async def session(self, call: HttpCall) -> None:
        """Tell of one session."""
        id = call.parameter("session") or ""
        self._models.require_session(id)
        samplers = [each for each in self._models.samplers if each.startswith(f"{id}:")]
        await call.reply(200, to_json({"training_run_ids": self._models.sessions[id], "sampler_ids": samplers}))

    async def not_here(self, call: HttpCall) -> None:
        """Refuse what only the hosted service has."""
        await self._body(call)
        raise TinkerError("this is a feature of the hosted service, which a local one doesn't have", 501)

    # --------------------------------------------------------------------------------------------------------- promises

    async def retrieve(self, call: HttpCall) -> None:
        """Tell what came of a request, as soon as it is known."""
        promise = self._promises.find(Fields(await self._json(call)).text("request_id"))
        self._queue.give_up_gaps()
        if not await promise.wait(self._limits.hold):
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
        asked = CreateModel.of(await self._json(call))
        self._models.require_session(asked.session)
        self._models.require_base(asked.base_model)
        id = _model_id(asked.session, asked.number)
        await self._promise(call, f"{id}:0", partial(self._queue.open, id, partial(self._models.create, id, asked)))

    async def get_info(self, call: HttpCall) -> None:
        """Tell of a model."""
        await call.reply(200, to_json(self._models.info(Fields(await self._json(call)).text("model_id"))))

    async def forward(self, call: HttpCall) -> None:
        """Measure rows."""
        await self._loss(call, backward=False)

    async def forward_backward(self, call: HttpCall) -> None:
        """Measure rows and add up their gradients."""
        await self._loss(call, backward=True)

    async def optim_step(self, call: HttpCall) -> None:
        """Do an optimizer step."""
        body = await self._json(call)
        id = Envelope.of(body).model
        await self._in_order(call, Envelope.of(body), lambda: partial(self._models.step, id, adam_settings(body)))

    async def save_weights(self, for_sampler: bool, call: HttpCall) -> None:
        """Keep a model's weights."""
        body = await self._json(call)
        envelope = Envelope.of(body)

        def work() -> Work:
            return partial(self._models.save, envelope.model, SaveWeights.of(body, for_sampler), for_sampler)

        await self._in_order(call, envelope, work)

    async def load_weights(self, call: HttpCall) -> None:
        """Let a model go on from a checkpoint, one that there is or a new one."""
        body = await self._json(call)
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
        await self._promise(call, f"{id}:0", partial(self._queue.open, id, partial(self._models.load, id, asked)))

    async def weights_info(self, call: HttpCall) -> None:
        """Tell of a checkpoint."""
        path = TinkerPath.of(Fields(await self._json(call)).text("tinker_path"))
        await call.reply(200, to_json(self._models.weights_info(path)))

    async def unload_model(self, call: HttpCall) -> None:
        """Forget a model, after all that was asked of it."""
        id = Fields(await self._json(call)).text("model_id")

        def unload() -> Answer:
            self._queue.close_model(id)
            return self._models.unload(id)

        await self._in_order(call, Envelope(id, None), lambda: unload)

    async def _loss(self, call: HttpCall, backward: bool) -> None:
        body = await self._body(call)
        if _PROTOBUF in call.header(b"content-type"):
            envelope, asked = await _beside(len(body), partial(loss_request_of_protobuf, body))
        else:
            fields = await _beside(len(body), partial(read_json, body))
            envelope = Envelope.of(fields)
            asked = await _beside(len(body), partial(_loss_of_json, fields, backward))

        def work() -> Work:
            if isinstance(asked, TinkerError):
                raise asked
            return asked

        await self._in_order(call, envelope, work)

    async def _in_order(self, call: HttpCall, envelope: Envelope, work: Callable[[], Work]) -> None:
        """Take in a request that has a place in its model's order, even where its contents are wrong."""
        if not self._queue.has(envelope.model):
            raise TinkerError(f"there is no model {envelope.model!r}", 404)
        try:
            found = work()
        except TinkerError as error:
            found = partial(_refuse, error)
        if envelope.number is None:
            id = f"{envelope.model}:{uuid.uuid4().hex}"
        else:
            id = f"{envelope.model}:{envelope.number}"
        await self._promise(call, id, partial(self._queue.submit, envelope.model, envelope.number, found))

    # --------------------------------------------------------------------------------------------------------- sampling

    async def create_sampling_session(self, call: HttpCall) -> None:
        """Make a sampler of the base model or of a checkpoint."""
        given = Fields(await self._json(call))
        path = TinkerPath.of(given.text("model_path")) if given.has("model_path") else None
        base = given.text("base_model") if given.has("base_model") else None
        session = given.text("session_id")
        self._models.require_session(session)
        made = self._models.open_sampler(session, given.whole("sampling_session_seq_id"), base, path)
        await call.reply(200, to_json({"type": "create_sampling_session", "sampling_session_id": made.id}))

    async def sampler(self, call: HttpCall) -> None:
        """Tell of a sampler."""
        found = self._models.sampler(call.parameter("sampler") or "")
        told = {"sampler_id": found.id, "base_model": self._models.name, "model_path": found.path}
        await call.reply(200, to_json(told))

    async def sample(self, call: HttpCall) -> None:
        """Sample."""
        body = await self._json(call)
        given = Fields(body)
        if given.has("sampling_session_id"):
            session = given.text("sampling_session_id")
            served = self._models.sampler(session).served
            number = given.whole("seq_id") if given.has("seq_id") else None
            id = f"{session}:{uuid.uuid4().hex if number is None else number}"
        else:
            path = TinkerPath.of(given.text("model_path")) if given.has("model_path") else None
            served = self._models.served(given.text("base_model") if given.has("base_model") else None, path)
            id = f"sample:{uuid.uuid4().hex}"
        samples = given.whole("num_samples", 1, least=1, most=_MOST_LISTED)
        more = {"sample_sequence_ids": [f"{id}:{place}" for place in range(samples)]}
        await self._promise(call, id, partial(self._begin_sample, body, served), more)

    def _begin_sample(self, body: Json, served: str, promise: Promise) -> None:
        tickets: list[Ticket] = []

        def ended() -> None:
            for ticket in tickets:
                if ticket.done and ticket.error is not None:
                    user = isinstance(ticket.error, SettingError | UnknownModelError)
                    promise.fail(TinkerError(str(ticket.error), category="user" if user else "server"))
                elif ticket.done and ticket.handle is not None:
                    promise.keep(SampleAnswer(asked, ticket.handle))

        try:
            asked = Sampling.of(body)
            tickets.append(self._models.sample(served, asked.request, partial(ended)))
            ended()  # where that was before the ticket was there
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

    # ------------------------------------------------------------------------------------------------------------ lists

    async def runs(self, call: HttpCall) -> None:
        """List the models."""
        found = self._models.runs()
        cursor, begin, end = _page(call, len(found))
        told = [self._models.told(each) for each in found[begin:end]]
        await call.reply(200, to_json({"training_runs": told, "cursor": cursor}))

    async def run(self, call: HttpCall) -> None:
        """Tell of one model."""
        await call.reply(200, to_json(self._models.told(self._models.run(call.parameter("run") or ""))))

    async def run_checkpoints(self, call: HttpCall) -> None:
        """List the checkpoints of a model."""
        found = self._models.run(call.parameter("run") or "").checkpoints
        await call.reply(200, to_json({"checkpoints": [each.told() for each in list(found.values())]}))

    async def checkpoints(self, call: HttpCall) -> None:
        """List all checkpoints."""
        found = self._models.checkpoints()
        cursor, begin, end = _page(call, len(found))
        await call.reply(200, to_json({"checkpoints": [each.told() for each in found[begin:end]], "cursor": cursor}))

    async def checkpoint(self, call: HttpCall) -> None:
        """Do with a checkpoint what the method and the end of the path say."""
        kind, name = call.parameter("kind") or "", checkpoint_name(call.parameter("name") or "")
        path = TinkerPath(call.parameter("run") or "", kind, name)
        verb, method = call.parameter("verb") or "", call.method
        found = self._models.checkpoint(path)
        if (method, verb) == ("GET", "archive"):
            await call.reply(302, b"", more=[(b"location", f"{call.url}/adapter.tar.gz".encode())])
        elif (method, verb) == ("GET", "archive/adapter.tar.gz"):
            await call.reply(200, await asyncio.to_thread(_archive, found), b"application/gzip")
        elif (method, verb) == ("PUT", "ttl"):
            given = Fields(await self._json(call))
            self._models.set_ttl(path, given.whole("ttl_seconds", least=1) if given.has("ttl_seconds") else None)
            await call.reply(204, b"")
        elif (method, verb) == ("DELETE", ""):
            self._models.delete(path)
            await call.reply(204, b"")
        elif verb == "publish":
            raise TinkerError("a local service publishes nothing: copy the checkpoint's folder", 501)
        else:
            raise TinkerError(f"{method} of a checkpoint's {verb or 'own'} is not served", 404)

    # ------------------------------------------------------------------------------------------------------------ steps

    async def _body(self, call: HttpCall) -> bytes:
        return _unpacked(await call.body(self._limits.body), call.header(b"content-encoding"), self._limits.body)

    async def _json(self, call: HttpCall) -> Json:
        body = await self._body(call)
        return await _beside(len(body), partial(read_json, body))


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


async def _beside(size: int, work: Callable[[], T]) -> T:
    """Do work; where it is for a long request, in a thread beside the other clients."""
    return await asyncio.to_thread(work) if size > _LONG else work()


def _page(call: HttpCall, total: int) -> tuple[Json, int, int]:
    """Return the cursor of a list, and which part of it is wanted."""
    asked = {}
    for name, default, most in (("limit", 20, _MOST_LISTED), ("offset", 0, 2**31)):
        text = call.query(name)
        if text is not None and (not text.isdecimal() or not text.isascii() or int(text[:12]) > most):
            raise TinkerError(f"{name} is {text[:80]!r}; it must be an integer from 0 to {most}")
        asked[name] = default if text is None else int(text)
    begin = asked["offset"]
    return {**asked, "total_count": total}, begin, begin + asked["limit"]


def _archive(checkpoint: Checkpoint) -> bytes:
    """Return PEFT's files of a checkpoint as a tar.gz."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            archive.add(checkpoint.folder / name, name)
    return packed.getvalue()


def _unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """Return a body as it was before it was packed, never more of it than is taken."""
    if encoding in ("", "identity"):
        return body
    if encoding != "zstd":
        raise TinkerError(f"Content-Encoding is {encoding!r}; allowed are identity and zstd", 415)
    import zstandard

    try:
        with zstandard.ZstdDecompressor().stream_reader(body) as reader:
            unpacked = reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise TinkerError(f"the body can't be unpacked: {error}") from error
    if len(unpacked) > limit:
        raise TinkerError(f"the request's body is longer than {limit} bytes when it is unpacked", 413)
    return unpacked
