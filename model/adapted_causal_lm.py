"""A frozen language model with an adapter that is trained, as one module whose state is the adapter's alone."""

from typing import Generic, Protocol, TypeVar

from torch import Tensor, nn

from model.causal_lm import CausalLM
from model.lora import AdapterRows, LoraAdapter
from model.packed_attention import PackedRows
from model.target_logprobs import target_logprobs

T = TypeVar("T")


class OutsideOfState(Generic[T]):
    """Holds what belongs to a trainer or a module and yet to no checkpoint: a frozen model, which its digest names.

    Whoever goes through the attributes of objects for modules and other state does not see into it.

    Args:
        held: what is held.
    """

    __slots__ = ("held",)

    def __init__(self, held: T) -> None:
        self.held = held


class LanguageModel(Protocol):
    """A model that `CausalLM` is one of."""

    def hidden(self, tokens: Tensor, rows: PackedRows, adapters: AdapterRows | None = None) -> Tensor:
        """Return the hidden states (T, width) of rows of tokens."""

    def logits(self, hidden: Tensor, adapters: AdapterRows | None = None) -> Tensor:
        """Return the logits (N, vocabulary) of hidden states (N, width)."""

    def requires_grad_(self, requires_grad: bool = True) -> object:
        """Freeze the weights, or let them be trained."""


def logprobs_where(
    model: LanguageModel,
    tokens: Tensor,
    rows: PackedRows,
    targets: Tensor,
    chosen: Tensor,
    adapter: LoraAdapter | None = None,
) -> Tensor:
    """Return the log-probabilities of targets at chosen tokens; logits are made for these alone.

    Args:
        model: the model.
        tokens: (T,) int64, rows end to end.
        rows: where each row begins.
        targets: (N,) or (N, K) int64, what follows each chosen token.
        chosen: (N,) int64, numbers of the chosen tokens in the batch, in their order.
        adapter: adapter of all rows; None for the model as it is.

    Returns:
        float32 of the shape of `targets`.
    """
    count = len(rows.lengths)
    adapters = None if adapter is None else AdapterRows((adapter,) * count, rows.lengths)
    hidden = model.hidden(tokens, rows, adapters)
    of_chosen = None if adapter is None else AdapterRows((adapter,), (len(chosen),))
    return target_logprobs(model, hidden.index_select(0, chosen), targets, of_chosen)


class AdaptedCausalLM(nn.Module):
    """A frozen model and its adapter. Parameters, state dict and device moves are the adapter's.

    Args:
        base: the model, on the device where it is to compute; its weights lose their gradients.
        adapter: the adapter.
    """

    def __init__(self, base: LanguageModel, adapter: LoraAdapter) -> None:
        super().__init__()
        base.requires_grad_(False)
        self._base = OutsideOfState(base)
        self.adapter = adapter

    @property
    def base(self) -> LanguageModel:
        """The frozen model."""
        return self._base.held

    def forward(self, tokens: Tensor, rows: PackedRows, targets: Tensor, chosen: Tensor) -> Tensor:
        """Return the log-probabilities of targets at chosen tokens; see `logprobs_where`."""
        return logprobs_where(self.base, tokens, rows, targets, chosen, self.adapter)

    def recomputable_layers(self) -> list[nn.Module]:
        """Let the frozen model's layers compute their activations again in backward (`recompute_activations = on`).

        Returns:
            Nothing: they do it by themselves, as a frozen layer's own call can't know that it is trained through.
        """
        if not isinstance(self.base, CausalLM):
            raise ValueError(f"{type(self.base).__name__} has no layers whose activations may be computed again")
        self.base.recompute = True
        return []
