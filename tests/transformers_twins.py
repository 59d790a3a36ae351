"""Models of transformers, and of peft, with the weights of ours: for tests that compare the two."""

from dataclasses import replace

import pytest
import torch

from model.causal_lm import CausalLM, DecoderShape, RopeScaling
from model.lora import LoraAdapter

T0 = DecoderShape(vocabulary=261, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_width=64, context=128)
TWINS = (
    "llama", "llama, tied", "llama, biases, llama3 positions", "llama, linear positions", "mistral, window", "qwen2",
    "qwen3",
)  # fmt: skip
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def sizes_of(shape: DecoderShape) -> dict:
    return dict(
        vocab_size=shape.vocabulary, hidden_size=shape.width, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim,
        intermediate_size=shape.mlp_width, max_position_embeddings=shape.context, rms_norm_eps=shape.norm_eps,
        tie_word_embeddings=shape.tied,
    )  # fmt: skip


def twins(name: str):
    """A model of transformers and ours with its weights."""
    transformers = pytest.importorskip("transformers")
    rope = {"rope_type": "default", "rope_theta": 500.0}
    extra, shape = {}, replace(T0, rope_theta=500.0)
    if name == "llama, tied":
        shape = replace(shape, tied=True)
    elif name == "llama, biases, llama3 positions":
        scaling = RopeScaling("llama3", 4.0, 1.0, 4.0, 32)
        shape = replace(shape, attention_bias=True, output_bias=True, mlp_bias=True, rope_scaling=scaling)
        extra = dict(attention_bias=True, mlp_bias=True)
        rope |= dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                     original_max_position_embeddings=32)  # fmt: skip
    elif name == "llama, linear positions":
        shape = replace(shape, rope_scaling=RopeScaling("linear", 2.0))
        rope |= dict(rope_type="linear", factor=2.0)
    elif name == "mistral, window":
        shape, extra = replace(shape, window=7), dict(sliding_window=7)
    elif name == "qwen2":
        shape = replace(shape, attention_bias=True)
    elif name == "qwen3":
        shape = replace(shape, qk_norm=True)
    family = {"l": "Llama", "m": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
    family = family.get(name) or family[name[0]]
    config = getattr(transformers, f"{family}Config")(**sizes_of(shape), rope_parameters=rope, **extra)
    theirs = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    ours = CausalLM(shape)
    ours.draw(0, std=0.2)
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.dim() == 1:  # biases and norms that differ
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.3)
    state = ours.state_dict() | ({"lm_head.weight": ours.unembedding()} if shape.tied else {})
    theirs.load_state_dict(state)
    return theirs, ours


def with_peft(theirs, adapter: LoraAdapter):
    """Return a model of transformers with an adapter of ours, of the attention and the feed-forward part, by peft."""
    peft = pytest.importorskip("peft")
    part = adapter.parts()[0]
    config = peft.LoraConfig(
        r=part.rank, lora_alpha=part.alpha, use_rslora=part.rslora, target_modules=list(PROJECTIONS)
    )
    twin = peft.get_peft_model(theirs, config)
    right = dict(twin.named_parameters())
    with torch.no_grad():
        for part, a, b in adapter.tensors():
            right[peft_name(part.site.name, "A")].copy_(a)
            right[peft_name(part.site.name, "B")].copy_(b)
    return twin


def peft_name(site: str, side: str) -> str:
    """Return how peft names the tensor A or B of a layer."""
    return f"base_model.model.{site}.lora_{side}.default.weight"


def fill(adapter: LoraAdapter, seed: int = 0) -> None:
    """Give B numbers too, so that an adapter changes something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for b in adapter.lora_B.values():
            b.normal_(0, 0.2, generator=generator)


def assert_gradients(adapter: LoraAdapter, gradients: dict[str, torch.Tensor], twin, most: float = 1e-5) -> None:
    """Compare gradients of an adapter, by the names of its parameters, with those of peft's model, layer by layer."""
    right = {name: parameter.grad for name, parameter in twin.named_parameters()}
    for key, stack in adapter.stacks.items():
        for index, part in enumerate(stack):
            for side in "AB":
                wanted = right[peft_name(part.site.name, side)]
                found = gradients[f"lora_{side}.{key}"][index]
                assert (found - wanted).abs().max() < most, (part.site.name, side)
                assert wanted.abs().max() > 10 * most, (part.site.name, side)
