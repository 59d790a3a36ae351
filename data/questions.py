"""Questions of a source: what its rows ask, without the answers that they may have."""

from collections.abc import Sequence
from dataclasses import dataclass

from data.chat_messages import Completion, Conversation, Document, Example, RowError
from data.conversations import TextSource
from data.data_error import DataError
from data.token_rows import SKIP, RowAccount

OWN_SYSTEM = "a system message of the row's own is not used"


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        place: where it comes from, such as `line 5`.
        chat: messages up to the answer, without a system message.
    """

    place: str
    chat: Conversation

    def after(self, system: str) -> Conversation:
        """Return the conversation behind a system message; the bare one where that is empty."""
        return behind(system, self.chat)


def behind(system: str, chat: Conversation) -> Conversation:
    """Put a system message in front of a conversation.

    Args:
        system: text of the message; empty for none.
        chat: a conversation without one.
    """
    if not system:
        return chat
    weights = (False, *chat.weights) if chat.weights else ()
    return Conversation(({"role": "system", "content": system}, *chat.messages), chat.tools, weights)


def read_questions(source: TextSource, on_bad_row: str = SKIP) -> tuple[list[Question], RowAccount]:
    """Read the questions of a source.

    A prompt or a line of text is what a user says. Of a conversation all is taken up to the last message that is not an
    assistant's.

    Args:
        source: rows of text, opened with `answers=False`.
        on_bad_row: `skip` leaves out rows that can't be used, and counts them; `stop` ends at the first.

    Returns:
        The questions, and the account of the rows, of which `used` counts the questions.

    Raises:
        DataError: a row that can't be used (with `stop`), or there is no question.
    """
    account = RowAccount(source.told(), digest=source.files.digest())
    found: list[Question] = []
    for row in source.rows():
        account.read += 1
        try:
            chat, had_system = _question(row.example)
        except RowError as error:
            account.refuse(source.path, row.place, error, on_bad_row)
            continue
        if had_system:
            account.notes.setdefault(OWN_SYSTEM, []).append(row.place)
        found.append(Question(row.place, chat))
    account.used = len(found)
    if not found:
        raise DataError(f"{source.path}: there is no question. {account.reasons() or 'There is no row'}.")
    return found, account


def _question(example: Example | RowError) -> tuple[Conversation, bool]:
    """Return a question, and whether its row had a system message."""
    if isinstance(example, RowError):
        raise example
    if isinstance(example, Completion | Document):
        text = example.prompt if isinstance(example, Completion) else example.text
        if not text.strip():
            raise RowError("the question is empty")
        return Conversation.of([{"role": "user", "content": text}]), False
    kept = without_system(example)
    last = max((n for n, message in enumerate(kept.messages) if message["role"] != "assistant"), default=-1)
    if last < 0:
        raise RowError("there is no question: no message of a user")
    chat = Conversation(kept.messages[: last + 1], kept.tools)
    if not any(message.get("content") for message in chat.messages):
        raise RowError("the question is empty")
    return chat, len(kept.messages) < len(example.messages)


def without_system(chat: Conversation) -> Conversation:
    """Return a conversation without its system messages."""
    kept: Sequence[int] = [n for n, each in enumerate(chat.messages) if each["role"] not in ("system", "developer")]
    weights = tuple(chat.weights[n] for n in kept) if chat.weights else ()
    return Conversation(tuple(chat.messages[n] for n in kept), chat.tools, weights)
