"""The folder of a service: who has it, its last state, and what its journal says has happened since.

    journal/00000007.journal ...       what has happened since state 7, file by file (`service/journal/journal.py`)
    journal/states/00000007/           all that was there before file 7 began; whole or not there:
        state.json                     registry, orders, facts; with its own digest and those of the folders below
        carried.journal                records of promises that still matter, out of the files before
        models/ID/, weights/VERSION/   adapters with moments and gradients; weights that are only sampled from
    checkpoints/                       what clients have saved under names (`service/tinker/tinker_models.py`)

A start reads the newest state and the files from its number on. Older ones are removed: a kill came between.
"""

import hashlib
import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from llm.base_model import BaseModel
from llm.shown_digest import shown_digest
from service.journal.journal import Journal
from service.journal.journal_file import JournalError, Place, Record, read_file
from storage.file_lock import FolderLock
from storage.files import output_errors, remove_temporaries, sync, write_json

_LOG = logging.getLogger(__name__)
_HOLDER = "holder.json"
STATE, CARRIED = "state.json", "carried.journal"
FORMAT = 1


@dataclass(frozen=True)
class State:
    """A service as it was at the beginning of a file of its journal.

    Attributes:
        folder: where it lies.
        told: what state.json says.
        carried: records of promises from before.
    """

    folder: Path
    told: Mapping[str, Any]
    carried: list[Record] = field(default_factory=list)


