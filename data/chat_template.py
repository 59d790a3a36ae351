"""Chat templates: the text of a conversation, and where answers lie in it, which is proved or refused."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from data.chat_messages import SURROGATE, Conversation, RowError, half_a_character, reasoning_of, strings_of
from data.data_error import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PRESENT = datetime(2024, 7, 26)  # what templates of Llama 3 write where nobody tells them the date
_MARK = 0xF0000  # the first of the characters for private use by which contents are found again in rendered text
_MARKS = re.compile("[\U000f0000-\U000ffffd]")
_CLOCK = re.compile(r"strftime_now\(\s*(\"[^\"]*\"|'[^']*')\s*\)")
_ANOTHER = "Give another template (template), or train on rows of prompt and completion"


class TemplateError(DataError):
    """A chat template with which it can't be proved what an answer is; the text says why, and what to do."""


@dataclass(frozen=True)
class Answer:
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
class Rendered:
    """The text of a conversation.

    Attributes:
        text: as the template writes it.
        answers: answers whose borders are proved, in their order.
        seen: of each message whether the template shows it; true where that can't be told.
    """

    text: str
    answers: tuple[Answer, ...]
    seen: tuple[bool, ...]


@dataclass(frozen=True)
class _Shown:
    """A conversation as the template writes it, and where its contents are in the text.

    Attributes:
        messages: its messages.
        tools: its descriptions of tools.
        text: the text.
        places: of each mark (2 a message: begin, end) where it is in the text.
        marked: of each message whether it was marked.
    """

    messages: Sequence[dict[str, Any]]
    tools: Sequence[dict[str, Any]]
    text: str
    places: Mapping[int, list[int]]
    marked: Sequence[bool]

    def begin(self, number: int) -> int | None:
        """Return where the content of a message begins; None where that can't be told, or it is there twice."""
        return _only(self.places.get(number * 2))

    def end(self, number: int) -> int | None:
        """Return where the content of a message ends; None where that can't be told, or it is there twice."""
        return _only(self.places.get(number * 2 + 1))


