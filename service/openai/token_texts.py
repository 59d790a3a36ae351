"""Single tokens as OpenAI's protocol shows them: beside each its bytes, since a token may be half of a character."""

from typing import TYPE_CHECKING

from llm.text_stream import TokenBytes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenTexts:
    """How tokens are shown.

    Args:
        tokenizer: the tokenizer.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer, self._token_bytes = tokenizer, TokenBytes(tokenizer)
        self._known: dict[int, tuple[str, bytes | None]] = {}

    def __call__(self, token: int) -> tuple[str, bytes | None]:
        """Return what a token is shown as.

        Args:
            token: its id.

        Returns:
            Its text, and its bytes. The text of bytes that are no whole characters is `bytes:\\xc3`, as OpenAI has it;
            special tokens are shown by their name, and have no bytes, since they are not in the answer's text.
        """
        found = self._known.get(token)
        if found is None:
            found = self._known[token] = self._find(token)
        return found

    def _find(self, token: int) -> tuple[str, bytes | None]:
        raw = self._token_bytes(token)
        if not raw:
            return self._tokenizer.convert_ids_to_tokens(token) or "", None
        try:
            return raw.decode(), raw
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw), raw
