"""The journal of a workflow: one line for each thing that happened, on disk before anything is done about it."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from storage.file_lock import FolderLock
from storage.files import sync

FOLDER = ".workflow"
"""Folder of a project that holds its journal and logs."""
_FILE = "journal.jsonl"
KINDS = ("started", "done", "failed", "stopped", "reset")


class JournalError(Exception):
    """A journal that can't be read or written; the text says why and what to do."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a step.

    Attributes:
        kind: one of KINDS: a step was started, is done, has failed, was stopped by a person or a signal, or what it did
            is no longer wanted (reset).
        step: number of the step.
        time: seconds since 1970.
        facts: what else is known of it, JSON values: of `started` and `done` the `request` (`state.request_digest`),
            of `done` digests of `inputs` and `outputs`, `figures` of the checks, `seconds`, `tokens` and `dollars`, of
            `failed` and `stopped` the exit `code` and a `text`.
    """

    kind: str
    step: int
    time: float
    facts: Mapping[str, object] = field(default_factory=dict)


class Journal:
    """The journal of a project's folder. Whoever appends must hold it: `with Journal(folder).held() as journal`.

    Args:
        folder: the project's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._file = self.folder / _FILE
        self._lock: FolderLock | None = None

    @property
    def logs(self) -> Path:
        """Folder of the steps' output."""
        return self.folder / "logs"

    def held(self) -> Self:
        """Take the journal for this process.

        Raises:
            JournalError: another process has it, or the folder can't be made.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            (self.folder / ".gitignore").write_text("*\n", encoding="utf-8")
        except OSError as error:
            raise JournalError(f"{self.folder} can't be made: {error.strerror}") from None
        lock = FolderLock(self.folder)
        if not lock.take():
            raise JournalError(
                f"{self.folder.parent} is being run by another process; `workflow.py status` shows how far it is."
            )
        self._lock = lock
        self._drop_torn_line()
        return self

    def is_held(self) -> bool:
        """Return whether some process runs this workflow now."""
        if self._lock is not None:
            return True
        if not self.folder.is_dir():
            return False
        lock = FolderLock(self.folder)
        taken = lock.take()
        lock.release()
        return not taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the journal back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def append(self, kind: str, step: int, facts: Mapping[str, object] | None = None) -> Event:
        """Write an event to disk; when this returns, it is there after a power cut.

        Args:
            kind: one of KINDS.
            step: number of the step.
            facts: what else is known, JSON values.

        Raises:
            JournalError: the journal isn't held, or the disk is full.
        """
        if self._lock is None:
            raise JournalError("the journal is not held by this process")
        event = Event(kind, step, round(time.time(), 3), dict(facts or {}))
        line = json.dumps({**event.facts, "kind": kind, "step": step, "time": event.time}, allow_nan=False) + "\n"
        new = not self._file.exists()
        try:
            handle = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                written = os.write(handle, line.encode())
                if written != len(line.encode()):
                    os.ftruncate(handle, os.fstat(handle).st_size - written)
                    raise JournalError(
                        f"{self._file}: the disk is full; free some space and go on with `workflow.py run`"
                    )
                os.fsync(handle)
            finally:
                os.close(handle)
            if new:
                sync(self.folder)
        except OSError as error:
            raise JournalError(f"{self._file} can't be written: {error.strerror}") from None
        return event

    def read(self) -> list[Event]:
        """Return what happened, in order; a last line that a kill has torn is left out.

        Raises:
            JournalError: it can't be read, or a line in the middle is none of this program's.
        """
        try:
            text = self._file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise JournalError(f"{self._file} can't be read: {error.strerror}") from None
        lines = text.split("\n")
        events = []
        for number, line in enumerate(lines[:-1], 1):  # what follows the last line break is torn
            try:
                facts = json.loads(line)
                kind, step, when = str(facts.pop("kind")), int(facts.pop("step")), float(facts.pop("time"))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise JournalError(
                    f"{self._file}:{number}: no line of this program. Take the line out, or move the file away to "
                    "begin anew: finished files stay, and steps check them."
                ) from None
            events.append(Event(kind, step, when, facts))
        return events

    def _drop_torn_line(self) -> None:
        """Cut a line that a kill has torn, so that the next one is whole."""
        if not self._file.exists():
            return
        with self._file.open("r+b") as stream:
            content = stream.read()
            kept = content.rfind(b"\n") + 1
            if kept < len(content):
                stream.truncate(kept)