class ChatTemplate:
    """Writes conversations as text by a chat template, and says where their answers lie.

    Contents are marked, the marked conversation is rendered, and the marks tell where each answer lies; that the text
    is the same without marks is checked. The text in front of an answer must be, to the character, the prompt that a
    sampler gets.

    Args:
        tokenizer: tokenizer that fills in the template.
        template: chat template in Jinja; None takes the tokenizer's own.
        end_ids: further ids that end an answer, beside those of the tokenizer and the template.
        options: further variables of the template, such as `{"enable_thinking": False}`.
        now: what the template takes for the present, where it writes the date.

    Attributes:
        template: the chat template, as it is to be exported.
        added_ids: ids of the tokens that were added to the tokenizer, by their text.
        end_of_turn: special token that the template writes after an answer.
        end_ids: ids that end an answer, lowest first.
        added: text that the template puts in front of a conversation without a system message.
        opening: text that the template puts in front of an answer, and that is not in a sampler's prompt.
        needs_thoughts: whether the template's prompt begins a thought, so that answers without one can't be trained on.
        knows_tools: whether the template shows descriptions of tools.
        uses_clock: whether the template writes the date.
        example: a made-up question with its answer, as the template writes them.

    Raises:
        TemplateError: there is no template, or it can't be proved where its answers begin and end.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        template: str | None = None,
        end_ids: Iterable[int] = (),
        options: Mapping[str, Any] | None = None,
        now: datetime = PRESENT,
    ) -> None:
        own = tokenizer.chat_template
        template = template or (own if isinstance(own, str) else (own or {}).get("default"))
        if not template:
            raise TemplateError("the tokenizer has no chat template: give one (template)")
        self.template, self.uses_clock = template, "strftime_now" in template
        self._tokenizer, self._options = tokenizer, dict(options or {})
        self._rendered_by = _CLOCK.sub(lambda found: json.dumps(now.strftime(found[1][1:-1])), template)
        self.added_ids = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
        self.end_of_turn = self.added = self.opening = self.example = self._generation = self._rest = self._tail = ""
        self._none_is_empty = self._arguments_as_text = False
        self.needs_thoughts = False
        self._ends: tuple[str, ...] = ()
        end_ids = tuple(end_ids)
        self._prove(end_ids)
        self.end_ids = tuple(sorted({self.added_ids[text] for text in self._ends} | set(end_ids)))

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
                self._tokenizer.apply_chat_template(
                    chat, tools=list(tools) or None, chat_template=self._rendered_by, add_generation_prompt=generation,
                    tokenize=False, **self._options,
                )
            )  # fmt: skip
        except ImportError as error:
            raise DataError("chat templates need jinja2: pip install -r requirements-language.txt") from error
        except Exception as error:  # a template may raise anything
            said = str(error).strip().splitlines()
            raise RowError(f"the chat template refuses it: {said[0] if said else type(error).__name__}") from error
        return require_whole(text)

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

    def located(self, chat: Conversation, generation: bool, loose: bool = False) -> Rendered:
        """Render a conversation and find its answers.

        Args:
            chat: the conversation.
            generation: whether what comes before an answer is put behind it.
            loose: whether it is enough for the last answer that its header stands before it, whatever comes earlier.

        Returns:
            The text, and those answers whose borders are proved.

        Raises:
            RowError: the template refuses it; the text has the template's own words.
        """
        found = self._shown(chat.messages, chat.tools, generation)
        answers: list[Answer] = []
        for number, message in enumerate(chat.messages):
            if message["role"] == "assistant":
                last = number == len(chat.messages) - 1
                answer = self._answer(found, number, loose and last)
                if answer is not None and (not answers or answer.prompt >= answers[-1].end):
                    answers.append(answer)
        # A content may be cut at its thoughts, so that only its end is there; the name of a call has but the end.
        seen = tuple(
            not here or number * 2 + 1 in found.places or (not message.get("tool_calls") and number * 2 in found.places)
            for number, (here, message) in enumerate(zip(found.marked, chat.messages, strict=True))
        )
        return Rendered(found.text, tuple(answers), seen)

    def _shown(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], generation: bool) -> _Shown:
        """Render a conversation, and find its contents in the text by rendering them with marks around."""
        text = self._render(messages, tools, generation)
        if any(_MARKS.search(part) for message in messages for part in strings_of(message)):
            return _Shown(messages, tools, text, {}, [False] * len(messages))
        around = [_marked(message, number) for number, message in enumerate(messages)]
        found = self._places(around, tools, generation, text)
        if found is not None:
            marked = [new is not old for new, old in zip(around, messages, strict=True)]
            found.update(self._places_of_empty(messages, tools, generation, text))
            return _Shown(messages, tools, text, found, marked)
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
        places.update(self._places_of_empty(messages, tools, generation, text))
        return _Shown(messages, tools, text, places, marked)

    def _places_of_empty(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], generation: bool, text: str
    ) -> dict[int, list[int]]:
        """Find where empty messages of others than assistants are: where text would be, if nothing else changes."""
        found = {}
        for number, message in enumerate(messages):
            if message["role"] == "assistant" or (message["content"] or "").strip():
                continue
            filled = [*messages[:number], {**message, "content": chr(_MARK + 2 * number)}, *messages[number + 1 :]]
            try:
                before, mark, _ = self._render(filled, tools, generation).partition(chr(_MARK + 2 * number))
            except RowError:
                continue
            if mark and text.startswith(before):
                found[2 * number] = [len(before)]
        return found

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

    def _answer(self, shown: _Shown, number: int, loose: bool) -> Answer | None:
        """Find one answer in rendered text; None where its borders can't be proved."""
        text, begin = shown.text, shown.begin(number)
        try:
            prompt: str | None = self._render(shown.messages[:number], shown.tools, True)
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
        if begin is not None and begin < at and not reasoning_of(shown.messages[number]):
            return None
        # What the template is known to put in is not trained on; anything else is of this answer: calls that stand in
        # front of its text, a thought that its text begins with.
        start = at + len(self.opening) if text.startswith(self.opening, at) else at
        end = self._end(shown, number, start)
        return None if end is None or end <= start else Answer(number, at, start, end)

    def _behind_header(self, head: str) -> int:
        """Return where an answer may begin in the text before its content; -1 where no header is there."""
        if self.opening and head.endswith(self._generation + self.opening):
            return len(head) - len(self.opening)
        while head[-1:].isspace() and not head.endswith(self._generation):
            head = head[:-1]
        return len(head) if self._generation and head.endswith(self._generation) else -1

    def _end(self, shown: _Shown, number: int, start: int) -> int | None:
        """Find where an answer that begins at `start` ends; None where it can't be proved."""
        message, text = shown.messages[number], shown.text
        finish = next((place for place in shown.places.get(number * 2 + 1, ()) if place >= start), None)
        within = _json_text(message.get("tool_calls") or "")
        if finish is None and not message["content"] and not message.get("tool_calls"):
            finish = start if not reasoning_of(message) else None
        if finish is None or any(end in within for end in self._ends):
            return self._end_by_render(shown, number, start)
        ends = [(place, end) for end in self._ends if (place := text.find(end, finish)) >= 0]
        if not ends:
            return None
        place, end = min(ends)
        after = number + 1
        unknown = after < len(shown.messages) and not {2 * after, 2 * after + 1} & shown.places.keys()
        if unknown and text[finish:place].strip() != self._tail.partition(self.end_of_turn)[0].strip():
            return self._end_by_render(shown, number, start)  # the next message, an empty one, may lie between
        later = [at for mark, found in shown.places.items() if mark >= number * 2 + 2 for at in found if at >= start]
        return place + len(end) if place + len(end) <= min(later, default=len(text)) else None

    def _end_by_render(self, shown: _Shown, number: int, start: int) -> int | None:
        """Find the end of an answer as the end of the conversation up to it."""
        try:
            until = self._render(shown.messages[: number + 1], shown.tools, False)
        except RowError:
            return None
        tail = self.end_of_turn + self._rest
        if len(until) < start or not shown.text.startswith(until) or not until.endswith(tail):
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
            shown = self._shown([ask, say], (), False)
        except RowError as error:
            raise TemplateError(f"{error}; it must take a question and its answer. {_ANOTHER}") from error
        text, begin, finish = shown.text, shown.begin(1), shown.end(1)
        if begin is None or finish is None:
            raise TemplateError(f"the chat template does not write answers as they are. {_ANOTHER}")
        if not text.startswith(prompt) or begin < len(prompt):
            hint = "template_options = enable_thinking=false, or g" if "enable_thinking" in self.template else "G"
            raise TemplateError(
                "the chat template's prompt (add_generation_prompt) is not how it begins the conversation with the "
                f"answer: {quoted(prompt)} against {quoted(text)}. {hint}{_ANOTHER[1:]}"
            )
        self.example = text
        self._generation = prompt[len(bare) :] if prompt.startswith(bare) else ""
        lead = text[len(prompt) : begin]
        if lead.strip() and prompt == bare:
            raise TemplateError(
                f"the chat template writes {quoted(lead)} before an answer, but not with add_generation_prompt: what a "
                "sampler gets would not be what is trained. End it with {% if add_generation_prompt %}"
                f"{{{{ {json.dumps(lead, ensure_ascii=False)} }}}}{{% endif %}}, or give another template"
            )
        self.opening = "" if reasoning_of(say) or not lead.strip() else lead
        tail = text[finish:]
        end = self._end_token(tail)
        if end is None:
            raise TemplateError(
                f"the chat template writes no special token after the last answer (it writes {quoted(tail)}): a model "
                "trained with it never learns to stop. Put {{ eos_token }} behind an assistant's content, or give "
                "another template"
            )
        self.end_of_turn, self._tail = end, tail
        self._rest = tail[tail.find(end) + len(end) :]
        extra = [self._tokenizer.convert_ids_to_tokens(number) for number in end_ids]
        candidates = [self.end_of_turn, self._tokenizer.eos_token, *extra]
        self._ends = tuple(dict.fromkeys(text for text in candidates if text in self.added_ids))

    def _end_token(self, tail: str) -> str | None:
        """Return the token that ends an answer: the tokenizer's end of text, or the first special one behind it."""
        if self._tokenizer.eos_token and self._tokenizer.eos_token in tail:
            return str(self._tokenizer.eos_token)
        special = {token.content for token in self._tokenizer.added_tokens_decoder.values() if token.special}
        for tokens in (special, set(self.added_ids)):
            found = [(tail.find(token), -len(token), token) for token in tokens if token.strip() and token in tail]
            if found:
                return min(found)[2]
        return None

    def _find_added(self, ask: dict[str, Any], say: dict[str, Any]) -> None:
        """Find out what is put in front of a conversation without a system message."""
        twice = [ask, say, ask, say]
        try:
            shown = self._shown(twice, (), False)
        except RowError:
            return
        text, first, finish, second = shown.text, shown.begin(0), shown.end(1), shown.begin(2)
        if first is None or finish is None or second is None:
            return
        between = text[finish:second]
        if not between.startswith(self._tail):
            return
        header, head = between[len(self._tail) :], text[:first]
        if head.endswith(header):
            added, bos = head[: len(head) - len(header)], self._tokenizer.bos_token or ""
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


def require_whole(text: str) -> str:
    """Return text; refuse half of a surrogate pair, which has no bytes."""
    half = SURROGATE.search(text)
    if half:
        raise half_a_character(half[0])
    return text


def _only(places: list[int] | None) -> int | None:
    """Return the one place of a mark; None where it has none, or several."""
    return places[0] if places and len(places) == 1 else None


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


def _json_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def quoted(text: str) -> str:
    """Return text in quotes for a message, its middle left out where it is long."""
    return json.dumps(text if len(text) <= 80 else f"{text[:40]} ... {text[-36:]}", ensure_ascii=False)
