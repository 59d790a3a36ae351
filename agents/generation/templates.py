"""Rows out of samples alone, offline: what several samples have in common stays, what differs is put together anew.

What can be told apart without knowing what words mean:

- Of answers in JSON, the fields whose values stand in the question too; numbers in words up to twelve, in English.
- Else numbers, days, months, and names (words with a capital letter that don't begin a sentence), in the question, and
  in the answer where they stand there too. Names take one another's places where the same word is before both.

`vary` puts one other value into a sample, `new_cases` all others, `paraphrase` the values of a sample into the words of
another one, or (in English, where the answer doesn't repeat the question) says a question a little otherwise.
`documents` asks for what a passage defines. No meaning is known: an article may not fit what follows it, and a city may
stand where a person was.
"""

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from agents.generation.row_request import RowRequest
from agents.retrieval.passage import Passage
from agents.task.rows import TaskRow, bare_question
from data.chat_messages import RowError

MAKER = "templates"
_NUMBERS = dict(enumerate(
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
))  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)?(?![\w])")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][\w'-]+(?: [A-Z][\w'-]+)*")
_DAYS = frozenset(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"))
_MONTHS = frozenset((
    "January", "February", "March", "April", "June", "July", "August", "September", "October", "November", "December",
))  # fmt: skip  # May is a word
_OTHERWISE = (
    (r"\bdo not\b", "don't"), (r"\bdon't\b", "do not"), (r"\bcannot\b", "can't"), (r"\bcan't\b", "cannot"),
    (r"\bI am\b", "I'm"), (r"\bI'm\b", "I am"), (r"\bis not\b", "isn't"), (r"\bisn't\b", "is not"),
    (r"\bCan you\b", "Could you"), (r"\bCould you\b", "Can you"), (r"\bPlease (\w)", r"Kindly \1"),
    (r"\bI want\b", "I would like"), (r"\bI would like\b", "I want"), (r"\bbig\b", "large"), (r"\bsmall\b", "little"),
    (r"\bbuy\b", "purchase"), (r"\bhelp\b", "assist"), (r"\bneed\b", "require"), (r"\bshow\b", "display"),
)  # fmt: skip
_DEFINED = re.compile(
    r"^(?:(?:The|A|An) )?([A-Z]?[\w'-]+(?: [\w'-]+){0,3}) (is|are|was|were) (?:an?|the|one|any|those|what|where) "
    r"[^.?!]{8,200}[.]"
)


@dataclass(frozen=True)
class _Slot:
    """A value of a sample: its kind, how the question says it, and how the answer does."""

    kind: str
    asked: str
    answered: object


@dataclass(frozen=True)
class _Frame:
    """A sample without its values: question with `{0}`, `{1}`... in their places, and its slots in that order."""

    row: TaskRow
    pieces: tuple[str, ...]
    slots: tuple[_Slot, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(sorted(slot.kind for slot in self.slots))

    def filled(self, slots: Sequence[_Slot]) -> tuple[str, str] | None:
        """Return question and answer with other values, in the order of the slots; None where the answer can't be."""
        question = self.pieces[0] + "".join(
            slot.asked + piece for slot, piece in zip(slots, self.pieces[1:], strict=True)
        )
        values = _json_of(self.row.answer)
        if values is not None:
            return question, json.dumps({**values, **{slot.kind: slot.answered for slot in slots}}, ensure_ascii=False)
        answer = self.row.answer
        for before, after in zip(self.slots, slots, strict=True):
            if before.answered is not None:
                if answer.count(before.asked) != 1:
                    return None
                answer = answer.replace(before.asked, after.asked)
        return question, answer


def made_by_templates(
    rows: Sequence[TaskRow], ways: Sequence[str], count: int, seed: int, passages: Sequence[Passage]
) -> Iterator[TaskRow]:
    """Yield rows that are made of samples; fewer than wanted where the samples give no more.

    Args:
        rows: samples.
        ways: `paraphrase`, `vary`, `new_cases`, `documents`; they take turns.
        count: how many are tried.
        seed: of what is drawn: the same one gives the same rows.
        passages: pieces of documents.
    """
    draw = random.Random(seed)
    frames = [frame for row in rows if (frame := _frame(row)) is not None]
    pools: dict[str, list[_Slot]] = defaultdict(list)
    for frame in frames:
        for slot in frame.slots:
            if slot not in pools[slot.kind]:
                pools[slot.kind].append(slot)
    makers = {
        "vary": lambda: _varied(draw, frames, pools, 1), "new_cases": lambda: _varied(draw, frames, pools, 99),
        "paraphrase": lambda: _paraphrased(draw, frames, rows), "documents": lambda: None,
    }  # fmt: skip
    defined = iter(_defined(passages))
    for number in range(count):
        way = ways[number % len(ways)]
        made = next(defined, None) if way == "documents" else makers[way]()
        if made is not None:
            yield made


def _json_of(text: str) -> dict[str, object] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    # Only what can be written again just as it was.
    same = isinstance(value, dict) and text in (json.dumps(value), json.dumps(value, ensure_ascii=False))
    return value if same else None


def _frame(row: TaskRow) -> _Frame | None:
    """Find the values of a sample; None where it has none."""
    question, values = bare_question(row), _json_of(row.answer)
    found = list(_fields(question, values) if values is not None else _names(question, row.answer))
    found.sort(key=lambda one: one[0])
    spans = [(begin, begin + len(slot.asked)) for begin, slot in found]
    if not found or any(end > begin for (_, end), (begin, _) in pairwise(spans)):
        return None
    edges = [0, *(edge for span in spans for edge in span), len(question)]
    pieces = tuple(question[edges[at] : edges[at + 1]] for at in range(0, len(edges), 2))
    return _Frame(row, pieces, tuple(slot for _, slot in found))


def _fields(question: str, values: Mapping[str, object]) -> Iterator[tuple[int, _Slot]]:
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            continue
        said = [str(value)]
        if isinstance(value, int) and value in _NUMBERS:
            said += [_NUMBERS[value], _NUMBERS[value].capitalize()]
        for one in said:
            places = [found.start() for found in re.finditer(rf"(?<!\w){re.escape(one)}(?!\w)", question)]
            if len(places) == 1:
                yield places[0], _Slot(key, one, value)
                break


def _names(question: str, answer: str) -> Iterator[tuple[int, _Slot]]:
    for pattern in (_NUMBER, _NAME):
        for found in pattern.finditer(question):
            if question.count(found[0]) == 1:
                kind = "number" if pattern is _NUMBER else _kind_of_name(found[0], question[: found.start()])
                yield found.start(), _Slot(kind, found[0], found[0] if found[0] in answer else None)


def _kind_of_name(name: str, before: str) -> str:
    for kind, names in (("day", _DAYS), ("month", _MONTHS)):
        if name in names:
            return kind
    return f"name after {before.split()[-1].lower()}"


def _varied(
    draw: random.Random, frames: Sequence[_Frame], pools: Mapping[str, list[_Slot]], most: int
) -> TaskRow | None:
    if not frames:
        return None
    frame = draw.choice(frames)
    slots, changed = list(frame.slots), 0
    for at in draw.sample(range(len(slots)), len(slots)):
        others = [one for one in pools[slots[at].kind] if one.asked != slots[at].asked]
        if others and changed < most:
            other = draw.choice(others)
            answered = other.answered if slots[at].answered is None or other.answered is not None else other.asked
            # A number in words stays one where the sentence began with it, and a figure stays a figure.
            slots[at] = _Slot(other.kind, other.asked, answered)
            changed += 1
    made = frame.filled(slots) if changed else None
    return _row("vary" if most == 1 else "new_cases", made, [frame.row])


def _paraphrased(draw: random.Random, frames: Sequence[_Frame], rows: Sequence[TaskRow]) -> TaskRow | None:
    in_json = [frame for frame in frames if _json_of(frame.row.answer) is not None]
    if in_json:
        frame = draw.choice(in_json)
        rest = _rest(frame)
        others = [one for one in in_json if one is not frame and one.kinds == frame.kinds and _rest(one) == rest]
        if not others:
            return None
        other, mine = draw.choice(others), {slot.kind: slot for slot in frame.slots}
        made = other.filled([mine[slot.kind] for slot in other.slots])
        return _row("paraphrase", made and (made[0], frame.row.answer), [frame.row, other.row])
    row = draw.choice(list(rows))
    question = bare_question(row)
    if _repeats(question, row.answer):
        return None
    rules = [rule for rule in _OTHERWISE if re.search(rule[0], question)]
    if not rules:
        return None
    pattern, other_words = draw.choice(rules)
    return _row("paraphrase", (re.sub(pattern, other_words, question, count=1), row.answer), [row])


def _rest(frame: _Frame) -> dict[str, object]:
    """Return the fields of a frame's answer that the question doesn't say."""
    said = {slot.kind for slot in frame.slots}
    return {key: value for key, value in (_json_of(frame.row.answer) or {}).items() if key not in said}


def _repeats(question: str, answer: str) -> bool:
    """Whether an answer says the question's words: in other words it would be another answer."""
    asked, said = (re.findall(r"\w{3,}", text.lower()) for text in (question, answer))
    return sum(word in asked for word in said) * 2 > len(said)


def _defined(passages: Sequence[Passage]) -> Iterator[TaskRow]:
    for passage in passages:
        for sentence in re.split(r"(?<=[.])\s+", " ".join(passage.text.split())):
            if found := _DEFINED.match(sentence):
                if found[1].split()[0] in ("It", "This", "That", "There", "These", "They", "He", "She", "We", "Here"):
                    continue
                subject = sentence[: found.start(2)].strip()
                if subject.split()[0] in ("The", "A", "An"):
                    subject = subject[0].lower() + subject[1:]
                asked = f"What {found[2]} {subject}?"
                request = RowRequest("", "documents", 1, [], [passage])
                yield request.row(asked, found[0], MAKER)


def _row(way: str, made: tuple[str, str] | None, rows: Sequence[TaskRow]) -> TaskRow | None:
    if made is None:
        return None
    try:
        return RowRequest("", way, 1, rows).row(*made, MAKER)
    except RowError:
        return None
