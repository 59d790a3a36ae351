"""Both protocols over one model, put together: Tinker under /api/v1, OpenAI under /v1 and /oai/api/v1."""

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from config.service_config import is_loopback
from data.chat_renderer import Renderer
from llm.base_model import BaseModel
from llm.engine import Engine, EngineLimits
from service.aliases import Aliases
from service.exchange import ExchangeLog, UnknownKeyError
from service.front import Behind, Front, FrontRules
from service.loopback_server import HOST, LoopbackServer
from service.metrics import metrics_text
from service.openai_app import openai_app
from service.overview import Overview, Service, failure_of
from service.promises import Promises
from service.sampling_loop import SamplingLoop
from service.served_models import ServedModels
from service.service_limits import ServiceLimits
from service.status_page import status_page
from service.tinker_app import tinker_routes
from service.tinker_endpoint import TinkerLimits
from service.tinker_error import TinkerError
from service.tinker_models import TinkerModels
from service.tokenizer_files import write_tokenizer
from service.training_queue import TrainingQueue

if TYPE_CHECKING:
    from starlette.applications import Starlette


@dataclass(frozen=True)
class LocalService:
    """A service that runs.

    Attributes:
        url: where it is: the base_url of Tinker's client; OpenAI's has /v1 behind it.
        models: sessions, models, checkpoints.
        queue: what trains.
        loop: what samples.
        promises: answers to come.
    """

    url: str
    models: TinkerModels
    queue: TrainingQueue
    loop: SamplingLoop
    promises: Promises


@contextmanager
def serve(
    base: BaseModel,
    folder: Path,
    name: str = "",
    port: int = 0,
    host: str = HOST,
    key: str | None = None,
    engine_limits: EngineLimits | None = None,
    limits: TinkerLimits | None = None,
    gap_seconds: float = 60.0,
) -> Iterator[LocalService]:
    """Serve a model for as long as the block lasts.

    Args:
        base: the model.
        folder: where checkpoints and the tokenizer's files go.
        name: name under which clients know the model; empty for the one by which it was loaded.
        port: port to listen on; 0 for one that is free.
        host: address to listen on.
        key: what clients must send; None serves everybody who reaches the address.
        engine_limits: what the engine takes.
        limits: what the app takes.
        gap_seconds: how long a model waits for a request that is missing in its order.

    Raises:
        OutputError: the folder can't be written.
    """
    taken = ServiceLimits(engine_limits or EngineLimits(), tinker=limits or TinkerLimits(), gap_seconds=gap_seconds)
    front = Front(FrontRules(key, is_loopback(host)))
    with LoopbackServer(front, port, host) as server, running(base, folder, server.url, front, name, taken) as service:
        yield service


@contextmanager
def running(
    base: BaseModel, folder: Path, url: str, front: Front, name: str = "", limits: ServiceLimits | None = None
) -> Iterator[LocalService]:
    """Let a model answer what comes to a front, which is served already, for as long as the block lasts.

    Args:
        base: the model.
        folder: where checkpoints and the tokenizer's files go.
        url: where the front is served.
        front: lets requests through as soon as the model is ready; its key is the service's.
        name: name under which clients know the model; empty for the one by which it was loaded.
        limits: what is taken at a time.

    Raises:
        OutputError: the folder can't be written.
    """
    limits = limits or ServiceLimits()
    tokenizer = folder / "tokenizer"
    write_tokenizer(base, tokenizer)
    engine = Engine(base, limits.engine, limits.sampler)
    loop = SamplingLoop(engine.sampler, ServedModels())
    models = TinkerModels(engine, loop, name or base.source, folder / "checkpoints", tokenizer.resolve(),
                          limits.checkpoint_bytes)  # fmt: skip
    queue, promises = TrainingQueue(engine, loop, limits.gap_seconds, limits.waiting), Promises()
    aliases = Aliases(loop.models, folder / "aliases.json")
    renderer = Renderer(base.tokenizer, base.template, base.end_ids)
    app = _app(models, queue, promises, renderer, front.rules.key, limits, aliases)
    looked_at = Service(url, front, models, queue, loop, promises, limits.checkpoint_bytes)
    with loop:
        front.open(
            Behind(
                app, lambda: loop.waiting, lambda: (loop.sampled_tokens, queue.trained_tokens),
                lambda: failure_of(loop),
                lambda: status_page(Overview.of(looked_at)), lambda: metrics_text(Overview.of(looked_at)),
            )
        )  # fmt: skip
        try:
            yield LocalService(url, models, queue, loop, promises)
        finally:
            promises.fail_all(TinkerError("the service has been closed", category="server"))


def _app(
    models: TinkerModels,
    queue: TrainingQueue,
    promises: Promises,
    renderer: Renderer,
    key: str | None,
    limits: ServiceLimits,
    aliases: Aliases,
) -> "Starlette":
    from starlette.applications import Starlette
    from starlette.routing import Mount

    log = ExchangeLog(only_open=False) if key is None else _OneKey(key)
    openai = openai_app(models.loop, renderer, log, limits=limits.openai, aliases=aliases)
    routes = [*tinker_routes(models, queue, promises, key, limits.tinker), Mount("", openai)]
    return Starlette(routes=routes)


class _OneKey(ExchangeLog):
    """Records nothing, and refuses all keys but one.

    Args:
        key: the key.
    """

    def __init__(self, key: str) -> None:
        super().__init__(only_open=False)
        self._key = key.encode()

    def require(self, key: str) -> None:
        """Refuse another key.

        Raises:
            UnknownKeyError: it is another one.
        """
        if not hmac.compare_digest(key.encode(), self._key):
            raise UnknownKeyError("the key is not this service's")
