"""Grammars met with a model's tokens: what is allowed, where it ends, and tokenizers of several kinds."""

import json

import pytest

pytest.importorskip("transformers")
pytest.importorskip("llguidance")

import numpy

from llm.sampling_settings import SettingError
from llm.text_stream import TokenBytes
from llm.tiny_model import byte_tokenizer
from llm.token_grammar import TokenGrammars

ONE = 'start: %json {"type": "object", "properties": {"é": {"enum": [1, 12]}}, "required": ["é"], ' \
      '"additionalProperties": false, "x-guidance": {"whitespace_flexible": false}}'  # fmt: skip


def grammars(tokenizer, vocabulary: int) -> TokenGrammars:
    return TokenGrammars(tokenizer, TokenBytes(tokenizer), vocabulary)


def texts(state, tokenizer) -> list[bytes]:
    """All that may come next, by bytes."""
    token_bytes = TokenBytes(tokenizer)
    return sorted(token_bytes(int(token)) for token in numpy.flatnonzero(state.allowed()))


def test_tokens_are_allowed_byte_by_byte_and_ends_where_the_text_is_whole():
    tokenizer = byte_tokenizer()
    state = grammars(tokenizer, 300).begin(ONE, [257, 260])  # the model has more embeddings than there are tokens
    for byte in '{"é":1'.encode():
        assert texts(state, tokenizer) == [bytes([byte])]
        assert state.take(byte) is False
    assert texts(state, tokenizer) == [b"2", b"}"]
    state.take(ord("}"))
    assert numpy.flatnonzero(state.allowed()).tolist() == [257, 260]


def test_states_of_one_grammar_are_their_own():
    tokenizer = byte_tokenizer()
    known = grammars(tokenizer, 261)
    first, second = known.begin(ONE, [257]), known.begin(ONE, [257])
    first.take(ord("{"))
    assert texts(first, tokenizer) == [b'"'] and texts(second, tokenizer) == [b"{"]


def test_without_an_end_the_last_token_says_that_all_is_there():
    state = grammars(byte_tokenizer(), 261).begin(ONE, [ord("x")])  # which stands for text
    assert [state.take(byte) for byte in '{"é":12}'.encode()] == [False] * 8 + [True]


def test_what_is_no_grammar_is_refused_with_the_reason():
    known = grammars(byte_tokenizer(), 261)
    with pytest.raises(SettingError, match="Invalid type: strin"):
        known.check('start: %json {"type": "strin"}')
    with pytest.raises(SettingError):
        known.check("nonsense")
    with pytest.raises(SettingError, match="at most 262,144 are allowed"):
        known.check(f'start: "{"x" * 300_000}"')
    with pytest.raises(SettingError, match="nothing is of this form"):  # which shows at the first token only
        known.check('start: %json {"$ref": "#"}')


def test_a_long_text_without_a_choice_is_taken_apart_piece_by_piece():
    tokenizer, text = byte_tokenizer(), "é😀a" * 400
    state = grammars(tokenizer, 261).begin(f'start: %json {{"const": "{text}"}}', [257])
    for byte in f'"{text}"'.encode():
        assert numpy.flatnonzero(state.allowed()).tolist() == [byte]
        state.take(byte)


@pytest.mark.parametrize("kind", ["byte level", "with bytes for the rest"])
def test_tokens_of_several_letters(kind):
    """Tokens that go over the borders of JSON are allowed, and what follows without a choice is as training has it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from llm.tiny_model import letters_of_bytes

    if kind == "byte level":
        letters = {letter: number for number, letter in enumerate(letters_of_bytes().values())}
        merges = [("{", '"'), ("a", "b"), ('{"', "ab")]
        vocabulary = letters | {left + right: 256 + number for number, (left, right) in enumerate(merges)}
        tokenizer = Tokenizer(models.BPE(vocabulary, merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), *'{"ab}:1', "▁", '{"', "ab", '{"ab']
        merges = [("{", '"'), ("a", "b"), ('{"', "ab")]
        tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, merges,
                                         byte_fallback=True))  # fmt: skip
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<end>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    size, end = len(fast), fast.convert_tokens_to_ids("<end>")
    free = 'start: %json {"type": "object", "properties": {"ab": {"type": "integer"}}, "required": ["ab"], ' \
           '"additionalProperties": false}'  # fmt: skip
    state, said, token_bytes = grammars(fast, size).begin(free, [end]), b"", TokenBytes(fast)
    random = numpy.random.default_rng(0)
    while True:
        token = int(random.choice(numpy.flatnonzero(state.allowed())))
        if token == end:
            break
        state.take(token)
        said += token_bytes(token)
    assert list(json.loads(said)) == ["ab"]
