"""The preview shows what is trained on, and says what the data does not."""

import json

import chat_samples as samples
import pytest

pytest.importorskip("transformers")

from data.chat_renderer import Renderer
from data.conversations import open_source
from data.text_preview import as_said, preview
from data.token_rows import token_rows


def shown(tmp_path, template, rows, colour=False, count=3, **options):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = Renderer(samples.byte_tokenizer(template, adds_bos=True), **options)
    found, account = token_rows(open_source(path), made, 20_000)
    return "\n".join(preview(found, [account], made, count, colour))


def chat(*texts):
    return {"messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]}


def test_brackets_are_around_what_is_trained_on(tmp_path):
    text = shown(tmp_path, samples.DROPS_THOUGHTS, [chat("Hi", "Ok", "\x1b[31m?", "Yes"), chat("a"), chat("a", "b")])
    assert "<|im_start|>assistant\n[Ok<|im_end|>]\n<|im_start|>user\n\\x1b[31m?<|im_end|>" in text
    assert text.count("[Yes<|im_end|>]") == 1 and "\x1b" not in text
    assert "format messages" in text and "rows: 3 read = 2 used + 1 left out" in text
    assert "without a system message the template adds: <|im_start|>system\nYou are a helpful assistant." in text
    assert "ids that end it: <eos> (257), <|im_end|> (260)" in text
    assert "--- row 2, line 3: " in text and " tokens, 2 trained on" in text


def test_colours(tmp_path):
    text = shown(tmp_path, samples.BOS, [chat("Hi", "Ok")] * 2, colour=True, count=1)
    assert "\033[1;32mOk<|im_end|>\033[0m" in text and text.count("--- row") == 1
    assert "begins no conversation with it" not in text
    assert "ids: 256 259 " in text and "79 107 260" in text


def test_long_context_is_cut_and_the_date_told(tmp_path):
    text = shown(tmp_path, samples.DATED, [chat("q" * 9000, "b" * 3000)])
    assert "characters ..." in text and "b" * 3000 in text and len(text) < 6000
    assert "the template writes the date" in text and "the template begins no conversation with it" in text


def test_who_speaks_is_told_whatever_the_template():
    chatml = "<|im_start|>system\nBe terse.<|im_end|>\n<|im_start|>user\nHi\n there<|im_end|>\n<|im_start|>assistant\n"
    assert as_said(chatml, {"<|im_start|>", "<|im_end|>"}) == ["system: Be terse.", "user: Hi there"]
    header = "<s><|h|>user<|/h|>\n\nuser\x1b me<|eot|><|h|>assistant<|/h|>\n\nOk<|eot|>"
    assert as_said(header, {"<s>", "<|h|>", "<|/h|>", "<|eot|>"}) == ["user: user\\x1b me", "assistant: Ok"]
    named = "<|user|>\nHi<|end|>\n<|assistant|>\nOk<|end|>"
    assert as_said(named, {"<|user|>", "<|end|>", "<|assistant|>"}) == ["user: Hi", "assistant: Ok"]
    assert as_said("<s>[INST] Hi [/INST]", {"<s>", "[INST]", "[/INST]"}) == ["Hi"]
    assert as_said("user\nHi", set()) == as_said("user\nHi", {"<s>"}) == ["user Hi"]
    assert as_said(" \n", {"<s>"}) == []
