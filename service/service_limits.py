"""What a service takes at a time, of all its parts together."""

from dataclasses import dataclass, field

from config.service_config import ServiceConfig
from llm.engine import EngineLimits
from llm.sampling import SamplerLimits
from service.openai.openai_app import AppLimits
from service.tinker.tinker_endpoint import TinkerLimits
from service.web.front import FrontRules

_OPENAI_BODY = 16 * 2**20  # a text of a few contexts is far shorter


@dataclass(frozen=True)
class ServiceLimits:
    """What a service takes.

    Attributes:
        engine: adapters, ranks, rows and tokens of training requests.
        sampler: samples at a time.
        tinker: bodies, held questions.
        openai: bodies.
        waiting: requests that wait for the model.
        checkpoint_bytes: room for checkpoints; 0 for no limit.
        gap_seconds: how long a model waits for a request that is missing in its order.
        answer_seconds: how long the answer of a promise is kept that was read.
    """

    engine: EngineLimits = field(default_factory=EngineLimits)
    sampler: SamplerLimits = field(default_factory=SamplerLimits)
    tinker: TinkerLimits = field(default_factory=TinkerLimits)
    openai: AppLimits = field(default_factory=AppLimits)
    waiting: int = 4096
    checkpoint_bytes: int = 0
    gap_seconds: float = 60.0
    answer_seconds: float = 300.0

    @staticmethod
    def of(config: ServiceConfig) -> "ServiceLimits":
        """Return the limits that settings name."""
        body = int(config.body_mb * 2**20)
        return ServiceLimits(
            EngineLimits(config.adapters, config.rank_max, config.rows_max, config.tokens_max),
            SamplerLimits(config.sampled_rows, prefix_bytes=int(config.prefix_mb * 2**20)),
            TinkerLimits(body=body, samples=config.waiting_max), AppLimits(body=min(body, _OPENAI_BODY)),
            config.waiting_max, int(config.checkpoints_gb * 1e9), answer_seconds=config.answer_seconds,
        )  # fmt: skip


def rules_of(config: ServiceConfig, local: bool) -> FrontRules:
    """Return who may call, by the settings; `local` says whether only this machine reaches the service."""
    return FrontRules(
        config.api_key or None, local, tuple(each.rstrip("/") for each in config.origins), config.waiting_max,
        config.client_seconds,
    )  # fmt: skip
