"""GGUF files: every layout against transformers and gguf-py, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.chat_renderer import Renderer
from llm.base_model import load
from llm.gguf_file import GgufFile, tokenizer_of
from llm.model_error import ModelError
from llm.tiny_model import byte_tokenizer
from model.causal_lm import CausalLM, DecoderShape, PackedRows, RopeScaling

gguf = pytest.importorskip("gguf")
pytest.importorskip("transformers")

T0 = DecoderShape(
    vocabulary=261, width=256, layers=2, heads=4, kv_heads=2, head_dim=64, mlp_width=512, context=64, rope_theta=500.0
)  # wide enough for blocks of 256 numbers
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
}  # fmt: skip


def gguf_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        _, _, layer, rest = stem.split(".", 3)
        return f"blk.{layer}.{NAMES[rest]}.{kind}"
    return f"{NAMES[stem]}.{kind}"


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as llama.cpp's converter writes them."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write(path, model: CausalLM, kind="F32", architecture="llama", extra=(), leave_out=(), tokenizer=True,
          **metadata) -> dict:  # fmt: skip
    """Write a model as llama.cpp's converter does; returns the tensors as gguf-py reads them back, by our names."""
    shape, writer = model.shape, gguf.GGUFWriter(path, architecture)
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.mlp_width)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_string("general.license", "mit")
    if tokenizer:
        bytes_of = byte_tokenizer()
        texts = sorted(bytes_of.get_vocab(), key=bytes_of.get_vocab().get)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(texts)
        writer.add_token_types([1] * 256 + [3] * 5)
        writer.add_token_merges([])
        writer.add_eos_token_id(257)
        writer.add_chat_template(bytes_of.chat_template)
    for key, value in metadata.items():
        key = key.replace("__", ".")
        for kind_of, add in ((bool, writer.add_bool), (int, writer.add_uint32), (float, writer.add_float32),
                             (str, writer.add_string), (list, writer.add_array)):  # fmt: skip
            if isinstance(value, kind_of):
                writer.kv_data[0].pop(key, None)
                add(key, value)
                break
    back = {}
    for name, tensor in [*model.state_dict().items(), *extra]:
        if name in leave_out:
            continue
        values = tensor.numpy()
        if architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
            values = permuted(values, shape.heads if ".q_proj." in name else shape.kv_heads)
        stored = gguf_name(name) if name.startswith(("model.", "lm_head")) else name
        quant = gguf.GGMLQuantizationType[kind if values.ndim == 2 else "F32"]
        if kind == "Q4_K" and values.ndim == 2:  # gguf-py reads it but doesn't write it: any bytes will do
            generator = np.random.default_rng(len(back))
            block, size = gguf.GGML_QUANT_SIZES[quant]
            data = generator.integers(0, 256, (*values.shape[:-1], values.shape[-1] // block, size), dtype=np.uint8)
            data[..., :4] = np.array([0.01, 0.02], np.float16).view(np.uint8)  # the scales of a block
            data = data.reshape(values.shape[0], -1)
            writer.add_tensor(stored, data, raw_dtype=quant)
        else:
            data = gguf.quantize(values, quant)
            writer.add_tensor(stored, data, raw_dtype=quant)
        back[name] = torch.from_numpy(np.array(gguf.dequantize(data, quant)).reshape(values.shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return back


def logits_of(model: CausalLM) -> torch.Tensor:
    tokens = torch.randint(0, 261, (16,), generator=torch.Generator().manual_seed(1))
    return model.logits(model.hidden(tokens, PackedRows.of([16])))


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_plain_files_give_the_models_logits(tmp_path, architecture):
    changes = {"qwen2": {"attention_bias": True}, "qwen3": {"qk_norm": True}}.get(architecture, {})
    model = CausalLM(replace(T0, **changes)).draw(0, std=0.1)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(generator=torch.Generator().manual_seed(5))
    path = tmp_path / "t0.gguf"
    write(path, model, architecture=architecture)
    base = load(str(path))
    assert base.model.shape == model.shape
    assert (logits_of(base.model) - logits_of(model)).abs().max() < 1e-5
    assert base.licence == "mit" and base.end_ids == (257, 260) and base.context == 64
    assert base.template == byte_tokenizer().chat_template
    text = "Öl 12  x<|im_end|>"
    assert base.tokenizer.encode(text, add_special_tokens=False) == [*"Öl 12  x".encode(), 260]


@torch.no_grad()
@pytest.mark.parametrize(("kind", "near"), [("F16", 0.01), ("BF16", 0.1), ("Q8_0", 0.05)])
def test_fewer_bits_are_near_and_exactly_gguf_pys(tmp_path, kind, near):
    model = CausalLM(T0).draw(0, std=0.04)
    back = write(tmp_path / "t0.gguf", model, kind)
    base = load(str(tmp_path / "t0.gguf"))
    assert (logits_of(base.model) - logits_of(model)).abs().max() < near
    plain = base.model.state_dict()
    for name, values in back.items():
        if ".q_proj." not in name and ".k_proj." not in name:
            assert torch.equal(plain[name], values), name


@torch.no_grad()
def test_q4_k_is_gguf_pys_to_the_bit(tmp_path):
    model = CausalLM(T0).draw(0)
    back = write(tmp_path / "t0.gguf", model, "Q4_K")
    plain = load(str(tmp_path / "t0.gguf")).model.state_dict()
    for name, values in back.items():
        if ".q_proj." in name or ".k_proj." in name:
            heads = T0.heads if ".q_proj." in name else T0.kv_heads
            values = values.reshape(heads, -1, 2, T0.width).swapaxes(1, 2).reshape(values.shape)
        assert torch.equal(plain[name], values), name


@torch.no_grad()
def test_without_an_unembedding_the_file_is_tied(tmp_path):
    model = CausalLM(replace(T0, tied=True)).draw(0, std=0.1)
    write(tmp_path / "t0.gguf", model)
    base = load(str(tmp_path / "t0.gguf"))
    assert base.model.shape.tied and (logits_of(base.model) - logits_of(model)).abs().max() < 1e-5


def test_what_cannot_be_read_is_named(tmp_path):
    model, path = CausalLM(T0).draw(0), tmp_path / "t0.gguf"

    def refused(words: str) -> None:
        with pytest.raises(ModelError, match=words):
            load(str(path))

    write(path, model, architecture="mamba")
    refused("architecture 'mamba'; known in GGUF files: llama, qwen2, qwen3")
    write(path, model, extra=[("blk.0.attn_sinks.weight", torch.zeros(4))])
    refused("tensor 'blk.0.attn_sinks.weight' has no place in a llama model")
    write(path, model, leave_out=["model.norm.weight", "model.layers.1.mlp.up_proj.weight"])
    refused("2 tensors of the model are missing: model.layers.1.mlp.up_proj.weight, model.norm.weight")
    write(path, model, tokenizer=False)
    refused("its tokenizer is None")
    write(path, model)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5000])
    refused("is cut off: tensor 'lm_head|is cut off: tensor 'output|is cut off: tensor 'token|is cut off")
    path.write_bytes(whole[:300])
    refused("damaged or cut off: its header")
    path.write_bytes(b"GGUF")
    refused("damaged or cut off: its header")
    path.write_bytes(b"not a model")
    refused("not a GGUF file")
    path.write_bytes(b"")
    refused("t0.gguf")
    sizes = whole.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight") + 4
    path.write_bytes(whole[: sizes + 8] + (3).to_bytes(8, "little") + whole[sizes + 16 :])
    refused(r"damaged: blk.0.attn_q.weight has the sizes \(3, 256\), which 4 heads can't share")
    place = whole.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight") + 4 + 16
    path.write_bytes(whole[:place] + (77).to_bytes(4, "little") + whole[place + 4 :])
    refused("tensor 'blk.0.attn_q.weight' has the type 77")
    path.write_bytes(whole.replace(b"gpt-2", b"xyz-9", 1))
    refused("cuts text by the rules 'xyz-9'; known in GGUF files: .*smollm")


def test_what_the_metadata_says_of_the_model_is_done_or_refused(tmp_path):
    model, path = CausalLM(T0).draw(0), tmp_path / "t0.gguf"

    def shape_with(**metadata):
        write(path, model, **metadata)
        return GgufFile.open(path).shape()

    assert shape_with(llama__attention__head_count=[4, 4], llama__feed_forward_length=[512, 512]) == T0
    stretched = replace(T0, rope_scaling=RopeScaling("linear", 2.0))
    assert shape_with(llama__rope__scale_linear=2.0) == stretched  # as older files say it
    assert shape_with(llama__rope__scaling__type="linear", llama__rope__scaling__factor=2.0) == stretched
    assert shape_with(llama__logit_scale=1.0, llama__attention__causal=True, llama__expert_count=0) == T0
    for metadata, words in (
        ({"llama__logit_scale": 0.5}, "llama.logit_scale is 0.5, which changes what the model computes"),
        ({"llama__attention__causal": False}, "llama.attention.causal is False, which changes"),
        ({"llama__expert_count": 8}, "llama.expert_count is 8, which changes"),
        ({"llama__rope__scaling__type": "yarn"}, "scaled by 'yarn'"),
        ({"llama__attention__head_count": [4, 2]}, r"head_count differs from layer to layer .\[4, 2\]"),
        ({"llama__attention__head_count": "4"}, "head_count is '4'; it must be a number"),
        ({"llama__attention__head_count_kv": 3}, "4 query heads can't share 3"),
        ({"llama__attention__head_count_kv": 0}, "head_count_kv is 0; it must"),
        ({"llama__rope__dimension_count": 32, "llama__attention__key_length": 64}, "only a part of each head"),
        ({"llama__block_count": 2**30}, "it says 1073741824 layers, and has 21 tensors"),
        ({"llama__embedding_length": 2**32 - 1}, "embedding_length is 4294967295; it must be a number from 1 on"),
        ({"split__count": 2}, "one of 2 parts of a model: join them first"),
        ({"general__alignment": 0}, "general.alignment is 0"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=words):
            shape_with(**metadata)


def test_text_begins_and_answers_end_as_the_metadata_says(tmp_path):
    model, path = CausalLM(T0).draw(0), tmp_path / "t0.gguf"

    def loaded(**metadata):
        write(path, model, **{f"tokenizer__ggml__{name}": value for name, value in metadata.items()})
        return load(str(path))

    plain = loaded(bos_token_id=256)
    assert plain.tokenizer.encode("Hi") == [72, 105] and plain.end_ids == (257, 260)
    begun = loaded(bos_token_id=256, add_bos_token=True, eot_token_id=258, eom_token_id=255)
    assert begun.tokenizer.encode("Hi") == [256, 72, 105] and begun.end_ids == (255, 257, 258, 260)
    assert Renderer(begun.tokenizer, begun.template).plain_ids("Hi") == [256, 72, 105]
    assert loaded(eos_token_id=9999).end_ids == (260,)
    with pytest.raises(ModelError, match="it has 261 tokens and the types of 2"):
        loaded(token_type=[1, 1])
    letters = ["<unk>", "<s>", "</s>", "\u2581", "a"]
    metadata = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": letters, "tokenizer.ggml.bos_token_id": 1,
                "tokenizer.ggml.token_type": [2, 3, 3, 1, 1]}  # fmt: skip
    begins = tokenizer_of(GgufFile(tmp_path, metadata, {}))  # SentencePiece's do, where nobody says otherwise
    assert begins.encode("a").tokens == ["<s>", "\u2581", "a"]
    metadata["tokenizer.ggml.add_bos_token"] = False
    assert tokenizer_of(GgufFile(tmp_path, metadata, {})).encode("a").tokens == ["\u2581", "a"]


def test_text_is_cut_as_the_file_says(tmp_path):
    """SmolLM's digits stand alone: blanks before them stay together, as GPT-2's own rules would not have it."""
    letters = [chr(n) for n in range(33, 127)] + ["Ġ", "Ċ", "ĠĠ", "Ġa", "12"]
    metadata = {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": letters,
        "tokenizer.ggml.merges": ["Ġ Ġ", "Ġ a", "1 2"],
    }  # fmt: skip
    found = {}
    for rules in ("smollm", "gpt-2"):
        file = GgufFile(tmp_path, metadata | {"tokenizer.ggml.pre": rules}, {})
        found[rules] = tokenizer_of(file).encode("  a  12").tokens
    assert found["smollm"] == ["Ġ", "Ġa", "ĠĠ", "1", "2"]
    assert found["gpt-2"] == ["Ġ", "Ġa", "Ġ", "Ġ", "12"]
