"""A chat for a person at a terminal: lines are questions, those that begin with / are commands."""

import contextlib
import dataclasses
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from commands.chat.conversation import Answer, Chat, ChatError
from constants.counting import counted
from constants.nearest import nearest
from data.data_error import DataError
from data.text_preview import printable
from llm.sampling_settings import SettingError
from storage.errors import OutputError
from storage.log_lines import wants_colours

_QUIET, _PLAIN = "\033[2m", "\033[0m"
_HELP = """/system TEXT    begin conversations with a system message; without TEXT: with none
/reset          forget the conversation; the system message stays
/undo           forget the last question and its answer
/retry          answer the last question anew
/compare        the base model's answer to the last question; /compare on or off: to each
/save FILE      add the conversation to FILE.jsonl, a line of training data; answers that were cut off are in it
                with weight 0, which leaves them untrained
/temperature X  0 takes the likeliest token each time; /top_p X, /top_k N, /max_tokens N and /seed N as well
/settings       what these are now
/help           this
/quit           end; so does Ctrl-D

Ctrl-C stops an answer. A line that ends with \\ goes on in the next one.
A question that begins with / is written with //."""
_SETTINGS: dict[str, Callable[[str], float | int]] = {
    "temperature": float, "top_p": float, "top_k": int, "max_tokens": int, "seed": int,
}  # fmt: skip
_MAY_BE_NONE = ("top_k", "max_tokens", "seed")
_COMMANDS = ("system", "reset", "undo", "retry", "compare", "save", "settings", "help", "quit", *_SETTINGS)
_OTHER_NAMES = {"exit": "quit", "bye": "quit", "q": "quit", "clear": "reset", "new": "reset", "?": "help"}


class CommandError(Exception):
    """A command that can't be done; the text says why."""


class Commands:
    """What lines that begin with / do.

    Args:
        chat: the conversation.
        tell: is given lines for the person.

    Attributes:
        compare: whether the base model answers each question too.
    """

    def __init__(self, chat: Chat, tell: Callable[[str], None], compare: bool = False) -> None:
        self.chat, self.tell, self.compare = chat, tell, compare

    def do(self, line: str) -> str | None:
        """Do a command.

        Args:
            line: the command, with its `/`.

        Returns:
            `quit`, `retry` or `compare` where the caller has something to do; None where all is done.

        Raises:
            CommandError: there is no such command, or it can't be done.
        """
        name, _, text = line[1:].strip().partition(" ")
        name, text = _OTHER_NAMES.get(name, name), text.strip()
        if name in _SETTINGS:
            self._set(name, text)
        elif name == "compare":
            return self._compare(text)
        elif name == "retry":
            if not self.chat.turns:
                raise CommandError("there is no question yet")
            return "retry"
        elif name == "quit":
            return "quit"
        elif name in _COMMANDS:
            getattr(self, f"_{name}")(text)
        else:
            near = nearest(name, _COMMANDS)
            raise CommandError(
                f"there is no command /{name}; {f'did you mean /{near}? ' if near else ''}/help shows all, and a "
                "question that begins with / is written with //"
            )
        return None

    def _system(self, text: str) -> None:
        self.chat.set_system(text)
        self.tell("the system message is set" if text else "there is no system message now")
        if self.chat.turns:
            self.tell("the conversation goes on with it; /reset begins anew")

    def _reset(self, _: str) -> None:
        self.chat.reset()
        self.tell("a new conversation" + (", with the system message" if self.chat.system else ""))

    def _undo(self, _: str) -> None:
        question = self.chat.undo()
        if question is None:
            raise CommandError("there is nothing to undo")
        self.tell(f"forgot the last question and its answer; {counted(len(self.chat.turns), 'turn')} left")

    def _save(self, text: str) -> None:
        if not self.chat.turns:
            raise CommandError("there is nothing to save yet")
        if not text:
            raise CommandError("where to? /save FILE.jsonl")
        path = Path(text).expanduser()
        if path.suffix != ".jsonl":
            raise CommandError(f"{path} does not end in .jsonl, by which training knows what it is: /save {path}.jsonl")
        lines = add_line(path, self.chat.json_line())
        self.tell(f"added to {path}, which holds {counted(lines, 'conversation')}: train_data={path}")

    def _compare(self, text: str) -> str | None:
        if text not in ("", "on", "off"):
            raise CommandError(f"/compare {text}: allowed are on, off, or nothing for the last question")
        if text == "off":
            self.compare = False
            self.tell("the base model no longer answers")
            return None
        self.chat.require_base()
        if text == "on":
            self.compare = True
            self.tell("the base model answers each question too")
            return None
        return "compare"

    def _set(self, name: str, text: str) -> None:
        if not text:
            self.tell(f"{name} is {_shown(getattr(self.chat.settings, name))}")
            return
        try:
            value = None if name in _MAY_BE_NONE and text in ("none", "off", "all") else _SETTINGS[name](text)
        except ValueError:
            raise CommandError(f"/{name} {text}: it must be a number") from None
        changed: dict[str, Any] = {name: value}
        try:
            self.chat.settings = dataclasses.replace(self.chat.settings, **changed)
        except SettingError as error:
            raise CommandError(str(error)) from error
        self.tell(f"{name} is {_shown(value)}")

    def _settings(self, _: str) -> None:
        self.tell(", ".join(f"{name} {_shown(getattr(self.chat.settings, name))}" for name in _SETTINGS))
        self.tell(f"system message: {self.chat.system or 'none'}")

    def _help(self, _: str) -> None:
        self.tell(_HELP)


