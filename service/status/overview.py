"""A service as it is at one moment: what its status page and its metrics show."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from constants.version import VERSION
from llm.engine_error import EngineError
from service.sampling.sampling_loop import SamplingLoop
from service.tinker.promises import Promises
from service.tinker.tinker_models import TinkerModels
from service.tinker.training_queue import TrainingQueue
from service.web.front import Front
from service.web.request_counts import RequestCounts, TokenRates


@dataclass(frozen=True)
class ModelRow:
    """A model that a client trains.

    Attributes:
        id: its id.
        rank: rank of its adapter.
        steps: optimizer steps that it has made; None where it was unloaded.
        last: when it was last asked for something, seconds since 1970.
        checkpoints: how many it has.
        bytes: what they take on disk.
    """

    id: str
    rank: int
    steps: int | None
    last: float
    checkpoints: int
    bytes: int


@dataclass(frozen=True)
class ProcessUse:
    """What this process takes of the machine; 0 where the system doesn't tell.

    Attributes:
        memory: resident bytes.
        memory_total: bytes of the machine.
        files: open file descriptors.
        files_most: how many there may be.
        threads: threads.
        processor_seconds: of all its threads.
    """

    memory: int = 0
    memory_total: int = 0
    files: int = 0
    files_most: int = 0
    threads: int = 0
    processor_seconds: float = 0.0

    @staticmethod
    def now() -> "ProcessUse":
        """Look."""
        times = os.times()
        try:
            page = os.sysconf("SC_PAGE_SIZE")
            return ProcessUse(
                int(Path("/proc/self/statm").read_text().split()[1]) * page, os.sysconf("SC_PHYS_PAGES") * page,
                len(os.listdir("/proc/self/fd")), os.sysconf("SC_OPEN_MAX"), len(os.listdir("/proc/self/task")),
                times.user + times.system,
            )  # fmt: skip
        except (OSError, ValueError):
            return ProcessUse(processor_seconds=times.user + times.system)


@dataclass(frozen=True)
class Service:
    """The parts of a service that are looked at.

    Attributes:
        url: where it is.
        front: what counts its requests.
        models: sessions, models, checkpoints.
        queue: what trains.
        loop: what samples.
        promises: answers to come.
        checkpoint_bytes: room for checkpoints; 0 where there is no limit.
        started: when it was started, seconds since 1970.
    """

    url: str
    front: Front
    models: TinkerModels
    queue: TrainingQueue
    loop: SamplingLoop
    promises: Promises
    checkpoint_bytes: int = 0
    started: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Overview:
    """What is to be told of a service.

    Attributes:
        url: where it is.
        name: name of the base model.
        source: where that is from.
        parameters: how many numbers it has.
        context: tokens of its longest row.
        place: device and type of its weights.
        version: of this program.
        state: starting, ready or failed.
        failure: why it failed.
        trouble: what is wrong with the disk of its journal; empty where nothing is.
        started: seconds since 1970.
        sampled_tokens: since the start.
        trained_tokens: since the start.
        sampling: requests that are sampled now.
        waiting_sampling: those that wait for that.
        waiting_training: training requests that wait.
        promises: answers that are kept or to come.
        sessions: how many there are.
        rows: models that clients train, the last used first.
        adapters_most: how many of them may be loaded.
        checkpoint_bytes_most: room for checkpoints; 0 where there is no limit.
        aliases: names that stand for models, and for which.
        process: what the process takes.
        counts: of requests.
        rates: tokens a second.
    """

    url: str
    name: str
    source: str
    parameters: int
    context: int
    place: str
    version: str
    state: str
    failure: str
    trouble: str
    started: float
    sampled_tokens: int
    trained_tokens: int
    sampling: int
    waiting_sampling: int
    waiting_training: int
    promises: int
    sessions: int
    rows: tuple[ModelRow, ...]
    adapters_most: int
    checkpoint_bytes_most: int
    aliases: dict[str, str]
    process: ProcessUse
    counts: RequestCounts
    rates: TokenRates

    @property
    def checkpoints(self) -> int:
        """How many checkpoints there are."""
        return sum(row.checkpoints for row in self.rows)

    @property
    def checkpoint_bytes(self) -> int:
        """What they take on disk."""
        return sum(row.bytes for row in self.rows)

    @staticmethod
    def of(service: Service) -> "Overview":
        """Look at a service. Any thread may do so at any time."""
        models, loop, queue = service.models, service.loop, service.queue
        base = models.engine.base
        weights = list(base.model.parameters())
        rows = [
            ModelRow(
                run.id, run.info.rank, _steps(models, run.id), run.last_request, len(kept), sum(k.bytes for k in kept)
            )
            for run in models.runs()
            for kept in [list(run.checkpoints.values())]
        ]
        return Overview(
            service.url, models.name, base.source, sum(each.numel() for each in weights), base.context,
            f"{weights[0].device}, {str(weights[0].dtype).removeprefix('torch.')}", VERSION, service.front.state,
            failure_of(loop), models.journal.trouble or "", service.started, loop.sampled_tokens, queue.trained_tokens,
            loop.under_way, loop.waiting, queue.waiting, len(service.promises), len(models.sessions),
            tuple(sorted(rows, key=lambda row: -row.last)), models.engine.limits.adapters, service.checkpoint_bytes,
            loop.models.aliases(), ProcessUse.now(), service.front.counts, service.front.rates,
        )  # fmt: skip


def failure_of(loop: SamplingLoop) -> str:
    """Say why a service does nothing any more; empty where it does."""
    return "the engine's thread has ended" if loop.ended else ""


def _steps(models: TinkerModels, id: str) -> int | None:
    try:
        return models.engine.info(id).step
    except EngineError:
        return None
