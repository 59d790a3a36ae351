"""Any causal language model of transformers behind the two methods of our decoder: slower, row by row, and right."""

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llm.model_error import ModelError
from model.lora import AdapterRows, LinearSite
from model.packed_attention import PackedRows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class HubPrefix:
    """What several rows begin with: never changed.

    Attributes:
        length: number of its tokens.
        past: what transformers keeps of them.
    """

    length: int
    past: Any

    def cut(self, length: int) -> "HubPrefix":
        """Return a copy of its first `length` tokens."""
        if length == self.length:
            return self
        past = copy.deepcopy(self.past)
        past.crop(length - self.length)  # by how many tokens less
        return HubPrefix(length, past)

    def nbytes(self) -> int:
        """Return the memory it takes, where it is keys and values."""
        held = (getattr(layer, name, None) for layer in getattr(self.past, "layers", ()) for name in ("keys", "values"))
        return sum(tensor.nbytes for tensor in held if isinstance(tensor, Tensor))


class HubCache:
    """What transformers keeps of each row, by slots; the same methods as `model.key_value_cache.KeyValueCache`.

    Args:
        config: config of the model.
        device: where the model is.
    """

    def __init__(self, config: Any, device: torch.device) -> None:
        self._config, self._device = config, device
        self._pasts: dict[int, Any] = {}
        self._lengths: dict[int, int] = {}
        self._next = 0

    @property
    def slots(self) -> tuple[int, ...]:
        """Slots in use."""
        return tuple(self._pasts)

    def length(self, slot: int) -> int:
        """Return the tokens that a slot holds."""
        return self._lengths[slot]

    def take(self, prefix: HubPrefix | None = None) -> int:
        """Begin a row, perhaps with a prefix, which is copied; returns its slot."""
        from transformers import DynamicCache

        slot, self._next = self._next, self._next + 1
        self._pasts[slot] = copy.deepcopy(prefix.past) if prefix else DynamicCache(config=self._config)
        self._lengths[slot] = prefix.length if prefix else 0
        return slot

    def take_copy(self, prefix: HubPrefix) -> int:
        """Begin a row with a copy of a prefix; returns its slot."""
        return self.take(prefix)

    def fork(self, slot: int) -> int:
        """Begin a row that holds what another one holds; returns its slot."""
        return self.take(self.share(slot))

    def arrange(self, slots: Sequence[int]) -> None:
        """Rows lie anywhere: nothing is to be done."""

    def own_length(self, slot: int) -> int:
        """Return the tokens that a slot holds in its own memory: all."""
        return self._lengths[slot]

    def prefix(self, slot: int) -> None:
        """Prefixes are copied: no slot refers to one."""

    def free(self, slot: int) -> None:
        """End a row."""
        del self._pasts[slot], self._lengths[slot]

    def share(self, slot: int, length: int | None = None) -> HubPrefix:
        """Copy what a slot holds, or its first `length` tokens, for other rows to begin with."""
        past = copy.deepcopy(self._pasts[slot])
        length = self._lengths[slot] if length is None else length
        if length < self._lengths[slot]:
            past.crop(length - self._lengths[slot])  # by how many tokens less
        return HubPrefix(length, past)

    def rows(self, slots: Sequence[int], lengths: Sequence[int]) -> PackedRows:
        """Lay out the next tokens of some slots."""
        return PackedRows.of(lengths, [self._lengths[slot] for slot in slots], slots, self._device)

    def past(self, slot: int) -> Any:
        """Return what transformers keeps of a slot."""
        return self._pasts[slot]

    def advance(self, slot: int, length: int) -> None:
        """Count new tokens of a slot."""
        self._lengths[slot] += length


