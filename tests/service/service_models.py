"""What tests of the service share: small models, among them some that say what they are told to, served on a port."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from data.chat_renderer import Renderer
from llm import base_model
from llm.base_model import BaseModel
from llm.sampling import Sampler, SamplerLimits
from llm.sampling_settings import SamplingSettings
from llm.tiny_model import CHATML, TOOLS_CHATML, byte_tokenizer
from model.causal_lm import CausalLM, DecoderShape
from service.openai.aliases import Aliases
from service.openai.openai_app import AppLimits, openai_app
from service.sampling.exchange import ExchangeLog
from service.sampling.sampling_loop import SamplingLoop
from service.sampling.schedules import Schedule
from service.sampling.served_models import ServedModel, ServedModels
from service.web.loopback_server import LoopbackServer

END = 260  # <|im_end|>
TOOLS = TOOLS_CHATML


def tiny_sampler(rows: int = 64) -> Sampler:
    """Return a sampler of the tiny model with random weights."""
    return Sampler(base_model.load("tiny"), limits=SamplerLimits(rows=rows))


def tiny_models() -> ServedModels:
    """Return the name under which tests ask for it."""
    return ServedModels(ServedModel("tiny", version="v0"))


def scripted(*parts: str | bytes, template: str = CHATML, end: int = END) -> BaseModel:
    """Return a model that says one thing whatever it is asked, and then ends.

    Args:
        parts: what it says; bytes are a token each and must all differ, each text is a token of its own.
        template: chat template.
        end: id by which it ends.
    """
    tokenizer = byte_tokenizer(template)
    texts = list(dict.fromkeys(part for part in parts if isinstance(part, str)))
    tokenizer.add_tokens(texts)
    says: list[int] = []
    for part in parts:
        says += [tokenizer.convert_tokens_to_ids(part)] if isinstance(part, str) else list(part)
    size = 261 + len(texts)
    shape = DecoderShape(
        vocabulary=size, width=size, layers=1, heads=1, kv_heads=1, head_dim=2, mlp_width=2, context=2048
    )
    model = CausalLM(replace(shape)).draw(0)
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.zero_()
        for before, after in zip([ord("\n"), *says], [*says, end], strict=True):
            model.lm_head.weight[after, before] = 40.0
    return BaseModel(model, tokenizer, template, 2048, (257, 260), None, "script", "script", {})


@dataclass
class Served:
    """A service on a port.

    Attributes:
        url: where it is.
        loop: what samples.
        log: what records.
    """

    url: str
    loop: SamplingLoop
    log: ExchangeLog

    def client(self, key: str = "somebody", **options):
        """Return OpenAI's client; it tries nothing twice."""
        import openai

        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60, **options)


@contextmanager
def serving(
    base: BaseModel | None = None,
    schedule: Schedule | None = None,
    log: ExchangeLog | None = None,
    rows: int = 64,
    defaults: SamplingSettings | None = None,
    limits: AppLimits | None = None,
    names: Sequence[str] = ("tiny",),
    aliases: Path | None = None,
) -> Iterator[Served]:
    """Serve a model; None for the tiny one. With a file for them, names may be pointed at models."""
    base = base or base_model.load("tiny")
    sampler = Sampler(base, limits=SamplerLimits(rows=rows))
    models = ServedModels(*(ServedModel(name, version=f"version of {name}") for name in names))
    loop = SamplingLoop(sampler, models, schedule)
    log = log or ExchangeLog(only_open=False)
    renderer = Renderer(base.tokenizer, base.template, base.end_ids)
    pointed = None if aliases is None else Aliases(models, aliases)
    with LoopbackServer(openai_app(loop, renderer, log, defaults, limits, pointed)) as server, loop:
        yield Served(server.url, loop, log)
