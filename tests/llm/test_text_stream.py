"""Characters and stop strings in bytes that come in any pieces, and the bytes of the tokens of several tokenizers."""

import random

import pytest

from llm.text_stream import IncrementalText, SampleText, StopStrings, TokenBytes
from llm.tiny_model import byte_tokenizer


def streamed(data: bytes, sizes) -> tuple[list[str], str]:
    text, parts, begin = IncrementalText(), [], 0
    for size in sizes:
        parts.append(text.add(data[begin : begin + size]))
        begin += size
    return parts, text.end()


@pytest.mark.parametrize("seed", range(20))
def test_no_piece_holds_half_a_character(seed):
    data = "é😀 aé漢".encode()
    draw = random.Random(seed)
    parts, rest = streamed(data, [draw.randint(1, 3) for _ in range(20)])
    assert "".join(parts) == "é😀 aé漢" and rest == "" and not any("\ufffd" in part for part in parts)


def test_a_cut_character_is_one_replacement_at_the_end():
    parts, rest = streamed(bytes.fromhex("c3a9f09f"), [1, 1, 1, 1])
    assert (parts, rest) == (["", "é", "", ""], "\ufffd")
    parts, rest = streamed(b"a\xffb\xf0\x9f", [5])  # as tokenizers decode it
    assert ("".join(parts) + rest) == b"a\xffb\xf0\x9f".decode(errors="replace") == "a\ufffdb\ufffd"


def stopped(stops, pieces) -> tuple[list[bytes], str | None]:
    found, shown = StopStrings(stops), []
    for piece in pieces:
        shown.append(found.add(piece))
        if found.found is not None:
            break
    else:
        shown.append(found.end())
    return shown, found.found


@pytest.mark.parametrize(
    ("stops", "text", "shown", "found"),
    [
        (["EF"], b"CDEFG", b"CD", "EF"), (["EF"], b"CDE", b"CDE", None), (["C"], b"CDE", b"", "C"),
        (["DEFG", "E"], b"CDEFG", b"CD", "E"), (["EF", "DEF"], b"CDEFG", b"C", "DEF"), ([], b"CDEFG", b"CDEFG", None),
        (["aab"], b"aaab", b"a", "aab"), (["é"], "aéb".encode(), b"a", "é"), (["EFX", "FG"], b"CDEFG", b"CDE", "FG"),
    ],
)  # fmt: skip
def test_stop_strings_are_found_however_the_bytes_come(stops, text, shown, found):
    for draw in map(random.Random, range(10)):
        cuts = sorted(draw.sample(range(1, len(text)), draw.randint(0, len(text) - 1)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        parts, stop = stopped(stops, pieces)
        assert (b"".join(parts), stop) == (shown, found)


def test_only_what_may_begin_a_stop_string_is_held_back():
    assert stopped(["EF"], [b"C", b"D", b"E", b"x", b"E"])[0] == [b"C", b"D", b"", b"Ex", b"", b"E"]


def sentencepiece_tokenizer():
    """A tokenizer as Llama 2's: spaces are U+2581, bytes stand in for what it has no token for."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<s>", *[f"<0x{byte:02X}>" for byte in range(256)], "\u2581", "a", "b", "\u2581a"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("\u2581", "a")], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)
    ])  # fmt: skip
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_text_is_what_the_tokenizer_decodes(kind):
    pytest.importorskip("transformers")
    tokenizer = byte_tokenizer() if kind == "bytes" else sentencepiece_tokenizer()
    tokens = tokenizer.encode("a b aé😀 b", add_special_tokens=False)
    made = SampleText(TokenBytes(tokenizer))
    shown = []
    for token in [*tokens, tokenizer.bos_token_id]:
        made.add(token)
        shown.append(made.text)
    made.end()
    assert made.text == tokenizer.decode(tokens) and "é😀" in made.text
    assert all(made.text.startswith(each) and "\ufffd" not in each for each in shown)


def test_special_tokens_have_no_bytes_but_a_name():
    pytest.importorskip("transformers")
    found = TokenBytes(byte_tokenizer())
    assert (found(97), found(260), found.special_id("<|im_end|>"), found.special_id("a")) == (b"a", b"", 260, None)
    assert found(5000) == b"", "models have more embeddings than tokens"
