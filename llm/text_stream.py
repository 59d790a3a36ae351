"""Text of tokens as they come: no character is cut, and nothing is shown that a stop string may take back.

Token ids are the truth; text is made of them, and never the other way.
"""

import codecs
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm.tiny_model import letters_of_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenBytes:
    """The bytes that each token stands for, as the tokenizer decodes it.

    Args:
        tokenizer: a tokenizer whose tokens are bytes in letters (GPT-2, Llama 3, Qwen), or text with bytes for what it
            has no token for (Llama 2, Mistral). Of other kinds each token is decoded by itself.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._special = {*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)}
        self._added = {number: token.content for number, token in added.items()}
        self._known: dict[int, bytes] = {}
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = json.loads(backend.to_str()).get("decoder") if backend is not None else None
        parts = _parts_of(decoder)
        kinds = {part["type"] for part in parts}
        self._bytes_of = {letter: byte for byte, letter in letters_of_bytes().items()} if "ByteLevel" in kinds else None
        self._fallback = "ByteFallback" in kinds
        self.strips_first_space = any(part["type"] == "Strip" and part.get("start") for part in parts)

    def __call__(self, token: int) -> bytes:
        """Return the bytes of a token; none of a special one."""
        found = self._known.get(token)
        if found is None:
            found = self._known[token] = self._find(token)
        return found

    def special_id(self, text: str) -> int | None:
        """Return the id of the special token that is written as `text`; None where there is none."""
        return next((number for number, content in self._added.items()
                     if content == text and number in self._special), None)  # fmt: skip

    def _find(self, token: int) -> bytes:
        if token in self._special:
            return b""
        if token in self._added:
            return self._added[token].encode()
        if self._bytes_of is None and not self._fallback:
            return self._tokenizer.decode([token], clean_up_tokenization_spaces=False).encode()
        letters = self._tokenizer.convert_ids_to_tokens(token)
        if letters is None:  # the model has more embeddings than the tokenizer has tokens
            return b""
        if self._bytes_of is not None:
            return bytes(self._bytes_of[letter] for letter in letters)
        if re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", letters):
            return bytes([int(letters[3:5], 16)])
        return letters.replace("\u2581", " ").encode()


def _parts_of(decoder: dict | None) -> list[dict]:
    if decoder is None:
        return []
    return [part for each in decoder["decoders"] for part in _parts_of(each)] if "decoders" in decoder else [decoder]


class IncrementalText:
    """Characters of bytes as they come: a character that is not whole yet waits for its other bytes.

    Bytes that are no UTF-8 become U+FFFD, as a tokenizer decodes them.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, new: bytes) -> str:
        """Take in bytes; returns the characters that are whole now."""
        return self._decoder.decode(new)

    def end(self) -> str:
        """Return what is left of a character that was cut: nothing, or one U+FFFD."""
        return self._decoder.decode(b"", final=True)


class StopStrings:
    """Looks for strings in bytes as they come, and holds back what may be the beginning of one.

    The string that is complete first counts, however the bytes come in pieces; of several that end together the
    longest.

    Args:
        stops: the strings, each 1 character or more; none are allowed.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = sorted({stop.encode("utf-8", "surrogatepass") for stop in stops}, key=len, reverse=True)
        self._held = b""
        self.found: str | None = None

    def add(self, new: bytes) -> bytes:
        """Take in bytes; returns those that can be shown: up to the string, once it is `found`."""
        if not self._stops:
            return new
        text = self._held + new
        ends = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            _, at, stop = min(ends)
            self.found, self._held = stop.decode("utf-8", "surrogatepass"), b""
            return text[:at]
        longest = min(len(text), len(self._stops[0]) - 1)
        keep = next((n for n in range(longest, 0, -1) if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> bytes:
        """Return what was held back, where no string came of it."""
        held, self._held = self._held, b""
        return held


class SampleText:
    """The text of one sample: bytes of its tokens, up to a stop string.

    Args:
        token_bytes: the tokenizer's bytes.
        stops: stop strings.
    """

    def __init__(self, token_bytes: TokenBytes, stops: Sequence[str] = ()) -> None:
        self._token_bytes, self._stops, self._characters = token_bytes, StopStrings(stops), IncrementalText()
        self._first = token_bytes.strips_first_space
        self.text = ""  # what can be shown: it only grows

    @property
    def stopped_by(self) -> str | None:
        """The stop string that ended the text; None so far."""
        return self._stops.found

    def add(self, token: int) -> None:
        """Take in the next token."""
        piece = self._token_bytes(token)
        if self._first and piece:
            piece, self._first = piece.removeprefix(b" "), False
        self.text += self._characters.add(self._stops.add(piece))

    def end(self) -> None:
        """There are no more tokens: show what was held back."""
        if self.stopped_by is None:
            self.text += self._characters.add(self._stops.end())
        self.text += self._characters.end()
