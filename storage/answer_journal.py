"""Answers of a language model, kept as they come: a killed process loses none, and later runs use them again."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from storage.file_lock import FolderLock
from storage.files import output_errors, write_atomically, write_json

ANSWERS = "answers.jsonl"
FACTS = "facts.json"
WHOLE = "stop"  # how an answer ended that was not cut off


@dataclass(frozen=True)
class KeptAnswer:
    """One answer.

    Attributes:
        key: what was asked, as a digest.
        number: number of the answer among those to the same question, from 0.
        tokens: sampled ids, the one that ended it included.
        finish: `stop`, or `length` where it was cut off.
        text: its text.
        asked: what was asked, as columns of the file's lines: `prompt`, a list of messages, and perhaps `tools`.
    """

    key: str
    number: int
    tokens: tuple[int, ...]
    finish: str
    text: str
    asked: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> bytes:
        """Return the answer as a line of JSON, which is also a row of data to train on.

        The text of an answer that was cut off has another name, so that nobody takes it for a whole one.
        """
        text = {"completion" if self.finish == WHOLE else "cut_off": self.text}
        fields = {**self.asked, **text, "finish": self.finish, "number": self.number, "key": self.key,
                  "tokens": list(self.tokens)}  # fmt: skip
        return json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


class AnswerJournal:
    """The answers of one model by one way of sampling: a folder with a line for each answer.

    As a context it is this process's alone; another one waits until it is given back.

    Args:
        folder: the folder; it is made when the first answer is kept.
        facts: what all of the answers have in common, for people who look into the folder.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder, self._facts = folder, dict(facts)
        self._lock: FolderLock | None = None
        self._handle: int | None = None

    @property
    def file(self) -> Path:
        """The file of answers."""
        return self.folder / ANSWERS

    def __enter__(self) -> "AnswerJournal":
        with output_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(self.folder)
        self._lock.take(wait=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        if self._lock is not None:
            self._lock.release()

    def read(self) -> tuple[dict[tuple[str, int], KeptAnswer], int]:
        """Return the answers that are kept; see `read_answers`."""
        return read_answers(self.file)

    def keep(self, answers: Iterable[KeptAnswer]) -> None:
        """Add answers; they are with the system when this returns, so that a kill of this process can't lose them.

        Raises:
            OutputError: they can't be written.
        """
        with output_errors(self.file):
            if self._handle is None:
                self._handle = self._opened()
            rest = memoryview(b"".join(answer.line() for answer in answers))
            while rest:
                rest = rest[os.write(self._handle, rest) :]

    def _opened(self) -> int:
        """Open the file to write behind its last whole line."""
        if not (self.folder / FACTS).exists():
            write_json(self.folder / FACTS, self._facts)
        handle = os.open(self.file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        content = self.file.read_bytes()
        whole = content.rfind(b"\n") + 1
        os.ftruncate(handle, whole)
        os.lseek(handle, whole, os.SEEK_SET)
        return handle


def read_answers(file: Path) -> tuple[dict[tuple[str, int], KeptAnswer], int]:
    """Return the answers of a file by key and number, and how many lines can't be read.

    A line that was being written when a process was killed is no damage, and not counted.

    Args:
        file: the file; one that is not there has none.
    """
    try:
        content = file.read_bytes()
    except OSError:
        return {}, 0
    found, damaged = {}, 0
    for line in content.split(b"\n")[:-1]:
        answer = _parsed(line)
        if answer is None:
            damaged += 1
        else:
            found[answer.key, answer.number] = answer
    return found, damaged


def write_answers(file: Path, answers: Iterable[KeptAnswer]) -> None:
    """Write a file of answers that `read_answers` reads.

    Raises:
        OutputError: it can't be written.
    """
    write_atomically(file, b"".join(answer.line() for answer in answers))


def _parsed(line: bytes) -> KeptAnswer | None:
    try:
        found = json.loads(line.decode("utf-8", "surrogatepass"))
        tokens = tuple(int(token) for token in found["tokens"])
        text = found["completion"] if "completion" in found else found["cut_off"]
        asked = {name: found[name] for name in ("prompt", "tools") if name in found}
        return KeptAnswer(str(found["key"]), int(found["number"]), tokens, str(found["finish"]), str(text), asked)
    except (ValueError, KeyError, TypeError):
        return None
