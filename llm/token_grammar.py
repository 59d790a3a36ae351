"""Which tokens a grammar allows next, so that what is sampled is of its form: JSON of a schema, calls of tools.

A grammar is a text in llguidance's dialect of Lark (`start: %json {"type": "object"}`). The work of reading it and of
telling tokens apart is llguidance's; here it is met with the model's own tokens, each by its bytes.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy

from llm.engine_error import EngineError
from llm.sampling_settings import SettingError
from llm.text_stream import TokenBytes

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from transformers import PreTrainedTokenizerBase

_KEPT = 32  # grammars that are not read anew when they are asked for again
_MOST_SHOWN = 300  # characters of what is wrong with a grammar
MOST_CHARACTERS = 262_144  # of a grammar
# How much work llguidance does on one, about a second's: a pattern of a few letters can ask for hours.
_FUEL = 200_000
_FORCED = 512  # bytes without a choice that are taken apart at a time


class GrammarState:
    """How far one sample has come in its grammar.

    Args:
        matcher: llguidance's state, which nobody else uses.
        vocabulary: number of tokens.
        ends: ids that end the answer; they are allowed where the grammar is.
    """

    def __init__(self, matcher: "LLMatcher", vocabulary: int, ends: Collection[int]) -> None:
        self._matcher, self._vocabulary, self._ends = matcher, vocabulary, sorted(ends)

    def allowed(self) -> numpy.ndarray:
        """Return (vocabulary,), bool: which tokens may come next; one at least.

        Raises:
            EngineError: the grammar is too involved to be followed.
        """
        packed = numpy.frombuffer(self._matcher.compute_bitmask(), dtype=numpy.uint8)
        allowed = numpy.unpackbits(packed, bitorder="little", count=self._vocabulary).view(bool)
        allowed[self._ends] = self._matcher.is_accepting()
        self._require_fine()
        if not allowed.any():
            raise EngineError("the grammar allows no further token")
        return allowed

    def take(self, token: int) -> bool:
        """Go on by a token that was allowed, and ends nothing.

        Returns:
            Whether the text is whole and no token may follow.

        Raises:
            EngineError: the token was not allowed.
        """
        self._matcher.consume_token(token)
        self._require_fine()
        return self._matcher.is_stopped() and not self._ends

    def _require_fine(self) -> None:
        if self._matcher.is_error():
            raise EngineError(f"the grammar can't be followed: {_shown(self._matcher.get_error())}")


class TokenGrammars:
    """Reads grammars for the tokens of one model. Any thread may use it.

    Args:
        tokenizer: the tokenizer.
        token_bytes: its tokens' bytes.
        vocabulary: number of tokens of the model, which may be more than the tokenizer has.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", token_bytes: TokenBytes, vocabulary: int) -> None:
        self._tokenizer, self._token_bytes, self._vocabulary = tokenizer, token_bytes, vocabulary
        self._tokens: LLTokenizer | None = None  # made when first needed, in about half a second
        self._known: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, grammar: str) -> None:
        """Read a grammar, so that `begin` is quick.

        Raises:
            SettingError: it can't be used.
        """
        self._matcher(grammar)

    def begin(self, grammar: str, ends: Collection[int]) -> GrammarState:
        """Return the state of a sample that has not begun.

        Args:
            grammar: the grammar.
            ends: ids that end the answer. Those that stand for text are the grammar's business.

        Raises:
            SettingError: it can't be used.
        """
        without_text = [token for token in ends if not self._token_bytes(token)]
        return GrammarState(self._matcher(grammar).deep_copy(), self._vocabulary, without_text)

    def _matcher(self, grammar: str) -> "LLMatcher":
        """Return a grammar's state at its beginning."""
        with self._lock:
            if grammar in self._known:
                self._known.move_to_end(grammar)
                return self._known[grammar]
            if self._tokens is None:
                self._tokens = self._read_tokens()
            tokens = self._tokens
        if len(grammar) > MOST_CHARACTERS:
            raise SettingError("grammar", f"of {len(grammar):,} characters", f"at most {MOST_CHARACTERS:,} are allowed")
        from llguidance import LLMatcher, LLParserLimits

        found = LLMatcher(tokens, grammar, log_level=0, limits=LLParserLimits(initial_lexer_fuel=_FUEL))
        begun = found.deep_copy()
        begun.compute_bitmask()  # some faults show only then
        for matcher in (found, begun):
            if matcher.is_error():
                raise SettingError("grammar", "no grammar that can be used", _shown(matcher.get_error()))
        with self._lock:
            self._known[grammar] = found
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return found

    def _read_tokens(self) -> "LLTokenizer":
        try:
            from llguidance import LLTokenizer, TokenizerWrapper
        except ImportError as error:
            raise SettingError("grammar", "asked for", "it needs llguidance: pip install llguidance") from error
        given = _Tokens(self._tokenizer, self._token_bytes, self._vocabulary)
        return LLTokenizer(TokenizerWrapper(given), eos_token=given.eos_token_id)


class _Tokens:
    """A model's tokens as llguidance asks for them.

    Args:
        tokenizer: the tokenizer.
        token_bytes: its tokens' bytes.
        vocabulary: number of tokens.
    """

    bos_token_id = None

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", token_bytes: TokenBytes, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        # One token must end answers: it is one that the model doesn't have, since each request has its own (`ends`).
        self.tokens, self.eos_token_id = [*(token_bytes(token) for token in range(vocabulary)), b""], vocabulary
        self.special_token_ids = [token for token, raw in enumerate(self.tokens) if not raw]
        self._ids = {raw: token for token, raw in reversed(list(enumerate(self.tokens))) if raw}
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: bytes) -> list[int]:
        """Return the tokens of a text that the grammar leaves no choice about: those that training would have.

        Of a long text only its beginning is told: what follows is asked about later, and again with each token.
        """
        text = text if len(text) <= _FORCED else text[:_FORCED].decode(errors="ignore").encode()
        try:
            ids = self._tokenizer.encode(text.decode(), add_special_tokens=False)
        except UnicodeDecodeError:
            ids = []
        if b"".join(self.tokens[token] for token in ids) == text:
            return ids
        ids, begin = [], 0
        while begin < len(text):  # the longest token at each place
            sizes = range(min(self._longest, len(text) - begin), 0, -1)
            size = next((size for size in sizes if text[begin : begin + size] in self._ids), 0)
            if not size:
                raise EngineError(f"no token begins with {text[begin : begin + 10]!r}")
            ids.append(self._ids[text[begin : begin + size]])
            begin += size
        return ids


def _shown(error: str) -> str:
    """Return what llguidance says is wrong, without the place in a text that the user has not written."""
    line = error.strip().splitlines()[0] if error.strip() else "no reason was given"
    head, separator, rest = line.partition("): ")
    line = rest if separator and head.startswith("at ") else line
    line = "nothing is of this form" if line.startswith("NoExtension") else line
    return line if len(line) <= _MOST_SHOWN else line[:_MOST_SHOWN] + " ..."