class HubCausalLM(nn.Module):
    """A causal language model of transformers with `hidden` and `logits` as `model.causal_lm.CausalLM` has them.

    Args:
        inner: the model.

    Raises:
        ModelError: its logits are not a linear function of its last hidden states.
    """

    def __init__(self, inner: "PreTrainedModel") -> None:
        super().__init__()
        self.inner = inner.eval()
        self.context = int(getattr(inner.config.get_text_config(), "max_position_embeddings", 0) or 2048)
        self._head = inner.get_output_embeddings()
        self._factors: dict[str, tuple[Tensor, Tensor, float]] = {}
        known = inspect.signature(inner.base_model.forward).parameters
        self._past_name = "cache" if "cache" in known else "past_key_values"  # by the version of transformers
        names = {module: name for name, module in inner.named_modules()}
        if self._head is None:
            raise ModelError(f"{type(inner).__name__} has no unembedding that adapters and losses could use")
        self._head_name = names[self._head]
        for module, name in names.items():
            if _sizes(module) is not None:
                module.register_forward_hook(self._hook(name))
        self._check()

    def linear_sites(self) -> list[LinearSite]:
        """Return the linear layers that adapters may change, in the order of the model."""
        sites = []
        for name, module in self.inner.named_modules():
            sizes = _sizes(module)
            target = "unembedding" if module is self._head else _target_of(name)
            if sizes is not None and target is not None:
                sites.append(LinearSite(name, target, *sizes))
        return sites

    def site_weight(self, name: str) -> Tensor:
        """Return the weight (outputs, inputs) of one of these layers, by its name; writing to it changes the model."""
        weight = self.inner.get_parameter(f"{name}.weight")
        return weight.t() if _is_transposed(self.inner.get_submodule(name)) else weight

    def hidden(
        self, tokens: Tensor, rows: PackedRows, adapters: AdapterRows | None = None, cache: HubCache | None = None
    ) -> Tensor:
        """Return the hidden states (T, width) of rows of tokens; see `CausalLM.hidden`."""
        if tokens.shape != rows.positions.shape:
            raise ValueError(f"{tuple(tokens.shape)} tokens for rows of {sum(rows.lengths)} tokens")
        done = []
        parts = zip(tokens.split(list(rows.lengths)), rows.positions.split(list(rows.lengths)), strict=True)
        for row, (ids, positions) in enumerate(parts):
            past = cache.past(rows.slots[row]) if cache is not None else None
            with self._adapted(_factors_of(adapters, row)):
                out = self.inner.base_model(
                    input_ids=ids[None], position_ids=positions[None], use_cache=past is not None,
                    **{self._past_name: past},
                )  # fmt: skip
            if cache is not None:
                cache.advance(rows.slots[row], rows.lengths[row])
            done.append(out.last_hidden_state[0])
        return torch.cat(done)

    def logits(self, hidden: Tensor, adapters: AdapterRows | None = None) -> Tensor:
        """Return the logits (N, vocabulary) of hidden states; see `CausalLM.logits`."""
        if adapters is None:
            return self._head(hidden)
        done = []
        for row, states in enumerate(hidden.split(list(adapters.lengths))):
            with self._adapted(_factors_of(adapters, row)):
                done.append(self._head(states))
        return torch.cat(done)

    def new_cache(self, slots: int = 8, capacity: int = 256) -> HubCache:
        """Return an empty cache; it grows as it needs."""
        return HubCache(self.inner.config, self.inner.device)

    @contextmanager
    def _adapted(self, factors: dict[str, tuple[Tensor, Tensor, float]]) -> Iterator[None]:
        before, self._factors = self._factors, factors
        try:
            yield
        finally:
            self._factors = before

    def _hook(self, name: str) -> Any:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            found = self._factors.get(name)
            if found is None:
                return None
            a, b, scale = found
            return output + (inputs[0].float() @ a.t() @ b.t() * scale).to(output.dtype)

        return add

    @torch.no_grad()
    def _check(self) -> None:
        """Compare with transformers' own logits: some models scale or cap them after the unembedding."""
        if next(self.inner.parameters()).device.type == "meta":
            return
        tokens = torch.arange(3, device=self.inner.device)
        wanted = self.inner(input_ids=tokens[None], use_cache=False).logits[0].float()
        found = self.logits(self.hidden(tokens, PackedRows.of([3], device=tokens.device))).float()
        if (found - wanted).abs().max() > 1e-3 * (1 + wanted.abs().max()):
            raise ModelError(
                f"{type(self.inner).__name__} changes its logits after the unembedding (scales or caps them), which "
                "is not supported"
            )


def _factors_of(adapters: AdapterRows | None, row: int) -> dict[str, tuple[Tensor, Tensor, float]]:
    adapter = adapters.adapters[row] if adapters is not None else None
    return adapter.factors() if adapter is not None else {}


def _sizes(module: nn.Module) -> tuple[int, int] | None:
    """Return inputs and outputs of a linear layer; None for other modules."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if _is_transposed(module):
        weight = module.get_parameter("weight")
        return weight.shape[0], weight.shape[1]
    return None


def _is_transposed(module: nn.Module) -> bool:
    """Whether a module is GPT-2's kind of linear layer, whose weight lies the other way."""
    return type(module).__name__ == "Conv1D"


def _target_of(name: str) -> str | None:
    if any(part in name for part in ("attn", "attention")):
        return "attention"
    return "mlp" if any(part in name for part in ("mlp", "ffn", "feed_forward", "fc", "dense")) else None
