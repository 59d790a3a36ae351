"""The models that bench/language.py measures: SmolLM2-135M's shape with random weights, here and in transformers."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from llm.base_model import BaseModel
from llm.tiny_model import CHATML, byte_tokenizer
from model.causal_lm import CausalLM, DecoderShape

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

SMOLLM2 = DecoderShape(
    vocabulary=49152, width=576, layers=30, heads=9, kv_heads=3, head_dim=64, mlp_width=1536, context=2048,
    rope_theta=100000.0, tied=True,
)  # fmt: skip
SMALL = DecoderShape(
    vocabulary=512, width=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp_width=128, context=2048, tied=True
)


def missing(*names: str) -> list[str]:
    """Return those of these packages that are not installed."""
    found = []
    for name in names:
        try:
            version(name)
        except PackageNotFoundError:
            found.append(name)
    return found


def base_model(quick: bool) -> BaseModel:
    """Return the model with a tokenizer of bytes, so that text has as many tokens as is wanted.

    Args:
        quick: whether to take a tiny one, to see that it works.
    """
    model = CausalLM(SMALL if quick else SMOLLM2).draw(0).requires_grad_(False)
    return BaseModel(model, byte_tokenizer(), CHATML, model.shape.context, (257, 260), None, "bench", "bench", {})


def transformers_twin(model: CausalLM) -> "LlamaForCausalLM":
    """Return transformers' model of the same weights."""
    import transformers

    shape = model.shape
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.width, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim,
        intermediate_size=shape.mlp_width, max_position_embeddings=shape.context, rms_norm_eps=shape.norm_eps,
        tie_word_embeddings=shape.tied, rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    theirs.load_state_dict(state | ({"lm_head.weight": model.unembedding().clone()} if shape.tied else {}))
    theirs.generation_config.eos_token_id = None
    return theirs
