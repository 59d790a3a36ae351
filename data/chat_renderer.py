"""The one renderer, of training, preview, chat and agents: conversations into token ids, with what is trained on."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from data.chat_messages import Completion, Conversation, Document, Example, RowError, reasoning_of
from data.data_error import DataError
from data.token_row import TokenRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWERS, ALL = "answers", "all"
PRESENT = datetime(2024, 7, 26)  # what templates of Llama 3 write where nobody tells them the date
_MARK = 0xF0000  # the first of the characters for private use by which contents are found again in rendered text
_MARKS = re.compile("[\U000f0000-\U000ffffd]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CLOCK = re.compile(r"strftime_now\(\s*(\"[^\"]*\"|'[^']*')\s*\)")


class TemplateError(DataError):
    """A chat template with which it can't be proved what an answer is; the text says why, and what to do."""


@dataclass(frozen=True)
class _Answer:
    """Where an answer lies in rendered text.

    Attributes:
        message: number of its message, from 0.
        prompt: where the prompt ends that a sampler would get for it.
        start: where it begins; text between is put in by the template, and is not trained on.
        end: where it ends, the end of the turn included.
    """

    message: int
    prompt: int
    start: int
    end: int


@dataclass(frozen=True)
class _Rendered:
    text: str
    answers: tuple[_Answer, ...] = ()
    seen: tuple[bool, ...] = ()


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

    Contents are marked, the marked conversation is rendered, and the marks tell where each answer lies; that the text
    is the same without marks is checked. The text in front of an answer must be, to the character, the prompt that a
    sampler gets. Where a template rewrites earlier turns (leaves out their thoughts), so that no text holds for all
    turns, a conversation becomes several rows, each of which begins with the prompt of its turn.

    Each answer is encoded by itself, so no token reaches over its borders, in training and in prompts alike.

    Args:
        tokenizer: fast tokenizer of transformers.
        template: chat template in Jinja; None takes the tokenizer's own.
        end_ids: further ids that end an answer, beside those of the tokenizer and the template.
        train_on: `answers` (what assistants say, and the end of their turn) or `all`.
        options: further variables of the template, such as `{"enable_thinking": False}`.
        now: what the template takes for the present, where it writes the date. It is the same each day, so that rows
            are, and that a run can be gone on with tomorrow.

    Attributes:
        template: the chat template, as it is to be exported.
        end_of_turn: special token that the template writes after an answer.
        end_ids: ids that end an answer, lowest first.
        added: text that the template puts in front of a conversation without a system message.
        opening: text that the template puts in front of an answer, and that is not in a sampler's prompt.
        needs_thoughts: whether the template's prompt begins a thought, so that answers without one can't be trained on.
        knows_tools: whether the template shows descriptions of tools.
        uses_clock: whether the template writes the date.
        lacks_bos: whether the tokenizer begins text with a token with which the template begins no conversation.

    Raises:
        TemplateError: there is no template, or it can't be proved where its answers begin and end.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        template: str | None = None,
        end_ids: Iterable[int] = (),
        train_on: str = ANSWERS,
        options: Mapping[str, Any] | None = None,
        now: datetime = PRESENT,
    ) -> None:
        if train_on not in (ANSWERS, ALL):
            raise DataError(f"train_on is {train_on}; allowed are {ANSWERS} and {ALL}")
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise DataError(
                f"{type(tokenizer).__name__} is not a fast tokenizer, which is needed: save one with tokenizer.json"
            )
        own = tokenizer.chat_template
        template = template or (own if isinstance(own, str) else (own or {}).get("default"))
        if not template:
            raise TemplateError("the tokenizer has no chat template: give one (template)")
        self.tokenizer, self.template, self.train_on = tokenizer, template, train_on
        self._options = dict(options or {})
        self.now = now
        self.uses_clock = "strftime_now" in template
        self._template = _CLOCK.sub(lambda found: json.dumps(self.now.strftime(found[1][1:-1])), template)
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()  # a file may ask for it, and rows would be cut without a word
        self._backend.no_padding()
        self._added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
        self._added_sizes = sorted({len(text) for text in self._added}, reverse=True)
        self._begins_with_space = (self._backend.encode("x", add_special_tokens=False).tokens or [""])[0][0] in "▁Ġ "
        self._prefix = self._plain_prefix()
        self.end_of_turn = self.added = self.opening = self._generation = self._rest = self._tail = ""
        self._none_is_empty = self._arguments_as_text = False
        self.needs_thoughts = False
        self._ends: tuple[str, ...] = ()
        self._prove(tuple(end_ids))
        own_ends = {self._added[text] for text in self._ends}
        self.end_ids = tuple(sorted(own_ends | set(end_ids)))

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
        rendered = self._located(example, True)
        self._check_seen(example, rendered)
        self._note(example, notes or RenderNotes())
        pieces = self._context(rendered, len(rendered.text), sampled=sampled or {})
        return self._encode_pieces(pieces)[0]

    def plain_ids(self, text: str) -> list[int]:
        """Encode text without a template, with what the tokenizer puts in front of it, once."""
        ids = list(self._backend.encode(_whole(text), add_special_tokens=False).ids)
        return ids if ids[: len(self._prefix)] == self._prefix else [*self._prefix, *ids]

    # Rows.

    def _pieces(self, chat: Conversation, notes: RenderNotes) -> list[list[_Piece]]:
        """Return the rows of a conversation as pieces of text, each encoded by itself."""
        whole = self._located(chat, False)
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
        until = self._located(Conversation(chat.messages[: number + 1], chat.tools), False, loose=True)
        answer = next((answer for answer in until.answers if answer.message == number), None)
        if answer is None:
            why = ", since its prompt begins a thought and the answer has none" if self.needs_thoughts else ""
            raise RowError(f"the template does not show where an answer begins and ends{why}", f"message {number + 1}")
        prompt = self._located(before, True)
        pieces = self._context(prompt, len(prompt.text))
        pieces.append(_Piece(until.text[answer.prompt : answer.start]))
        pieces.append(_Piece(until.text[answer.start : answer.end], 1.0))
        return pieces

    def _context(
        self,
        rendered: _Rendered,
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
        answer = self._with_end(self._following(example.prompt, _whole(example.completion)))
        weights = [0.0] * len(prompt) + [1.0] * len(answer)
        if self.train_on == ALL:
            weights = [1.0] * len(weights)
        weights[0] = 0.0
        return TokenRow.of([*prompt, *answer], weights, place)

    def _with_end(self, ids: list[int]) -> list[int]:
        """Put the end of text behind ids."""
        end = self.tokenizer.eos_token_id
        if end is None:
            end = self._added[self.end_of_turn]
        return ids if ids and ids[-1] == end else [*ids, end]

    # Encoding.

    def _encode_pieces(self, pieces: Sequence[_Piece]) -> tuple[list[int], list[float]]:
        ids: list[int] = []
        weights: list[float] = []
        before = ""
        for piece in _joined(pieces):
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

    # Rendering.

    def render(self, chat: Conversation, generation: bool) -> str:
        """Return the text of a conversation.

        Args:
            chat: the conversation.
            generation: whether what comes before an answer is put behind it.

        Raises:
            RowError: the template refuses it; the text has the template's own words.
        """
        return self._render(chat.messages, chat.tools, generation)

    def _render(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], generation: bool) -> str:
        chat = [self._as_template_takes_it(message) for message in messages]
        try:
            text = str(
                self.tokenizer.apply_chat_template(
                    chat, tools=list(tools) or None, chat_template=self._template, add_generation_prompt=generation,
                    tokenize=False, **self._options,
                )
            )  # fmt: skip
        except ImportError as error:
            raise DataError("chat templates need jinja2: pip install -r requirements-language.txt") from error
        except Exception as error:  # a template may raise anything
            said = str(error).strip().splitlines()
            raise RowError(f"the chat template refuses it: {said[0] if said else type(error).__name__}") from error
        return _whole(text)

    def _as_template_takes_it(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["content"] is None and self._none_is_empty:
            message = {**message, "content": ""}
        if self._arguments_as_text and message.get("tool_calls"):
            calls = [
                {**call, "function": {**call["function"], "arguments": _json_text(call["function"]["arguments"])}}
                for call in message["tool_calls"]
            ]
            message = {**message, "tool_calls": calls}
        return message

    def _located(self, chat: Conversation, generation: bool, loose: bool = False) -> _Rendered:
        """Render a conversation and find its answers.

        Args:
            chat: the conversation.
            generation: whether what comes before an answer is put behind it.
            loose: whether it is enough for the last answer that its header stands before it, whatever comes earlier.

        Returns:
            The text, and those answers whose borders are proved.
        """
        messages, tools = chat.messages, chat.tools
        text = self._render(messages, tools, generation)
        places, marked = self._marks(messages, tools, generation, text)
        answers: list[_Answer] = []
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                last = number == len(messages) - 1
                answer = self._answer(text, messages, tools, number, places, loose and last)
                if answer is not None and (not answers or answer.prompt >= answers[-1].end):
                    answers.append(answer)
        # A content may be cut at its thoughts, so that only its end is there; the name of a call has but the end.
        seen = tuple(
            not here or number * 2 + 1 in places or (not message.get("tool_calls") and number * 2 in places)
            for number, (here, message) in enumerate(zip(marked, messages, strict=True))
        )
        return _Rendered(text, tuple(answers), seen)

    def _marks(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], generation: bool, text: str
    ) -> tuple[dict[int, list[int]], list[bool]]:
        """Find contents in rendered text by rendering them with marks around.

        Returns:
            Of each mark (2 a message: begin, end) where it is in the text, and of each message whether it was marked.
        """
        if any(_MARKS.search(part) for message in messages for part in _strings_of(message)):
            return {}, [False] * len(messages)
        around = [_marked(message, number) for number, message in enumerate(messages)]
        found = self._places(around, tools, generation, text)
        if found is not None:
            return found, [new is not old for new, old in zip(around, messages, strict=True)]
        places: dict[int, list[int]] = {}
        marked = [False] * len(messages)
        for number, new in enumerate(around):  # marks change what the template does with one of them
            if new is messages[number]:
                continue
            one = [new if other == number else old for other, old in enumerate(messages)]
            found = self._places(one, tools, generation, text)
            if found is not None:
                places.update(found)
                marked[number] = True
        return places, marked

    def _places(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], generation: bool, text: str
    ) -> dict[int, list[int]] | None:
        """Return where the marks are in the text without them; None where they change it."""
        try:
            with_marks = self._render(messages, tools, generation)
        except RowError:
            return None
        if _MARKS.sub("", with_marks) != text:
            return None
        found: dict[int, list[int]] = {}
        for before, mark in enumerate(_MARKS.finditer(with_marks)):
            found.setdefault(ord(mark[0]) - _MARK, []).append(mark.start() - before)
        return found

    def _answer(
        self,
        text: str,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]],
        number: int,
        places: Mapping[int, list[int]],
        loose: bool,
    ) -> _Answer | None:
        """Find one answer in rendered text; None where its borders can't be proved."""
        message = messages[number]
        begin = _only(places.get(number * 2))
        try:
            prompt: str | None = self._render(messages[:number], tools, True)
        except RowError:  # most templates have no words for a conversation without a message
            prompt = None
        if prompt is not None and text.startswith(prompt):
            at = len(prompt)
        elif begin is not None and (loose or prompt is None):
            at = self._behind_header(text[:begin])
            if at < 0:
                return None
        else:
            return None
        start = at
        if begin is not None and not reasoning_of(message):
            if begin < at:
                return None
            start = begin if text[at:begin].strip() else at
        elif self.opening and text.startswith(self.opening, at):
            start = at + len(self.opening)
        finish = next((place for place in places.get(number * 2 + 1, ()) if place >= start), None)
        end = self._end(text, messages, tools, number, start, finish, places)
        return None if end is None or end <= start else _Answer(number, at, start, end)

    def _behind_header(self, head: str) -> int:
        """Return where an answer may begin in the text before its content; -1 where no header is there."""
        if self.opening and head.endswith(self._generation + self.opening):
            return len(head) - len(self.opening)
        while head[-1:].isspace() and not head.endswith(self._generation):
            head = head[:-1]
        return len(head) if self._generation and head.endswith(self._generation) else -1

    def _end(
        self,
        text: str,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]],
        number: int,
        start: int,
        finish: int | None,
        places: Mapping[int, list[int]],
    ) -> int | None:
        message = messages[number]
        within = _json_text(message.get("tool_calls") or "")
        if finish is None and not message["content"] and not message.get("tool_calls"):
            finish = start if not reasoning_of(message) else None
        if finish is None or any(end in within for end in self._ends):
            return self._end_by_render(text, messages, tools, number, start)
        ends = [(place, end) for end in self._ends if (place := text.find(end, finish)) >= 0]
        if not ends:
            return None
        place, end = min(ends)
        later = [at for mark, found in places.items() if mark >= number * 2 + 2 for at in found if at >= start]
        return place + len(end) if place + len(end) <= min(later, default=len(text)) else None

    def _end_by_render(
        self,
        text: str,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]],
        number: int,
        start: int,
    ) -> int | None:
        """Find the end of an answer as the end of the conversation up to it."""
        try:
            until = self._render(messages[: number + 1], tools, False)
        except RowError:
            return None
        tail = self.end_of_turn + self._rest
        if len(until) < start or not text.startswith(until) or not until.endswith(tail):
            return None
        return len(until) - len(self._rest)

    # Proofs.

    def _prove(self, end_ids: tuple[int, ...]) -> None:
        """Find out what the template writes around contents, on made-up conversations.

        Raises:
            TemplateError: it can't be told where answers begin and end.
        """
        ask, say = {"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}
        thinking = {**say, "reasoning_content": "thought", "thinking": "thought"}
        try:
            self._prove_answer(ask, say, end_ids)
        except TemplateError:
            try:  # some write the beginning of a thought in front of each answer
                self._prove_answer(ask, thinking, end_ids)
                say, self.needs_thoughts = thinking, True
            except TemplateError:
                self._prove_answer(ask, say, end_ids)  # what is told is of the plain answer
        self._find_added(ask, say)
        self._find_forms(ask)

    def _prove_answer(self, ask: dict[str, Any], say: dict[str, Any], end_ids: tuple[int, ...]) -> None:
        """Find out what the template writes around one question and its answer.

        Raises:
            TemplateError: it can't be told where the answer begins and ends.
        """
        try:
            prompt, bare = self._render([ask], (), True), self._render([ask], (), False)
            text = self._render([ask, say], (), False)
        except RowError as error:
            raise TemplateError(f"{error}; it must take a question and its answer. {_ANOTHER}") from error
        places, _ = self._marks([ask, say], (), False, text)
        begin, finish = _only(places.get(2)), _only(places.get(3))
        if begin is None or finish is None:
            raise TemplateError(f"the chat template does not write answers as they are. {_ANOTHER}")
        if not text.startswith(prompt) or begin < len(prompt):
            hint = "template_options = enable_thinking=false, or g" if "enable_thinking" in self.template else "G"
            raise TemplateError(
                "the chat template's prompt (add_generation_prompt) is not how it begins the conversation with the "
                f"answer: {_cut(prompt)} against {_cut(text)}. {hint}{_ANOTHER[1:]}"
            )
        self.lacks_bos = self._backend.encode(text, add_special_tokens=False).ids[: len(self._prefix)] != self._prefix
        self._generation = prompt[len(bare) :] if prompt.startswith(bare) else ""
        lead = text[len(prompt) : begin]
        if lead.strip() and prompt == bare:
            raise TemplateError(
                f"the chat template writes {_cut(lead)} before an answer, but not with add_generation_prompt: what a "
                "sampler gets would not be what is trained. End it with {% if add_generation_prompt %}"
                f"{{{{ {json.dumps(lead, ensure_ascii=False)} }}}}{{% endif %}}, or give another template"
            )
        self.opening = "" if reasoning_of(say) or not lead.strip() else lead
        tail = text[finish:]
        end = self._end_token(tail)
        if end is None:
            raise TemplateError(
                f"the chat template writes no special token after the last answer (it writes {_cut(tail)}): a model "
                "trained with it never learns to stop. Put {{ eos_token }} behind an assistant's content, or give "
                "another template"
            )
        self.end_of_turn, self._tail = end, tail
        self._rest = tail[tail.find(end) + len(end) :]
        extra = [self.tokenizer.convert_ids_to_tokens(number) for number in end_ids]
        candidates = [self.end_of_turn, self.tokenizer.eos_token, *extra]
        self._ends = tuple(dict.fromkeys(text for text in candidates if text in self._added))

    def _end_token(self, tail: str) -> str | None:
        """Return the token that ends an answer: the tokenizer's end of text, or the first special one behind it."""
        if self.tokenizer.eos_token and self.tokenizer.eos_token in tail:
            return str(self.tokenizer.eos_token)
        special = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        for tokens in (special, set(self._added)):
            found = [(tail.find(token), -len(token), token) for token in tokens if token.strip() and token in tail]
            if found:
                return min(found)[2]
        return None

    def _find_added(self, ask: dict[str, Any], say: dict[str, Any]) -> None:
        """Find out what is put in front of a conversation without a system message."""
        twice = [ask, say, ask, say]
        try:
            text = self._render(twice, (), False)
        except RowError:
            return
        places, _ = self._marks(twice, (), False, text)
        first, finish, second = (_only(places.get(mark)) for mark in (0, 3, 4))
        if first is None or finish is None or second is None:
            return
        between = text[finish:second]
        if not between.startswith(self._tail):
            return
        header, head = between[len(self._tail) :], text[:first]
        if head.endswith(header):
            added, bos = head[: len(head) - len(header)], self.tokenizer.bos_token or ""
            if not (bos and header.startswith(bos)):  # some take <|im_start|> for it
                added = added.removeprefix(bos)
            self.added = added if added.strip() else ""

    def _find_forms(self, ask: dict[str, Any]) -> None:
        """Find out in which form the template takes arguments, and contents that are null."""
        tool = {"type": "function", "function": {"name": "xprobex", "description": "", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}}}}  # fmt: skip
        try:
            self.knows_tools = "xprobex" in self._render([ask], [tool], False)
        except RowError:
            self.knows_tools = False
        function = {"name": "xprobex", "arguments": {"city": "SF"}}
        call = {"id": "call00001", "type": "function", "function": function}
        wanted = re.compile(r'(?<!\\)"city": ?"SF"')

        def shown(as_text: bool, none_is_empty: bool) -> bool | None:
            self._arguments_as_text, self._none_is_empty = as_text, none_is_empty
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            try:
                text = self._render([ask, message], (), False)
            except RowError:
                return None
            return bool(wanted.search(text)) if "None" not in text else None

        forms = [(False, False), (False, True), (True, False), (True, True)]
        results = {form: shown(*form) for form in forms}
        best = next((form for form in forms if results[form]), None)
        best = best or next((form for form in forms if results[form] is not None), (False, False))
        self._arguments_as_text, self._none_is_empty = best

    def _check_seen(self, chat: Conversation, rendered: _Rendered) -> None:
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
            notes.add(f"the template added {_cut(self.added)}")
        if self.opening and any(map(chat.trains_on, range(len(chat.messages)))):
            notes.add(f"the template puts {_cut(self.opening)} in front of answers, which no sampler's prompt has: "
                      "it is read, not trained on")  # fmt: skip
        if chat.tools and not self.knows_tools:
            notes.add("the template does not show the descriptions of tools")

    @staticmethod
    def _lost_thought(message: dict[str, Any], text: str) -> bool:
        """Say whether the text of an answer lacks the thoughts of its message."""
        inside = (message["content"] or "").partition("</think>")
        thought = reasoning_of(message) or (inside[0].partition("<think>")[2] if inside[1] else "")
        return bool(thought.strip()) and thought.strip() not in text


