"""The one renderer, of training, preview, chat and agents: conversations into token ids, with what is trained on."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from data.chat_messages import Completion, Conversation, Document, Example, RowError, reasoning_of
from data.chat_template import PRESENT, ChatTemplate, Rendered, TemplateError, quoted, require_whole
from data.data_error import DataError
from data.token_row import TokenRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWERS, ALL = "answers", "all"
EMPTY_ANSWER = "an answer is empty: only the end of its turn is trained on"


@dataclass
class _Piece:
    text: str
    weight: float = 0.0
    ids: tuple[int, ...] = ()  # what it was sampled as; else it is encoded


@dataclass
class RenderNotes:
    """What rendering did that the data doesn't say.

    Attributes:
        counts: what was done, and in how many conversations.
    """

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, note: str) -> None:
        """Count one more conversation with a note."""
        self.counts[note] = self.counts.get(note, 0) + 1


class Renderer:
    """Turns conversations into token ids by a chat template.

    `ChatTemplate` says where answers lie in the text. Where a template rewrites earlier turns (leaves out their
    thoughts), so that no text holds for all turns, a conversation becomes several rows, each of which begins with the
    prompt of its turn.

    Each answer is encoded by itself, so no token reaches over its borders, in training and in prompts alike.

    Args:
        tokenizer: fast tokenizer of transformers.
        template: chat template in Jinja; None takes the tokenizer's own.
        end_ids: further ids that end an answer, beside those of the tokenizer and the template.
        train_on: `answers` (what assistants say, and the end of their turn) or `all`.
        options: further variables of the template, such as `{"enable_thinking": False}`.
        now: what the template takes for the present, where it writes the date. It is the same each day, so that rows
            are, and that a run can be gone on with tomorrow.
        lenient: whether a template that can't be used is an error only when a conversation comes: documents, and
            prompts with their completions, need none.

    Attributes:
        template: the chat template, as it is to be exported.
        options: further variables of the template.
        end_of_turn: special token that the template writes after an answer.
        end_ids: ids that end an answer, lowest first.
        added: text that the template puts in front of a conversation without a system message.
        opening: text that the template puts in front of an answer, and that is not in a sampler's prompt.
        needs_thoughts: whether the template's prompt begins a thought, so that answers without one can't be trained on.
        knows_tools: whether the template shows descriptions of tools.
        uses_clock: whether the template writes the date.
        lacks_bos: whether the tokenizer begins text with a token with which the template begins no conversation.
        refused: why the template can't be used; None where it can.

    Raises:
        TemplateError: there is no template, or it can't be proved where its answers begin and end; with `lenient` from
            what is asked of a conversation.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        template: str | None = None,
        end_ids: Iterable[int] = (),
        train_on: str = ANSWERS,
        options: Mapping[str, Any] | None = None,
        now: datetime = PRESENT,
        lenient: bool = False,
    ) -> None:
        if train_on not in (ANSWERS, ALL):
            raise DataError(f"train_on is {train_on}; allowed are {ANSWERS} and {ALL}")
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise DataError(
                f"{type(tokenizer).__name__} is not a fast tokenizer, which is needed: save one with tokenizer.json"
            )
        self.tokenizer, self.train_on, self.now = tokenizer, train_on, now
        self.options = dict(options or {})
        self.refused: TemplateError | None = None
        self._chat: ChatTemplate | None = None
        try:
            chat = self._chat = ChatTemplate(tokenizer, template, end_ids, options, now)
        except TemplateError as error:
            if not lenient:
                raise
            self.refused = error
            own, end = tokenizer.chat_template, tokenizer.eos_token_id
            self.template = template or (own if isinstance(own, str) else "")
            self.end_of_turn = str(tokenizer.eos_token or "")
            self.end_ids = tuple(sorted({*end_ids, *([] if end is None else [end])}))
            self.added, self.opening, self.uses_clock = "", "", False
            self.needs_thoughts = self.knows_tools = False
            example = ""
        else:
            self.template, self.end_of_turn, self.end_ids = chat.template, chat.end_of_turn, chat.end_ids
            self.added, self.opening, self.uses_clock = chat.added, chat.opening, chat.uses_clock
            self.needs_thoughts, self.knows_tools = chat.needs_thoughts, chat.knows_tools
            example = chat.example
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()  # a file may ask for it, and rows would be cut without a word
        self._backend.no_padding()
        self._added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        signs = "|".join(re.escape(text) for text in sorted(special, key=len, reverse=True) if text.strip())
        self._signs = re.compile(signs or r"(?!)")
        self._added_sizes = sorted({len(text) for text in self._added}, reverse=True)
        self._begins_with_space = (self._backend.encode("x", add_special_tokens=False).tokens or [""])[0][0] in "▁Ġ "
        self._prefix = self._plain_prefix()
        bare = self._backend.encode(example, add_special_tokens=False).ids
        self.lacks_bos = bool(example) and bare[: len(self._prefix)] != self._prefix

    @property
    def _template(self) -> ChatTemplate:
        if self._chat is None:
            assert self.refused is not None
            raise self.refused
        return self._chat

    # What users of it call.

    def train_rows(self, example: Example, place: str = "", notes: RenderNotes | None = None) -> list[TokenRow]:
        """Return the rows that an example is trained with.

        Args:
            example: a conversation, a prompt with its completion, or a document.
            place: where it comes from, for errors.
            notes: what is told of the rendering; added to.

        Returns:
            The rows: one, or several of a conversation whose earlier turns the template rewrites. None of them where
                nothing in it is trained on.

        Raises:
            RowError: the template refuses it, or leaves a part of it out.
        """
        if isinstance(example, Conversation):
            return [self._row(pieces, place) for pieces in self._pieces(example, notes or RenderNotes())]
        if isinstance(example, Completion):
            return [self._completion_row(example, place)]
        ids = self._with_end(self.plain_ids(example.text))
        weights = [0.0] + [1.0] * (len(ids) - 1)
        return [TokenRow.of(ids, weights, place)]

    def prompt(
        self,
        example: Example,
        notes: RenderNotes | None = None,
        sampled: Mapping[int, Sequence[int]] | None = None,
    ) -> list[int]:
        """Return the ids that a sampler gets: those of `train_rows` up to the answer.

        Args:
            example: a conversation without the answer, a prompt (its completion is not looked at), or a document.
            notes: what is told of the rendering; added to.
            sampled: of earlier answers, by the number of their message from 0, the ids that were sampled. They are
                taken as they are where the template shows their text unchanged, so that the prompt goes on from them.

        Returns:
            Token ids.

        Raises:
            RowError: the template refuses it, or leaves a part of it out.
        """
        if isinstance(example, Completion):
            return self.plain_ids(example.prompt)
        if isinstance(example, Document):
            return self.plain_ids(example.text)
        rendered = self._template.located(example, True)
        self._check_seen(example, rendered)
        self._note(example, notes or RenderNotes())
        pieces = self._context(rendered, len(rendered.text), sampled=sampled or {})
        return self._encode_pieces(pieces)[0]

    def render(self, chat: Conversation, generation: bool) -> str:
        """Return the text of a conversation; see `ChatTemplate.render`."""
        return self._template.render(chat, generation)

    def plain_ids(self, text: str) -> list[int]:
        """Encode text without a template, with what the tokenizer puts in front of it, once."""
        ids = list(self._backend.encode(require_whole(text), add_special_tokens=False).ids)
        return ids if ids[: len(self._prefix)] == self._prefix else [*self._prefix, *ids]

    # Rows.

    def _pieces(self, chat: Conversation, notes: RenderNotes) -> list[list[_Piece]]:
        """Return the rows of a conversation as pieces of text, each encoded by itself."""
        whole = self._template.located(chat, False)
        self._check_seen(chat, whole)
        self._note(chat, notes)
        found = {answer.message: answer for answer in whole.answers}
        wanted = [number for number in range(len(chat.messages)) if chat.trains_on(number)]
        rows: list[tuple[int, list[_Piece]]] = []
        shared = [number for number in wanted if number in found]
        if self.train_on == ALL or shared:
            pieces = self._context(whole, len(whole.text), set(shared))
            if self.train_on == ALL:
                pieces = [_Piece(piece.text, 1.0) for piece in pieces]
            rows.append((min(shared, default=0), pieces))
        apart = [] if self.train_on == ALL else [number for number in wanted if number not in found]
        rows += [(number, self._turn_alone(chat, number)) for number in apart]
        if apart:
            notes.add("the template rewrites earlier turns: some answers are trained in rows of their own")
        if any(chat.is_empty(number) for number in wanted):
            notes.add(EMPTY_ANSWER)
        answers = [(chat.messages[number], found[number]) for number in shared]
        if any(self._lost_thought(message, whole.text[answer.prompt : answer.end]) for message, answer in answers):
            notes.add("the template leaves out thoughts of earlier answers: these are not trained on")
        return [pieces for _, pieces in sorted(rows, key=lambda row: row[0])]

    def _turn_alone(self, chat: Conversation, number: int) -> list[_Piece]:
        """Return the row of one answer whose prompt is not how the whole conversation begins."""
        before = Conversation(chat.messages[:number], chat.tools)
        until = self._template.located(Conversation(chat.messages[: number + 1], chat.tools), False, loose=True)
        answer = next((answer for answer in until.answers if answer.message == number), None)
        if answer is None:
            why = ", since its prompt begins a thought and the answer has none" if self.needs_thoughts else ""
            raise RowError(f"the template does not show where an answer begins and ends{why}", f"message {number + 1}")
        prompt = self._template.located(before, True)
        pieces = self._context(prompt, len(prompt.text))
        pieces.append(_Piece(until.text[answer.prompt : answer.start]))
        pieces.append(_Piece(until.text[answer.start : answer.end], 1.0))
        return pieces

    def _context(
        self,
        rendered: Rendered,
        end: int,
        trained: Iterable[int] = (),
        sampled: Mapping[int, Sequence[int]] = MappingProxyType({}),
    ) -> list[_Piece]:
        """Cut rendered text at the borders of its answers."""
        pieces, at = [], 0
        for answer in rendered.answers:
            pieces += [_Piece(rendered.text[at : answer.prompt]), _Piece(rendered.text[answer.prompt : answer.start])]
            text = rendered.text[answer.start : answer.end]
            ids = self._as_sampled(text, sampled[answer.message]) if answer.message in sampled else ()
            pieces.append(_Piece(text, float(answer.message in trained), ids))
            at = answer.end
        return [*pieces, _Piece(rendered.text[at:end])]

    def _as_sampled(self, text: str, ids: Sequence[int]) -> tuple[int, ...]:
        """Return the ids of an answer as it was sampled; none where the template shows another text."""
        said = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if self._begins_with_space:  # decoding loses the one in front
            said, text = said.removeprefix(" "), text.removeprefix(" ")
        if said == text:
            return tuple(ids)
        cut_off = said + self.end_of_turn == text  # it was sampled to the limit, and the template ends it
        return (*ids, self._added[self.end_of_turn]) if cut_off else ()

    def _row(self, pieces: list[_Piece], place: str) -> TokenRow:
        ids, weights = self._encode_pieces(pieces)
        if weights:
            weights[0] = 0.0  # nothing comes before it
        return TokenRow.of(ids, weights, place)

    def _completion_row(self, example: Completion, place: str) -> TokenRow:
        prompt = self.plain_ids(example.prompt)
        answer = self._with_end(self._following(example.prompt, require_whole(example.completion)))
        weights = [0.0] * len(prompt) + [1.0] * len(answer)
        if self.train_on == ALL:
            weights = [1.0] * len(weights)
        weights[0] = 0.0
        return TokenRow.of([*prompt, *answer], weights, place)

    def _with_end(self, ids: list[int]) -> list[int]:
        """Put the end of text behind ids."""
        end = self.tokenizer.eos_token_id
        if end is None and self.end_of_turn not in self._added:
            raise DataError(
                "the tokenizer has no token that ends a text (eos_token): a model would never learn to stop"
            )
        if end is None:
            end = self._added[self.end_of_turn]
        return ids if ids and ids[-1] == end else [*ids, end]

    # Encoding.

    def _encode_pieces(self, pieces: Sequence[_Piece]) -> tuple[list[int], list[float]]:
        ids: list[int] = []
        weights: list[float] = []
        before = ""
        for piece in [piece for piece in pieces if piece.text]:
            new = list(piece.ids) or self._following(before, piece.text)
            ids += new
            weights += [piece.weight] * len(new)
            before = piece.text
        return ids, weights

    def _following(self, before: str, text: str) -> list[int]:
        """Encode text that follows other text, whose tokens are already made."""
        encode = self._backend.encode
        if not text:
            return []
        anchor = self._added_at_the_end(before)
        if anchor:  # some take the space behind them, and some tokenizers put one there
            ids = encode(anchor + text, add_special_tokens=False).ids
            if ids[:1] == [self._added[anchor]]:
                return list(ids[1:])
        if before and self._begins_with_space:  # the tokenizer would take it for the beginning of a text
            for anchor in (before[-1], "]", ":", "\n"):
                found = encode(anchor + text, add_special_tokens=False)
                first = next((n for n, (start, _) in enumerate(found.offsets) if start >= len(anchor)), 0)
                if first and found.offsets[first - 1][1] <= len(anchor):
                    return list(found.ids[first:])
        return list(encode(text, add_special_tokens=False).ids)

    def _added_at_the_end(self, text: str) -> str:
        return next((text[-size:] for size in self._added_sizes if text[-size:] in self._added), "")

    def _plain_prefix(self) -> list[int]:
        """Return the ids that the tokenizer puts in front of plain text."""
        bare = self._backend.encode("x", add_special_tokens=False).ids
        full = self._backend.encode("x", add_special_tokens=True).ids
        size = next((n for n in range(len(full)) if full[n : n + len(bare)] == bare), 0)
        return list(full[:size])

    def _check_seen(self, chat: Conversation, rendered: Rendered) -> None:
        """Refuse what the template leaves out."""
        for number, (message, seen) in enumerate(zip(chat.messages, rendered.seen, strict=True)):
            if seen:
                continue
            where = f"message {number + 1}, {message['role']}"
            if message.get("tool_calls"):
                raise RowError("the template leaves out tool calls", where)
            if message["role"] != "assistant":
                raise RowError("the template leaves out a message", where)

    def _note(self, chat: Conversation, notes: RenderNotes) -> None:
        if self.added and chat.messages[0]["role"] not in ("system", "developer"):
            notes.add(f"the template added {quoted(self.added)}")
        if self.opening and any(map(chat.trains_on, range(len(chat.messages)))):
            notes.add(f"the template puts {quoted(self.opening)} in front of answers, which no sampler's prompt has: "
                      "it is read, not trained on")  # fmt: skip
        if chat.tools and not self.knows_tools:
            notes.add("the template does not show the descriptions of tools")
        for number, message in enumerate(chat.messages):
            for sign in dict.fromkeys(self._signs.findall(message["content"] or "")):
                ends = chat.trains_on(number) and self._added.get(sign) in self.end_ids
                what = "answers have {} in their text: it ends them there, and the template writes the end once more"
                what = what if ends else "messages have {} in their text: it is read as a special token"
                notes.add(what.format(sign))

    @staticmethod
    def _lost_thought(message: dict[str, Any], text: str) -> bool:
        """Say whether the text of an answer lacks the thoughts of its message."""
        inside = (message["content"] or "").partition("</think>")
        thought = reasoning_of(message) or (inside[0].partition("<think>")[2] if inside[1] else "")
        return bool(thought.strip()) and thought.strip() not in text
