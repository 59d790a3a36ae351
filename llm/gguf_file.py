"""GGUF files: one file with the weights, often in few bits, the tokenizer and the chat template."""

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from llm.model_error import ModelError
from model.causal_lm import DecoderShape, RopeScaling

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_PLAIN: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2"), 28: np.dtype("<f8")}
_BF16 = 30
# Whose files have rows of queries and keys in the order of llama.cpp's rotation: pairs side by side, not halves.
_PERMUTED = {"llama": True, "qwen2": False, "qwen3": False}
_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# What changes a model's outputs and that our decoder doesn't do, with the values at which it changes nothing.
_CHANGES = {
    "logit_scale": (0, 1), "embedding_scale": (0, 1), "residual_scale": (0, 1), "attention.scale": (0,),
    "attention.clamp_kqv": (0,), "attn_logit_softcapping": (0,), "final_logit_softcapping": (0,),
    "attention.causal": (True,), "rope.scaling.attn_factor": (0, 1), "expert_count": (0,),
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in a GGUF file.

    Attributes:
        name: its name in the file.
        sizes: its sizes in torch's order.
        kind: number of the ggml type.
        offset: its first byte, from the beginning of the file.
    """

    name: str
    sizes: tuple[int, ...]
    kind: int
    offset: int


@dataclass
class GgufFile:
    """What the header of a GGUF file says; weights are read when they are asked for.

    Attributes:
        path: the file.
        metadata: its keys and values.
        tensors: its tensors by name.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor] = field(repr=False)

    @staticmethod
    def open(path: Path) -> "GgufFile":
        """Read the header of a file.

        Args:
            path: the file.

        Returns:
            Its metadata and tensors.

        Raises:
            ModelError: it is not a GGUF file, or it is cut off.
        """
        with path.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise ModelError(f"{path} is not a GGUF file: it doesn't begin with the letters GGUF")
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        with content:
            try:
                return _Header(path, content).read()
            except (struct.error, UnicodeDecodeError, IndexError, MemoryError, OverflowError) as error:
                raise ModelError(f"{path} is damaged or cut off: its header can't be read ({error})") from error

    def value(self, key: str, default: Any = None) -> Any:
        """Return a value of the model's own part of the metadata, such as `block_count`."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    @property
    def architecture(self) -> str:
        """The architecture as llama.cpp calls it."""
        return str(self.metadata.get("general.architecture", ""))

    def shape(self) -> DecoderShape:
        """Return the sizes of our decoder.

        Raises:
            ModelError: the architecture is not known, or a size is missing.
        """
        if self.architecture not in _PERMUTED:
            raise ModelError(
                f"{self.path} holds a model of architecture {self.architecture or 'unnamed'!r}; known in GGUF files: "
                f"{', '.join(_PERMUTED)}. Use the model's safetensors (a folder or a hub id) instead"
            )
        count = self.metadata.get("split.count", 1)
        if count not in (0, 1):
            raise ModelError(
                f"{self.path} is one of {count} parts of a model: join them first (llama-gguf-split --merge)"
            )
        for key, harmless in _CHANGES.items():
            if self.value(key, harmless[0]) not in harmless:
                raise ModelError(
                    f"{self.path}: {self.architecture}.{key} is {self.value(key)!r}, which changes what the model "
                    "computes and is not supported. Use the model's safetensors (a folder or a hub id) instead"
                )
        scaling = self.value("rope.scaling.type", "none")
        if scaling not in ("none", "linear"):
            raise ModelError(f"{self.path}: rotary positions are scaled by {scaling!r}; known in GGUF files: linear")
        if "rope_freqs.weight" in self.tensors:
            raise ModelError(
                f"{self.path}: rope_freqs.weight scales rotary positions (Llama 3.1 and later). "
                "Use the model's safetensors (a folder or a hub id) instead"
            )
        try:
            heads, width = self._size("attention.head_count"), self._size("embedding_length")
            head_dim = self._size("attention.key_length", self._size("rope.dimension_count", width // heads))
            if self._size("rope.dimension_count", head_dim) != head_dim:
                raise ModelError(f"{self.path}: only a part of each head is turned by positions")
            kv_heads = self._size("attention.head_count_kv", heads)
            if heads % kv_heads:
                raise ModelError(f"{self.path} is damaged: {heads} query heads can't share {kv_heads} key-value heads")
            layers = self._size("block_count")
            if layers > len(self.tensors):
                raise ModelError(
                    f"{self.path} is damaged: it says {layers} layers, and has {len(self.tensors)} tensors"
                )
            # Before there was a type of scaling, its factor stood alone.
            factor = self.value("rope.scaling.factor", 1.0) if scaling == "linear" else self.value(
                "rope.scale_linear", 1.0)  # fmt: skip
            return DecoderShape(
                vocabulary=self.tensors["token_embd.weight"].sizes[0],
                width=width,
                layers=layers,
                heads=heads,
                kv_heads=kv_heads,
                head_dim=head_dim,
                mlp_width=self._size("feed_forward_length"),
                context=self._size("context_length"),
                rope_theta=self.value("rope.freq_base", 10000.0),
                rope_scaling=RopeScaling("linear", factor) if factor not in (0.0, 1.0) else None,
                norm_eps=self.value_of("attention.layer_norm_rms_epsilon"),
                tied="output.weight" not in self.tensors,
                attention_bias="blk.0.attn_q.bias" in self.tensors,
                output_bias="blk.0.attn_output.bias" in self.tensors,
                mlp_bias="blk.0.ffn_up.bias" in self.tensors,
                qk_norm="blk.0.attn_q_norm.weight" in self.tensors,
                window=self.value("attention.sliding_window") or None,
            )
        except KeyError as error:
            raise ModelError(f"{self.path} doesn't say {error}: it is incomplete") from error

    def _size(self, key: str, otherwise: int | None = None) -> int:
        """Return a size, which every layer has; KeyError where it is missing and there is no other."""
        found = self.value(key) if otherwise is not None else self.value_of(key)
        if found is None and otherwise is not None:
            return otherwise
        each = set(found) if isinstance(found, list) else {found}
        (size, *others) = each or {None}
        if others:
            raise ModelError(f"{self.path}: {self.architecture}.{key} differs from layer to layer ({found}), which is "
                             "not supported")  # fmt: skip
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size < 2**31:
            raise ModelError(
                f"{self.path} is damaged: {self.architecture}.{key} is {found!r}; it must be a number from 1 on"
            )
        return size

    def value_of(self, key: str) -> Any:
        """Return a value of the model's own part of the metadata. Raises KeyError where it is missing."""
        return self.metadata[f"{self.architecture}.{key}"]

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name in our decoder and the fp32 values of each tensor.

        Raises:
            ModelError: a tensor has no place in the model, an unknown type, or lies beyond the file's end.
        """
        heads = self._size("attention.head_count")
        turned = {"attn_q": heads, "attn_k": self._size("attention.head_count_kv", heads)}
        with self.path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for tensor in self.tensors.values():
                name = self._name_of(tensor.name)
                values = torch.from_numpy(self._values(tensor, content))
                part = tensor.name.split(".")[-2]
                if part in turned and _PERMUTED[self.architecture]:
                    if not values.numel() or values.shape[0] % (2 * turned[part]):
                        raise ModelError(
                            f"{self.path} is damaged: {tensor.name} has the sizes {tensor.sizes}, which {turned[part]} "
                            "heads can't share"
                        )
                    values = _halves(values, turned[part])
                yield name, values

    def _name_of(self, stored: str) -> str:
        pieces = stored.split(".")
        if len(pieces) == 2 and pieces[0] in _TENSORS:
            return f"{_TENSORS[pieces[0]]}.{pieces[1]}"
        if len(pieces) == 4 and pieces[0] == "blk" and pieces[2] in _LAYER_TENSORS:
            return f"model.layers.{pieces[1]}.{_LAYER_TENSORS[pieces[2]]}.{pieces[3]}"
        raise ModelError(f"{self.path}: tensor {stored!r} has no place in a {self.architecture} model")

    def _values(self, tensor: StoredTensor, content: mmap.mmap) -> np.ndarray:
        """Return a tensor's values in fp32, copied out of the file."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize

        count = math.prod(tensor.sizes)
        if tensor.kind in _PLAIN or tensor.kind == _BF16:
            stored = np.dtype("<u2") if tensor.kind == _BF16 else _PLAIN[tensor.kind]
            raw = self._bytes(tensor, content, count * stored.itemsize).view(stored)
            if tensor.kind == _BF16:
                return (raw.astype("<u4") << 16).view("<f4").reshape(tensor.sizes)
            return raw.astype("<f4").reshape(tensor.sizes)
        try:
            kind = GGMLQuantizationType(tensor.kind)
            block, size = GGML_QUANT_SIZES[kind]
            rows = self._bytes(tensor, content, count // block * size).reshape(*tensor.sizes[:-1], -1)
            return dequantize(rows, kind)
        except (ValueError, KeyError, NotImplementedError) as error:
            raise ModelError(
                f"{self.path}: tensor {tensor.name!r} has the type {tensor.kind}, which can't be read ({error}). "
                "Known: F32, F16, BF16, and the quantised types that the package gguf knows"
            ) from error

    def _bytes(self, tensor: StoredTensor, content: mmap.mmap, size: int) -> np.ndarray:
        if tensor.offset + size > len(content):
            raise ModelError(
                f"{self.path} is cut off: tensor {tensor.name!r} ends at byte {tensor.offset + size}, the file at "
                f"{len(content)}. Download it again"
            )
        return np.frombuffer(content[tensor.offset : tensor.offset + size], np.uint8)  # a copy


def _halves(rows: Tensor, heads: int) -> Tensor:
    """Return rows of queries or keys in the order of halves, of rows (or biases) in the order of pairs."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)


class _Header:
    """Reads the header from a file's bytes."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.content, self.at = path, content, 4

    def read(self) -> GgufFile:
        version = self.number("<I")
        if version not in (2, 3):
            raise ModelError(f"{self.path} is of GGUF version {version}; known: 2 and 3")
        tensors, keys = self.number("<Q"), self.number("<Q")
        metadata = {}
        for _ in range(keys):
            key = self.string()
            metadata[key] = self.value(self.number("<I"))
        found = []
        for _ in range(tensors):
            name = self.string()
            sizes = tuple(self.number("<Q") for _ in range(self.number("<I")))[::-1]
            found.append(StoredTensor(name, sizes, self.number("<I"), self.number("<Q")))
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ModelError(f"{self.path} is damaged: general.alignment is {alignment!r}; it must be a number")
        begin = -(-self.at // alignment) * alignment
        by_name = {t.name: StoredTensor(t.name, t.sizes, t.kind, begin + t.offset) for t in found}
        return GgufFile(self.path, metadata, by_name)

    def number(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.content, self.at)
        self.at += struct.calcsize(form)
        # The shortest number that is this one in fp32: 1e-5, not 9.999999747378752e-06.
        return float(str(np.float32(value))) if form == "<f" else value

    def string(self) -> str:
        length = self.number("<Q")
        raw = self.content[self.at : self.at + length]
        if len(raw) < length:
            raise struct.error("a text goes beyond the file's end")
        self.at += length
        return raw.decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, count = self.number("<I"), self.number("<Q")
            if inner in _NUMBERS:
                form = f"<{count}{_NUMBERS[inner][1]}"
                values = struct.unpack_from(form, self.content, self.at)
                self.at += struct.calcsize(form)
                return list(values)
            if count > len(self.content):
                raise struct.error("an array has more entries than the file bytes")
            return [self.value(inner) for _ in range(count)]
        if kind not in _NUMBERS:
            raise ModelError(f"{self.path} is damaged: its metadata has a value of the unknown type {kind}")
        return self.number(_NUMBERS[kind])


# How text is cut before merges, by `tokenizer.ggml.pre`; a name that isn't known would give other ids without a word.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CUTS = {
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "qwen2": (_QWEN2,),
    "deepseek-r1-qwen": (_QWEN2,),
    "llama-bpe": (_QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|"),),
}
_CONTROL, _USER_DEFINED = 3, 4
_TOKENS = "tokenizer.ggml.tokens"


def tokenizer_of(file: GgufFile) -> "Tokenizer":
    """Build the tokenizer that a GGUF file describes.

    Args:
        file: the file.

    Returns:
        A tokenizer with the ids of the file; it begins text with a special token where the file, or llama.cpp's rule
        for tokenizers of its kind, says so.

    Raises:
        ModelError: the file has none, or one of a kind that is not known.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    kind, tokens = file.metadata.get("tokenizer.ggml.model"), file.metadata.get("tokenizer.ggml.tokens")
    cut = file.metadata.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or not tokens:
        return _sentencepiece(file, kind, tokens)
    if cut not in _CUTS:
        raise ModelError(
            f"{file.path}: its tokenizer cuts text by the rules {cut!r}; known in GGUF files: {', '.join(_CUTS)}. "
            "Use the model's folder or hub id, whose tokenizer.json says it in full"
        )
    merges = [tuple(merge.split(" ", 1)) for merge in file.metadata.get("tokenizer.ggml.merges", [])]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    cuts = [pre_tokenizers.Split(Regex(expression), "isolated") for expression in _CUTS[cut]]
    cuts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    tokenizer.decoder = decoders.ByteLevel()
    _mark(tokenizer, tokens, file, begins=cut == "llama-bpe")
    return tokenizer


def _sentencepiece(file: GgufFile, kind: str | None, tokens: list[str] | None) -> "Tokenizer":
    if kind != "llama" or not tokens:
        raise ModelError(
            f"{file.path}: its tokenizer is {kind!r}; known in GGUF files: gpt2, llama. "
            "Use the model's folder or hub id instead"
        )
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers.tokenization_utils_base import generate_merges

    scores = file.metadata.get("tokenizer.ggml.scores") or [0.0] * len(tokens)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = generate_merges(vocabulary, dict(zip(tokens, scores, strict=True)))
    unknown = file.metadata.get("tokenizer.ggml.unknown_token_id", 0)
    model = models.BPE(vocabulary, merges, unk_token=tokens[unknown], fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    steps = [normalizers.Replace(" ", "\u2581")]
    if file.metadata.get("tokenizer.ggml.add_space_prefix", True):
        steps.insert(0, normalizers.Prepend("\u2581"))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        if len(steps) == 2
        else [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    _mark(tokenizer, tokens, file, begins=True)
    return tokenizer


def _mark(tokenizer: "Tokenizer", tokens: list[str], file: GgufFile, begins: bool) -> None:
    """Keep control tokens and tokens that users added whole in any text, and say what text begins with.

    Args:
        tokenizer: the tokenizer.
        tokens: its tokens.
        file: the file.
        begins: whether text begins with the special token for it where the file doesn't say.
    """
    from tokenizers import AddedToken, processors

    kinds = file.metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    if len(kinds) != len(tokens):
        raise ModelError(f"{file.path} is damaged: it has {len(tokens)} tokens and the types of {len(kinds)}")
    special = [AddedToken(token, normalized=False, special=True)
               for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]  # fmt: skip
    tokenizer.add_special_tokens(special)
    whole = [AddedToken(token, normalized=False, special=False)
             for token, kind in zip(tokens, kinds, strict=True) if kind == _USER_DEFINED]  # fmt: skip
    tokenizer.add_tokens(whole)
    first = special_tokens(file.metadata).get("bos_token")
    if first is not None and file.metadata.get("tokenizer.ggml.add_bos_token", begins):
        number = file.metadata["tokenizer.ggml.bos_token_id"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[first, "$A"], pair=[first, "$A", "$B"], special_tokens=[(first, number)]
        )


def end_ids(metadata: Mapping[str, Any]) -> list[int]:
    """Return the ids that end an answer, as metadata names them: end of text, of a turn, of a message."""
    found = (metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    return [number for number in found if number is not None and number < len(metadata.get(_TOKENS, ()))]


def special_tokens(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of the special tokens (bos_token, eos_token, unk_token, pad_token) that metadata names."""
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    tokens = metadata.get(_TOKENS, [])
    ids = {ours: metadata.get(f"tokenizer.ggml.{theirs}_token_id") for theirs, ours in names.items()}
    return {f"{name}_token": tokens[index] for name, index in ids.items() if index is not None and index < len(tokens)}