def parse_options(text: str) -> dict[str, Any]:
    """Read variables of a template: `enable_thinking=false, reasoning_effort=low`.

    Args:
        text: names with values, which are JSON where they can be, else text; empty for none.

    Raises:
        DataError: a part without `=`.
    """
    options: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if not name.isidentifier() or not sign:
            raise DataError(f"template_options is {text}; it must be such as enable_thinking=false, effort=low.")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


EMPTY_ANSWER = "an answer is empty: only the end of its turn is trained on"
_ANOTHER = "Give another template (template), or train on rows of prompt and completion"


def _whole(text: str) -> str:
    """Return text; refuse half of a surrogate pair, which has no bytes."""
    half = _SURROGATE.search(text)
    if half:
        raise RowError("half a character", f"the lone surrogate \\u{ord(half[0]):04x}")
    return text


def _only(places: list[int] | None) -> int | None:
    """Return the one place of a mark; None where it has none, or several."""
    return places[0] if places and len(places) == 1 else None


def _joined(pieces: Sequence[_Piece]) -> list[_Piece]:
    return [piece for piece in pieces if piece.text]


def _marked(message: dict[str, Any], number: int) -> dict[str, Any]:
    """Put marks around the content of a message, inside of its white space, and behind the name of its last call."""
    begin, end = chr(_MARK + 2 * number), chr(_MARK + 2 * number + 1)
    content, calls = message["content"], message.get("tool_calls")
    core = (content or "").strip()
    if not core and not calls:
        return message
    new = dict(message)
    if core:
        left = content.index(core)
        new["content"] = content[:left] + begin + core + ("" if calls else end) + content[left + len(core) :]
    if calls:
        last = calls[-1]
        function = {**last["function"], "name": last["function"]["name"] + end}
        new["tool_calls"] = [*calls[:-1], {**last, "function": function}]
    return new


def _strings_of(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _strings_of(key)
            yield from _strings_of(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings_of(part)


def _json_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str) -> str:
    return json.dumps(text if len(text) <= 80 else f"{text[:40]} ... {text[-36:]}", ensure_ascii=False)
