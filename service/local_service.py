"""Both protocols over one model, put together: Tinker under /api/v1, OpenAI under /v1 and /oai/api/v1."""

import hmac
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from config.service_config import is_loopback
from constants.version import VERSION
from data.chat_renderer import Renderer
from llm.base_model import BaseModel
from llm.engine import Engine, EngineLimits
from service.journal.journal import Unkept
from service.journal.store import Store, facts_of
from service.openai.aliases import Aliases
from service.openai.openai_app import openai_app
from service.sampling.exchange import ExchangeLog, UnknownKeyError
from service.sampling.sampling_loop import SamplingLoop
from service.sampling.served_models import ServedModels
from service.service_limits import ServiceLimits
from service.status.metrics import metrics_text
from service.status.overview import Overview, Service, failure_of
from service.status.status_page import status_page
from service.tinker.promises import Promises
from service.tinker.replay import Replay, SampleToBegin
from service.tinker.state_keeper import Cadence, StateKeeper
from service.tinker.tinker_app import tinker_routes
from service.tinker.tinker_endpoint import TinkerLimits
from service.tinker.tinker_models import TinkerModels
from service.tinker.training_queue import TrainingQueue
from service.tokenizer_files import write_tokenizer
from service.web.front import Behind, Front, FrontRules
from service.web.loopback_server import HOST, LoopbackServer
from service.web.tinker_error import TinkerError

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
        replayed: turns that were done again because the last process was killed.
        others: requests that gave other numbers then, by what they are called.
    """

    url: str
    models: TinkerModels
    queue: TrainingQueue
    loop: SamplingLoop
    promises: Promises
    replayed: int = 0
    others: Sequence[str] = ()


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
    keep: bool = True,
    cadence: Cadence | None = None,
    exact: bool = True,
) -> Iterator[LocalService]:
    """Serve a model for as long as the block lasts.

    Args:
        base: the model.
        folder: where checkpoints, the journal and the tokenizer's files go.
        name: name under which clients know the model; empty for the one by which it was loaded.
        port: port to listen on; 0 for one that is free.
        host: address to listen on.
        key: what clients must send; None serves everybody who reaches the address.
        engine_limits: what the engine takes.
        limits: what the app takes.
        gap_seconds: how long a model waits for a request that is missing in its order.
        keep: whether what is promised outlives this process: a later one in the same folder goes on with it.
        cadence: when states are written.
        exact: whether work of before that has to be done again must give the numbers of before.

    Raises:
        OutputError: the folder can't be written.
        JournalError: another service has the folder, or it can't be gone on with.
    """
    taken = ServiceLimits(engine_limits or EngineLimits(), tinker=limits or TinkerLimits(), gap_seconds=gap_seconds)
    front = Front(FrontRules(key, is_loopback(host)))
    with (
        LoopbackServer(front, port, host) as server,
        running(base, folder, server.url, front, name, taken, keep, cadence, exact) as service,
    ):
        yield service


@contextmanager
def running(
    base: BaseModel,
    folder: Path,
    url: str,
    front: Front,
    name: str = "",
    limits: ServiceLimits | None = None,
    keep: bool = True,
    cadence: Cadence | None = None,
    exact: bool = True,
) -> Iterator[LocalService]:
    """Let a model answer what comes to a front, which is served already, for as long as the block lasts.

    Args:
        base: the model.
        folder: where checkpoints, the journal and the tokenizer's files go.
        url: where the front is served.
        front: lets requests through as soon as the model is ready; its key is the service's.
        name: name under which clients know the model; empty for the one by which it was loaded.
        limits: what is taken at a time.
        keep: whether what is promised outlives this process: a later one in the same folder goes on with it.
        cadence: when states are written.
        exact: whether work of before that has to be done again must give the numbers of before.

    Raises:
        OutputError: the folder can't be written.
        JournalError: another service has the folder, or it can't be gone on with.
    """
    limits = limits or ServiceLimits()
    tokenizer = folder / "tokenizer"
    write_tokenizer(base, tokenizer)
    engine = Engine(base, limits.engine, limits.sampler)
    loop = SamplingLoop(engine.sampler, ServedModels())
    renderer = Renderer(base.tokenizer, base.template, base.end_ids)
    samples: list[SampleToBegin] = []
    replayed = 0
    others: Sequence[str] = ()
    with ExitStack() as ends:
        store = ends.enter_context(Store(folder, facts_of(base, engine.device, VERSION))) if keep else None
        journal = Unkept() if store is None else store.journal
        models = TinkerModels(engine, loop, name or base.source, folder / "checkpoints", tokenizer.resolve(),
                              limits.checkpoint_bytes, journal)  # fmt: skip
        queue = TrainingQueue(engine, loop, limits.gap_seconds, limits.waiting, journal=journal)
        promises = Promises(12 * limits.answer_seconds, limits.answer_seconds, journal=journal)
        if store is not None:
            store.told(url)
            replay = Replay(store, models, queue, promises, exact)
            samples, replayed, others = replay.run(), replay.turns, replay.others
            keeper = StateKeeper(store, models, queue, cadence)
            ends.callback(keeper.close)
            if not exact:
                keeper.write()  # so that a further start has nothing of before to do again
            keeper.start()
        aliases = Aliases(loop.models, folder / "aliases.json")
        app = _app(models, queue, promises, renderer, front.rules.key, limits, aliases, samples)
        looked_at = Service(url, front, models, queue, loop, promises, limits.checkpoint_bytes)
        ends.enter_context(loop)
        ends.callback(promises.close, TinkerError("the service has been closed", category="server"))
        ends.callback(queue.wait_for_saves)
        front.open(
            Behind(
                app, lambda: loop.waiting, lambda: (loop.sampled_tokens, queue.trained_tokens),
                lambda: failure_of(loop),
                lambda: status_page(Overview.of(looked_at)), lambda: metrics_text(Overview.of(looked_at)),
            )
        )  # fmt: skip
        yield LocalService(url, models, queue, loop, promises, replayed, others)


def _app(
    models: TinkerModels,
    queue: TrainingQueue,
    promises: Promises,
    renderer: Renderer,
    key: str | None,
    limits: ServiceLimits,
    aliases: Aliases,
    samples: Sequence[SampleToBegin],
) -> "Starlette":
    from starlette.applications import Starlette
    from starlette.routing import Mount

    log = ExchangeLog(only_open=False) if key is None else _OneKey(key)
    openai = openai_app(models.loop, renderer, log, limits=limits.openai, aliases=aliases)
    routes = [*tinker_routes(models, queue, promises, key, limits.tinker, samples), Mount("", openai)]
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
