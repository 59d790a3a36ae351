"""Both protocols over one model, put together: Tinker under /api/v1, OpenAI under /v1 and /oai/api/v1."""

import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.chat_renderer import Renderer
from llm.base_model import BaseModel
from llm.engine import Engine, EngineLimits
from service.exchange import ExchangeLog, UnknownKeyError
from service.loopback_server import HOST, LoopbackServer
from service.openai_app import openai_app
from service.promises import Promises
from service.sampling_loop import SamplingLoop
from service.served_models import ServedModels
from service.tinker_app import tinker_routes
from service.tinker_endpoint import TinkerLimits
from service.tinker_error import TinkerError
from service.tinker_models import TinkerModels
from service.training_queue import TrainingQueue
from storage.files import output_errors

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
    tokenizer = folder / "tokenizer"
    with output_errors(folder):
        tokenizer.mkdir(parents=True, exist_ok=True)
        base.tokenizer.save_pretrained(str(tokenizer))
        # Without it clients look for the model's type on the hub.
        (tokenizer / "config.json").write_text(
            json.dumps({"model_type": base.config.get("model_type", "llama")}), encoding="utf-8"
        )
    engine = Engine(base, engine_limits)
    loop = SamplingLoop(engine.sampler, ServedModels())
    models = TinkerModels(engine, loop, name or base.source, folder / "checkpoints", tokenizer.resolve())
    queue, promises = TrainingQueue(engine, loop, gap_seconds), Promises()
    app = _app(models, queue, promises, Renderer(base.tokenizer, base.template, base.end_ids), key, limits)
    with LoopbackServer(app, port, host) as server, loop:
        try:
            yield LocalService(server.url, models, queue, loop, promises)
        finally:
            promises.fail_all(TinkerError("the service has been closed", category="server"))


def _app(
    models: TinkerModels,
    queue: TrainingQueue,
    promises: Promises,
    renderer: Renderer,
    key: str | None,
    limits: TinkerLimits | None,
) -> "Starlette":
    from starlette.applications import Starlette
    from starlette.routing import Mount

    log = ExchangeLog(only_open=False) if key is None else _OneKey(key)
    routes = [*tinker_routes(models, queue, promises, key, limits), Mount("", openai_app(models.loop, renderer, log))]
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
