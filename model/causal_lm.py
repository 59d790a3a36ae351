"""Decoder-only language models of the Llama family (llama, mistral, qwen2, qwen3) over rows without padding.

Rows of tokens lie end to end and never see each other. Logits are made apart from the hidden states, only where they
are asked for: with a large vocabulary they cost more than the model. Parameters are named as Hugging Face names them,
so that its state dicts load as they are.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from model.attention_weights import AttentionWeights
from model.decoder_operations import gated, rms_norm, turn
from model.key_value_cache import CacheStep, KeyValueCache
from model.lora import NO_SEGMENTS, AdapterRows, LinearSite, Segments
from model.packed_attention import PackedRows, attend_rows
from model.packed_linear import FlatLinear, LinearGroup

__all__ = ["CausalLM", "DecoderShape", "KeyValueCache", "PackedRows", "RopeScaling"]


@dataclass(frozen=True)
class RopeScaling:
    """How rotary positions are stretched to a longer context.

    Attributes:
        kind: linear, or llama3 (only slow rotations are stretched).
        factor: how many times the context is longer.
        low_freq_factor: llama3: rotations slower than original_context / low_freq_factor are stretched in full.
        high_freq_factor: llama3: rotations faster than original_context / high_freq_factor are left alone.
        original_context: llama3: context the model was first trained with.
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a `CausalLM`.

    Attributes:
        vocabulary: number of token ids.
        width: numbers of a hidden token.
        layers: number of layers.
        heads: query heads of each layer.
        kv_heads: key and value heads, which groups of query heads share.
        head_dim: numbers of a head.
        mlp_width: hidden numbers of the feed-forward part.
        context: tokens of the longest row the model is meant for.
        rope_theta: base of the rotary positions.
        rope_scaling: how they are stretched; None for not at all.
        norm_eps: added to the mean square in norms.
        tied: whether the unembedding is the embedding.
        attention_bias: whether query, key and value have biases.
        output_bias: whether the attention's output has a bias.
        mlp_bias: whether the feed-forward layers have biases.
        qk_norm: whether queries and keys are normed head by head (qwen3).
        window: tokens that a token sees, itself included; None for all before it.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    context: int
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    tied: bool = False
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    window: int | None = None


