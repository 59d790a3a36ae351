"""The weights that rollouts are sampled from."""

from dataclasses import dataclass

from data.chat_renderer import Renderer
from llm.base_model import BaseModel
from llm.sampling import Sampler, sampler_of
from model.lora import LoraAdapter
from service.sampling.served_models import ServedModel, ServedModels

POLICY = "policy"


@dataclass(frozen=True)
class SampledPolicy:
    """Weights at one moment. Whoever has it sees to it that they stay as they are while they are sampled from.

    Attributes:
        base: the model.
        renderer: the one way from conversations to its tokens.
        adapter: its adapter; None for the model as it is.
        version: id of these weights, which no others ever have.
    """

    base: BaseModel
    renderer: Renderer
    adapter: LoraAdapter | None
    version: str

    def sampler(self) -> Sampler:
        """Return a sampler that knows nothing yet, so that it gives the same bits each time."""
        return sampler_of(self.base, self.adapter, POLICY, pack=self.adapter is not None)

    def served(self) -> ServedModels:
        """Return what serves it under every name: agents may ask for any model."""
        return _AnyName(ServedModel(POLICY, self.version, None if self.adapter is None else POLICY))


class _AnyName(ServedModels):
    def __init__(self, model: ServedModel) -> None:
        super().__init__(model)
        self._only = model

    def find(self, name: str) -> ServedModel:
        """Return the one model."""
        return self._only