class Terminal:
    """The chat of a person.

    Args:
        chat: the conversation.
        compare: whether the base model answers each question too.
    """

    def __init__(self, chat: Chat, compare: bool = False) -> None:
        self._chat = chat
        self._colours = wants_colours() and sys.stderr.isatty()
        self._commands = Commands(chat, self._tell, compare)

    def run(self) -> int:
        """Talk until the person leaves; returns the exit code."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - lines can be edited, and earlier ones are a key away
        self._tell("/help shows the commands, Ctrl-C stops an answer, Ctrl-D ends")
        while True:
            try:
                line = _read()
                if line.strip() and self._take(line) == "quit":
                    return 0
            except EOFError:
                sys.stderr.write("\n")
                return 0
            except KeyboardInterrupt as error:
                if str(error):  # SIGTERM, by its name
                    raise
                sys.stderr.write("\n")
                self._tell("Ctrl-D or /quit ends the chat")

    def _take(self, line: str) -> str | None:
        """Do what a line says, and go on whatever comes of it."""
        try:
            if line.startswith("/") and not line.startswith("//"):
                wanted = self._commands.do(line)
                if wanted == "retry":
                    question = self._chat.undo()
                    self._ask(question or "")
                elif wanted == "compare":
                    self._show(self._chat.base_answer, "base model")
                return wanted
            self._ask(line.removeprefix("/") if line.startswith("//") else line)
        except (ChatError, CommandError, DataError, OutputError) as error:
            self._tell(f"error: {error}")
        return None

    def _ask(self, question: str) -> None:
        self._show(lambda stopped: self._chat.ask(question, stopped), "")
        if self._commands.compare and self._chat.turns:
            self._show(self._chat.base_answer, "base model")

    def _show(self, answers: Callable[[Callable[[], bool]], Iterable[tuple[str, Answer]]], who: str) -> None:
        """Write an answer as it comes, and how it went."""
        last: Answer | None = None
        told = 0
        with _interrupts() as stopped:
            for text, answer in answers(stopped):
                last = answer
                for note in self._chat.notes[told:]:
                    self._tell(note)
                told = len(self._chat.notes)
                if who:
                    self._tell(f"{who}:")
                    who = ""
                sys.stdout.write(printable(text))
                sys.stdout.flush()
        sys.stdout.write("\n")
        sys.stdout.flush()
        if last is not None:
            end = last.end_line()
            self._tell(f"[{f'{end}; ' if end else ''}{last.line()}]")

    def _tell(self, line: str) -> None:
        sys.stderr.write(f"{_QUIET}{line}{_PLAIN}\n" if self._colours else f"{line}\n")
        sys.stderr.flush()


def _read() -> str:
    """Read a question, which goes on in the next line where a line ends with a backslash."""
    lines: list[str] = []
    prompt = "> "
    while True:
        if sys.stdout.isatty():
            line = input(prompt)
        else:  # answers alone go to the standard output
            sys.stderr.write(prompt)
            sys.stderr.flush()
            line = sys.stdin.readline()
            if not line:
                raise EOFError
            line = line.rstrip("\n")
        if not line.endswith("\\"):
            return "\n".join([*lines, line])
        lines.append(line[:-1])
        prompt = ". "


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Note a Ctrl-C instead of raising it, for a block; a second one is raised.

    Yields:
        Says whether there was one.
    """
    heard: list[int] = []

    def take(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, take)
    try:
        yield lambda: bool(heard)
    finally:
        signal.signal(signal.SIGINT, before)


def add_line(path: Path, line: str) -> int:
    """Add a line to a file of lines.

    Args:
        path: the file; it is made where it isn't there.
        line: the line.

    Returns:
        How many lines the file holds now.

    Raises:
        OutputError: it can't be written.
    """
    try:
        before = path.read_bytes() if path.exists() else b""
        lead = b"" if not before or before.endswith(b"\n") else b"\n"
        with path.open("ab") as stream:
            stream.write(lead + line.encode("utf-8", "backslashreplace") + b"\n")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}. Give another FILE") from error
    return len([each for each in before.split(b"\n") if each.strip()]) + 1


def _shown(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