class CausalLM(nn.Module):
    """A decoder-only language model; a new one holds no numbers yet: `draw` or `load_state_dict` fills it.

    Args:
        shape: its sizes.
        device: where its parameters are; "meta" for none yet.
        dtype: of its parameters.
    """

    def __init__(
        self, shape: DecoderShape, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        if shape.heads % shape.kv_heads:
            raise ValueError(f"{shape.heads} query heads can't share {shape.kv_heads} key-value heads evenly")
        self.shape = shape
        self.recompute = False  # whether layers forget in training what they can compute again
        self.model = _Decoder(shape, device, dtype)
        self.lm_head = None if shape.tied else FlatLinear(shape.width, shape.vocabulary, False, device, dtype)
        self._head = LinearGroup(lm_head=self.model.embed_tokens if self.lm_head is None else self.lm_head)

    @torch.no_grad()
    def draw(self, seed: int, std: float = 0.02) -> "CausalLM":
        """Fill the parameters with random numbers.

        Args:
            seed: seed of the numbers; the same on every device.
            std: their standard deviation; norms start at 1 and biases at 0.

        Returns:
            The model.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))
        return self

    def unembedding(self) -> Tensor:
        """Return the weight (vocabulary, width) that makes logits of hidden states."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def linear_sites(self) -> list[LinearSite]:
        """Return the linear layers that adapters may change, in the order of the model."""
        kinds = {"self_attn": "attention", "mlp": "mlp"}
        sites = [
            LinearSite(name, kinds[name.split(".")[3]], module.weight.shape[1], module.weight.shape[0])
            for name, module in self.model.named_modules(prefix="model")
            if isinstance(module, FlatLinear) and name != "model.embed_tokens"
        ]
        return [*sites, LinearSite("lm_head", "unembedding", self.shape.width, self.shape.vocabulary)]

    def site_weight(self, name: str) -> Tensor:
        """Return the weight (outputs, inputs) of one of these layers, by its name."""
        return self.unembedding() if name == "lm_head" else self.get_parameter(f"{name}.weight")

    def hidden(
        self,
        tokens: Tensor,
        rows: PackedRows,
        adapters: AdapterRows | None = None,
        cache: KeyValueCache | AttentionWeights | None = None,
        states: Tensor | None = None,
    ) -> Tensor:
        """Return the hidden states of rows of tokens, after the last norm.

        Args:
            tokens: (T,) int64, rows end to end.
            rows: where each row begins and what the cache holds of it.
            adapters: the adapter of each row; None for the model as it is.
            cache: keys and values of the tokens before these, which get those of these, or what watches the attention
                of one row; None in training.
            states: (T, width) what the first layer gets in place of the tokens' embeddings; None for these.

        Returns:
            (T, width) in the model's dtype.
        """
        if tokens.shape != rows.positions.shape:
            raise ValueError(f"{tuple(tokens.shape)} tokens for rows of {sum(rows.lengths)} tokens")
        segments = NO_SEGMENTS if adapters is None else adapters.segments()
        if adapters is not None and adapters.lengths != rows.lengths:
            raise ValueError(f"adapters are of rows of {adapters.lengths} tokens, the batch has {rows.lengths}")
        step = None if cache is None else cache.begin(rows)
        if states is None:
            states = functional.embedding(tokens, self.model.embed_tokens.weight)
        turns = self._turns(rows.positions, states.dtype)
        recompute = self.recompute and torch.is_grad_enabled() and step is None
        for index, layer in enumerate(self.model.layers):
            name = f"model.layers.{index}."
            if recompute:
                states = checkpoint(layer, states, name, rows, turns, segments, use_reentrant=False)
            else:
                states = layer(states, name, rows, turns, segments, index, step)
        if step is not None:
            step.end()
        return self.model.norm(states)

    def logits(self, hidden: Tensor, adapters: AdapterRows | None = None) -> Tensor:
        """Return the logits of the next token.

        Args:
            hidden: (N, width), hidden states of any tokens.
            adapters: the adapter of each row, its lengths counting the tokens in `hidden`; None for the model as it is.

        Returns:
            (N, vocabulary) in the model's dtype.
        """
        segments = NO_SEGMENTS if adapters is None else adapters.segments()
        return self._head(hidden, "", segments)[0]

    def new_cache(self, slots: int = 8, capacity: int = 256) -> KeyValueCache:
        """Return an empty cache for rows of this model.

        Args:
            slots: rows there is room for at first.
            capacity: tokens of a row there is room for at first.

        Returns:
            The cache.
        """
        weight = self.model.embed_tokens.weight
        shape = self.shape
        return KeyValueCache(shape.layers, shape.kv_heads, shape.head_dim, slots, capacity, weight.device, weight.dtype)

    def pack_weights(self) -> int:
        """Keep frozen weights a second time, in the order in which few rows are multiplied fastest: to sample on CPUs.

        At 8 to 64 rows without gradients this is 1.3 to 2 times as fast; results differ by rounding. The copy is let go
        where weights change.

        Returns:
            Bytes that the copy takes; 0 where there is no use for it, such as on GPUs.
        """
        return sum(group.pack() for group in self._groups())

    def unpack_weights(self) -> None:
        """Let the copy of `pack_weights` go, before something that needs the memory."""
        for group in self._groups():
            group.unpack()

    def _groups(self) -> list[LinearGroup]:
        groups = [self._head]
        for layer in self.model.layers:
            groups += [*layer.self_attn.groups(), *layer.mlp.groups()]
        return groups

    def recomputable_layers(self) -> list[nn.Module]:
        """Return the layers whose activations may be computed again in backward (`recompute_activations = on`)."""
        return list(self.model.layers)

    def _turns(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return cosines and sines (T, 1, head_dim / 2) of the rotary positions."""
        shape = self.shape
        powers = torch.arange(0, shape.head_dim, 2, dtype=torch.float32, device=positions.device) / shape.head_dim
        speeds = 1.0 / shape.rope_theta**powers
        if shape.rope_scaling is not None:
            speeds = _scaled_speeds(speeds, shape.rope_scaling)
        angles = positions[:, None, None].float() * speeds
        return angles.cos().to(dtype), angles.sin().to(dtype)


def _scaled_speeds(speeds: Tensor, scaling: RopeScaling) -> Tensor:
    if scaling.kind == "linear":
        return speeds / scaling.factor
    if scaling.kind != "llama3":
        raise ValueError(f"rope scaling {scaling.kind!r} is not known; known: linear, llama3")
    lengths = 2 * math.pi / speeds
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    share = ((scaling.original_context / lengths - low) / (high - low)).clamp(0, 1)
    return speeds * (share + (1 - share) / scaling.factor)


class _Norm(nn.Module):
    def __init__(self, width: int, eps: float, device: torch.device | str | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, device=device, dtype=dtype))
        self.eps = eps

    def forward(self, states: Tensor) -> Tensor:
        return rms_norm(states, self.weight, self.eps)


class _Decoder(nn.Module):
    def __init__(self, shape: DecoderShape, device: torch.device | str | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.embed_tokens = FlatLinear(shape.width, shape.vocabulary, False, device, dtype)
        self.layers = nn.ModuleList(_Layer(shape, device, dtype) for _ in range(shape.layers))
        self.norm = _Norm(shape.width, shape.norm_eps, device, dtype)


class _Layer(nn.Module):
    """Attention and feed-forward, each with its norm before it and its sum after it."""

    def __init__(self, shape: DecoderShape, device: torch.device | str | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.self_attn = _Attention(shape, device, dtype)
        self.mlp = _FeedForward(shape, device, dtype)
        self.input_layernorm = _Norm(shape.width, shape.norm_eps, device, dtype)
        self.post_attention_layernorm = _Norm(shape.width, shape.norm_eps, device, dtype)

    def forward(
        self,
        states: Tensor,
        name: str,
        rows: PackedRows,
        turns: tuple[Tensor, Tensor],
        segments: Segments,
        index: int = 0,
        step: CacheStep | AttentionWeights | None = None,
    ) -> Tensor:
        attended = self.self_attn(self.input_layernorm(states), name + "self_attn.", rows, turns, segments, index, step)
        states = states + attended
        return states + self.mlp(self.post_attention_layernorm(states), name + "mlp.", segments)


class _Attention(nn.Module):
    def __init__(self, shape: DecoderShape, device: torch.device | str | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.shape = shape
        inner, outer = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = FlatLinear(shape.width, inner, shape.attention_bias, device, dtype)
        self.k_proj = FlatLinear(shape.width, outer, shape.attention_bias, device, dtype)
        self.v_proj = FlatLinear(shape.width, outer, shape.attention_bias, device, dtype)
        self.o_proj = FlatLinear(inner, shape.width, shape.output_bias, device, dtype)
        self._inward = LinearGroup(q_proj=self.q_proj, k_proj=self.k_proj, v_proj=self.v_proj)
        self._outward = LinearGroup(o_proj=self.o_proj)
        if shape.qk_norm:
            self.q_norm = _Norm(shape.head_dim, shape.norm_eps, device, dtype)
            self.k_norm = _Norm(shape.head_dim, shape.norm_eps, device, dtype)

    def groups(self) -> list[LinearGroup]:
        """Return the layers in groups that share their input."""
        return [self._inward, self._outward]

    def forward(
        self,
        states: Tensor,
        name: str,
        rows: PackedRows,
        turns: tuple[Tensor, Tensor],
        segments: Segments,
        index: int,
        step: CacheStep | AttentionWeights | None,
    ) -> Tensor:
        shape = self.shape
        queries, keys, values = (out.unflatten(1, (-1, shape.head_dim)) for out in self._inward(states, name, segments))
        if shape.qk_norm:
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        queries, keys = turn(queries, keys, *turns)
        if step is None:
            attended = attend_rows(queries, keys, values, rows.lengths, shape.window)
        else:
            attended = step.attend(index, queries, keys, values, shape.window)
        return self._outward(attended.flatten(1), name, segments)[0]


class _FeedForward(nn.Module):
    def __init__(self, shape: DecoderShape, device: torch.device | str | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.gate_proj = FlatLinear(shape.width, shape.mlp_width, shape.mlp_bias, device, dtype)
        self.up_proj = FlatLinear(shape.width, shape.mlp_width, shape.mlp_bias, device, dtype)
        self.down_proj = FlatLinear(shape.mlp_width, shape.width, shape.mlp_bias, device, dtype)
        self._inward = LinearGroup(gate_proj=self.gate_proj, up_proj=self.up_proj)
        self._outward = LinearGroup(down_proj=self.down_proj)

    def groups(self) -> list[LinearGroup]:
        """Return the layers in groups that share their input."""
        return [self._inward, self._outward]

    def forward(self, states: Tensor, name: str, segments: Segments) -> Tensor:
        gate, up = self._inward(states, name, segments)
        return self._outward(gated(gate, up), name, segments)[0]
