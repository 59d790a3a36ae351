"""A llama of about a million parameters and a tokenizer of bytes, made on the spot: for tests and first steps."""

from typing import TYPE_CHECKING

from model.causal_lm import CausalLM, DecoderShape

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Ids 0 to 255 are the bytes; these follow.
SPECIAL = ("<bos>", "<eos>", "<pad>", "<|im_start|>", "<|im_end|>")
TINY_SHAPE = DecoderShape(
    vocabulary=256 + len(SPECIAL), width=128, layers=4, heads=4, kv_heads=2, head_dim=32, mlp_width=512, context=2048,
    tied=True,
)  # fmt: skip
# About 1 / sqrt(width), so that queries and keys differ from token to token. With the 0.02 of large models attention is
# nearly even, and an adapter over frozen weights can't tell prompts apart.
TINY_STD = 0.1
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
    "+ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The same where there are no tools; with them they are shown first, and calls of them are written as Qwen's are.
TOOLS_CHATML = (
    "{% if tools %}{{ '<|im_start|>system\n# Tools\n' }}{% for tool in tools %}{{ (tool | tojson) + '\n' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] %}{{ message['content'] }}{% endif %}{% for call in message.tool_calls or [] %}"
    "{% if message['content'] or not loop.first %}{{ '\n' }}{% endif %}{{ '<tool_call>\n{\"name\": \"' "
    "+ call.function.name + '\", \"arguments\": ' + (call.function.arguments | tojson) + '}\n</tool_call>' }}"
    "{% endfor %}{{ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_model(seed: int = 0) -> CausalLM:
    """Return the model, its weights drawn from a seed. It has learnt nothing, and learns quickly."""
    return CausalLM(TINY_SHAPE).draw(seed, TINY_STD)


def tiny_digest(seed: int) -> str:
    """Return the digest of the model of a seed: another for each other number that its weights follow from."""
    return f"tiny:{seed}, std {TINY_STD}"


def byte_tokenizer(template: str | None = CHATML) -> "PreTrainedTokenizerFast":
    """Return a tokenizer whose ids are the bytes of UTF-8, then <bos>, <eos>, <pad>, <|im_start|>, <|im_end|>.

    Args:
        template: its chat template; None for none.

    Returns:
        A tokenizer that adds no special tokens by itself.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = letters_of_bytes()
    tokenizer = Tokenizer(models.BPE({letter: byte for byte, letter in letters.items()}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", chat_template=template,
        clean_up_tokenization_spaces=False, model_max_length=TINY_SHAPE.context,
    )  # fmt: skip


def letters_of_bytes() -> dict[int, str]:
    """Return the letter by which byte-level tokenizers write each byte: printable ones as they are."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
