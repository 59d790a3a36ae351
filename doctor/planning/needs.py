"""How much memory a model takes: simple arithmetic, written out, an estimate and no promise.

weights     parameters x bytes: 2 in bf16/fp16, 1 in 8 bit, 0.56 in 4 bit (NF4 with its scales; embeddings stay 16 bit)
full        16 bytes a parameter: weights 2, gradients 2, fp32 copy 4, AdamW's two moments 8
LoRA        adapters of rank 16 on all linear layers are about 0.6 % of the parameters, at 16 bytes each
activations layers x tokens x hidden x 2 bytes kept (gradient checkpointing), one layer's own 34 x that, and the logits
            twice in fp32 (tokens x vocabulary x 4)
KV cache    2 x layers x KV heads x head size x 2 bytes, a token
overhead    1 GB: the CUDA context, cuBLAS, fragments
"""

from dataclasses import dataclass

_GB = 1e9
_OVERHEAD = 1.0
_ADAPTERS = 0.006
_BYTES = {"bf16": 2.0, "8bit": 1.0, "4bit": 0.56}


@dataclass(frozen=True)
class Shape:
    """A model's shape: billions of parameters, layers, hidden size, KV heads, head size, vocabulary."""

    billions: float
    layers: int
    hidden: int
    kv_heads: int
    head: int
    vocabulary: int


# Of public config.json files: Qwen2.5 0.5B, 1.5B, 3B, 7B, Llama 3.1 8B, Qwen2.5 14B, 32B, Llama 3.1 70B, 405B.
SHAPES = (
    Shape(0.49, 24, 896, 2, 64, 151936),
    Shape(1.54, 28, 1536, 2, 128, 151936),
    Shape(3.09, 36, 2048, 2, 128, 151936),
    Shape(7.62, 28, 3584, 4, 128, 152064),
    Shape(8.03, 32, 4096, 8, 128, 128256),
    Shape(14.8, 48, 5120, 8, 128, 152064),
    Shape(32.8, 64, 5120, 8, 128, 152064),
    Shape(70.6, 80, 8192, 8, 128, 128256),
    Shape(405.0, 126, 16384, 8, 128, 128256),
)


@dataclass(frozen=True)
class Estimate:
    """Gigabytes that something takes, and how they come together.

    Args:
        what: "QLoRA (4 bit)", "serving in bf16".
        total: gigabytes.
        parts: each part with its gigabytes.
    """

    what: str
    total: float
    parts: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return (
            f"{self.what}: about {self.total:.0f} GB ({', '.join(f'{name} {size:.1f}' for name, size in self.parts)})"
        )


def shape_of(billions: float) -> Shape:
    """Return the known shape that is nearest in size."""
    return min(SHAPES, key=lambda shape: abs(shape.billions - billions) / (shape.billions + billions))


def training(billions: float, method: str, tokens: int = 2048) -> Estimate:
    """Return what training takes, at a batch of one sequence.

    Args:
        billions: parameters of the model, in billions.
        method: "qlora", "lora" or "full".
        tokens: length of the sequence.
    """
    shape = shape_of(billions)
    layer = tokens * shape.hidden * 2 / _GB
    activations = shape.layers * layer + 34 * layer + 2 * tokens * shape.vocabulary * 4 / _GB
    if method == "full":
        parts = [("weights, gradients and AdamW", 16 * billions)]
        what = "full fine-tuning with AdamW"
    else:
        name, size = ("QLoRA (4 bit)", _BYTES["4bit"]) if method == "qlora" else ("LoRA (16 bit)", _BYTES["bf16"])
        parts = [("weights", size * billions), ("adapters and AdamW", 16 * _ADAPTERS * billions)]
        what = name
    parts += [("activations", activations), ("overhead", _OVERHEAD)]
    return Estimate(f"{what}, {billions:g}B, batch 1 x {tokens} tokens", sum(size for _, size in parts), tuple(parts))


def serving(billions: float, precision: str, tokens: int = 16384) -> Estimate:
    """Return what serving takes.

    Args:
        billions: parameters of the model, in billions.
        precision: "bf16", "8bit" or "4bit".
        tokens: tokens of all conversations that are held at once.
    """
    shape = shape_of(billions)
    cache = 2 * shape.layers * shape.kv_heads * shape.head * 2 * tokens / _GB
    parts = (
        ("weights", _BYTES[precision] * billions),
        (f"KV cache of {tokens} tokens", cache),
        ("overhead", _OVERHEAD),
    )
    return Estimate(f"serving {billions:g}B in {precision}", sum(size for _, size in parts), parts)


def largest(memory: float, method: str) -> float:
    """Return the largest usual size, in billions, that fits into a memory of gigabytes; 0 where none does."""

    def size(billions: float) -> float:
        estimate = serving(billions, method) if method in _BYTES else training(billions, method)
        return estimate.total

    return max((one.billions for one in SHAPES if size(one.billions) <= memory * 0.95), default=0.0)
