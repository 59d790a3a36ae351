"""Hugging Face's config.json of the Llama family as the sizes of our decoder, and back."""

from collections.abc import Mapping
from typing import Any

from model.causal_lm import DecoderShape, RopeScaling

OURS = ("llama", "mistral", "qwen2", "qwen3")
_ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
                  "qwen3": "Qwen3ForCausalLM"}  # fmt: skip


def shape_of(config: Mapping[str, Any]) -> DecoderShape | str:
    """Return the sizes of our decoder for a config.json.

    Args:
        config: what config.json holds.

    Returns:
        The sizes, or in words why our decoder doesn't do this model (`llm.hub_model` may).

    Raises:
        KeyError: a size that every model has is missing.
    """
    kind = config.get("model_type")
    if kind not in OURS:
        return f"its architecture is {kind}"
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        return f"its activation is {config['hidden_act']}"
    scaling = _scaling_of(config)
    if isinstance(scaling, str):
        return scaling
    heads = config["num_attention_heads"]
    bias = bool(config.get("attention_bias", False))
    window = config.get("sliding_window")
    if kind in ("qwen2", "qwen3"):
        window = window if config.get("use_sliding_window", False) else None
        kinds = set(config.get("layer_types") or [])
        if window is not None and kinds != {"sliding_attention"}:
            return "only some of its layers have a sliding window"
    rope = config.get("rope_parameters") or {}
    return DecoderShape(
        vocabulary=config["vocab_size"],
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        mlp_width=config["intermediate_size"],
        context=config.get("max_position_embeddings", 2048),
        rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        rope_scaling=scaling,
        norm_eps=config.get("rms_norm_eps", 1e-6),
        tied=bool(config.get("tie_word_embeddings", False)),
        attention_bias=True if kind == "qwen2" else bias,
        output_bias=False if kind == "qwen2" else bias,
        mlp_bias=bool(config.get("mlp_bias", False)) and kind == "llama",
        qk_norm=kind == "qwen3",
        window=window if kind != "llama" else None,
    )


def _scaling_of(config: Mapping[str, Any]) -> RopeScaling | str | None:
    found = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = found.get("rope_type") or found.get("type") or "default"
    if kind == "default":
        return None
    if found.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) not in (1, 1.0, None):
        return "only a part of each head is turned by positions"
    if kind == "linear":
        return RopeScaling("linear", float(found["factor"]))
    if kind == "llama3":
        original = found.get("original_max_position_embeddings", 8192)
        return RopeScaling(
            "llama3", float(found["factor"]), found["low_freq_factor"], found["high_freq_factor"], original
        )
    return f"its rotary positions are scaled by {kind}"


def config_of(shape: DecoderShape, dtype: str = "float32") -> dict[str, Any]:
    """Return the config.json with which transformers loads a model of ours.

    Args:
        shape: its sizes.
        dtype: name of the dtype its weights are saved in.

    Returns:
        What to write to config.json; ids of special tokens are not in it.

    Raises:
        ValueError: no architecture of transformers has these sizes.
    """
    if shape.qk_norm:
        kind = "qwen3"
    elif shape.window is not None:
        kind = "mistral"
    elif shape.attention_bias and not shape.output_bias:
        kind = "qwen2"
    else:
        kind = "llama"
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": shape.rope_theta}
    if shape.rope_scaling is not None:
        scaling = shape.rope_scaling
        rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            rope |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor,
                     "original_max_position_embeddings": scaling.original_context}  # fmt: skip
    config = {
        "architectures": [_ARCHITECTURES[kind]],
        "model_type": kind,
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.mlp_width,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_parameters": rope,
        "rope_scaling": None if shape.rope_scaling is None else {k: v for k, v in rope.items() if k != "rope_theta"},
        "tie_word_embeddings": shape.tied,
        "dtype": dtype,
        "torch_dtype": dtype,  # versions before 5
        "use_cache": True,
    }
    if kind in ("llama", "qwen3"):
        config["attention_bias"] = shape.attention_bias
    if kind == "llama":
        config["mlp_bias"] = shape.mlp_bias
    if kind == "mistral":
        config["sliding_window"] = shape.window
    if shape_of(config) != shape:
        raise ValueError(f"no architecture that transformers knows has the sizes {shape}")
    return config