class Store:
    """The folder of a service, which is this process's alone for as long as the block lasts.

        with Store(folder, facts) as store:
            store.state, store.records, store.journal

    Args:
        folder: the folder; it is made.
        facts: what numbers depend on (`facts_of`).

    Attributes:
        state: the last state; None where there is none.
        records: what has happened since.
        journal: to be written to.
        behind: whether the last state lacks anything.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder, self.facts = folder, dict(facts)
        self.state: State | None = None
        self.records: list[Record] = []
        self.behind = False  # whether the last state lacks anything
        self._next = 1, 1  # numbers of the next file and record of the journal
        self._journal: Journal | None = None
        self._lock: FolderLock | None = None

    @property
    def journal(self) -> Journal:
        """What is written to."""
        if self._journal is None:
            raise RuntimeError("the store is not open")
        return self._journal

    @property
    def states(self) -> Path:
        """The folder of states."""
        return self.folder / "journal" / "states"

    def __enter__(self) -> "Store":
        """Take the folder and read it.

        Raises:
            JournalError: another service has it, it is damaged, or it is of another model.
            OutputError: it can't be written.
        """
        with output_errors(self.folder, "--folder"):
            self.states.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(self.folder)
        if not lock.take():
            raise JournalError(self._held())
        self._lock = lock
        try:
            self._read()
            with output_errors(self.folder, "--folder"):
                self.told(None)
                self._begin()
        except BaseException:
            lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._journal is not None:
            self._journal.close()
        (self.folder / _HOLDER).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()

    def told(self, url: str | None) -> None:
        """Say to others who has the folder.

        Args:
            url: where the service is; None where it isn't known yet.
        """
        write_json(self.folder / _HOLDER, {"process": os.getpid(), "host": platform.node(), "url": url,
                                           "since": time.strftime("%Y-%m-%d %H:%M:%S")})  # fmt: skip

    def state_folder(self, number: int) -> Path:
        """Return where the state is, or is to be, that was there when a file of the journal began."""
        return self.states / f"{number:08d}"

    def drop_before(self, number: int) -> None:
        """Remove what a whole state makes needless: older states, and files of the journal before it."""
        for path in self._numbered(self.states, ""):
            if int(path.name) < number:
                shutil.rmtree(path, ignore_errors=True)
        for path in self._numbered(self.folder / "journal", ".journal"):
            if int(path.stem) < number:
                path.unlink(missing_ok=True)

    # ---------------------------------------------------------------------------------------------------------- reading

    def _read(self) -> None:
        remove_temporaries(self.folder)
        states = self._numbered(self.states, "")
        first, number = 1, 1
        if states:
            self.state = _read_state(states[-1])
            first, number = int(states[-1].name), self.state.told["number"]
        self.drop_before(first)
        files = self._numbered(self.folder / "journal", ".journal")
        found = [int(path.stem) for path in files]
        if found != list(range(first, first + len(found))) or (self.state is not None and not found):
            missing = next((each for each in range(first, first + len(found) + 1) if each not in found), first)
            raise JournalError(
                f"{self.folder / 'journal'} lacks the file {missing:08d}.journal: what was promised there is lost. Put "
                "the folder back from a copy, or serve from another folder"
            )
        for path in files:
            last = path == files[-1]
            records, end = read_file(path, number, last)
            if last and (size := path.stat().st_size) > end:
                _LOG.warning("%s: cut %d bytes off its end, of a record that was not yet promised", path, size - end)
                _cut(path, end)
            self.records += records
            number += len(records)
        self.behind = any(each.fields["kind"] != "begin" for each in self.records)
        self._next = (found[-1] if found else 0) + 1, number
        self._require_base()

    def _require_base(self) -> None:
        told = [] if self.state is None else [self.state.told["facts"]]
        told += [each.fields["facts"] for each in self.records if each.fields["kind"] == "begin"]
        for facts in told:
            if facts["base_digest"] != self.facts["base_digest"]:
                theirs, ours = (
                    f"{each['base']} (digest {shown_digest(each['base_digest'])})" for each in (facts, self.facts)
                )
                raise JournalError(
                    f"{self.folder} is of the base model {theirs}, and this service's is {ours}: its models can't "
                    "go on. Serve that model, or give another folder by --folder"
                )

    def _begin(self) -> None:
        live: dict[str, Place] = {}
        for record in (*(self.state.carried if self.state else ()), *self.records):
            if record.fields["kind"] in ("request", "answer"):
                live[record.fields["id"]] = record.place
        file, number = self._next
        self._journal = Journal(self.folder / "journal", file, number, self.facts, live)

    def _held(self) -> str:
        try:
            told = json.loads((self.folder / _HOLDER).read_bytes())
            who = f"process {told['process']} on {told['host']}, since {told['since']}"
            who += f", at {told['url']}" if told["url"] else ""
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"
        return f"{self.folder} is in use by a service ({who}): stop that one, or give another folder by --folder"

    @staticmethod
    def _numbered(folder: Path, ending: str) -> list[Path]:
        return sorted(path for path in folder.iterdir()
                      if path.name.endswith(ending) and path.name.removesuffix(ending).isdecimal())  # fmt: skip


def facts_of(base: BaseModel, device: torch.device, program: str) -> dict[str, Any]:
    """Return what the bits of results depend on beside requests and weights.

    Args:
        base: the model.
        device: where it is.
        program: version of this program.
    """
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {
        "base": base.source, "base_digest": base.digest, "program": program, "torch": torch.__version__,
        "device": f"{device.type} {kind}", "threads": torch.get_num_threads(),
    }  # fmt: skip


def digest_of(content: Any) -> str:
    """Return the digest of plain data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_state(folder: Path) -> State:
    what = f"the state {folder} is damaged: put the folder back from a copy, or serve from another folder"
    try:
        whole = json.loads((folder / STATE).read_bytes())
        told = whole["content"]
        if digest_of(told) != whole["sha256"]:
            raise JournalError(f"{what} ({STATE} is not what was written)")
        if told["format"] != FORMAT:
            raise JournalError(f"{folder} has the format {told['format']}; this program knows {FORMAT}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JournalError(f"{what} ({error})") from error
    carried, end = read_file(folder / CARRIED, None, last=False)
    if end != told["carried"]:
        raise JournalError(f"{what} ({CARRIED} has {end} bytes, not {told['carried']})")
    return State(folder, told, carried)


def _cut(path: Path, size: int) -> None:
    with output_errors(path, "--folder"):
        os.truncate(path, size)
        sync(path)
