"""What tests of the service share: a sampler of the tiny model."""

from llm import base_model
from llm.sampling import Sampler, SamplerLimits
from service.served_models import ServedModel, ServedModels


def tiny_sampler(rows: int = 64) -> Sampler:
    """Return a sampler of the tiny model with random weights."""
    return Sampler(base_model.load("tiny"), limits=SamplerLimits(rows=rows))


def tiny_models() -> ServedModels:
    """Return the name under which tests ask for it."""
    return ServedModels(ServedModel("tiny", version="v0"))
