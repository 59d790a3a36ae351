"""The files of the memory: MEMORY.md with the newest facts, a file per distribution with older ones."""

import contextlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from constants import ARTIFACTS_DIR
from doctor.files import write_atomically
from doctor.memory.fact import BadLine, Fact, read_line, written

DEFAULT_FOLDER = ARTIFACTS_DIR / "doctor" / "memory"
INDEX = "MEMORY.md"
MOST_LINES = 200
_TITLE = "# What the doctor has proved"
_ABOUT = (
    "One fact a line, in the order of the packages that they are about; edit and share them as you like.",
    "A line that is struck out was disproved later. Older facts are in the files named at the end.",
)
_FAULTS = "## Faults and what mends them"
_SETS = "## Known-good sets"
_OLDER = "## Older facts"
_NOTES = "## Notes"
_HEADINGS = (_TITLE, *_ABOUT, _FAULTS, _SETS, _OLDER, _NOTES)
_TOPIC_LINE = re.compile(r"- \[[^\]]+\]\([^)]+\.md\): \d+")
_CONFLICT = re.compile(r"(<{7}|={7}|>{7}|\|{7})( .*)?$")


@dataclass(frozen=True)
class Problem:
    """A line that was skipped: its place, "MEMORY.md:12", and why."""

    place: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.why}"


@dataclass(frozen=True)
class Memory:
    """All that a folder holds.

    Args:
        facts: in the order of the files; each once.
        problems: lines that were skipped.
        notes: other lines by file, which somebody wrote and which stay.
    """

    facts: tuple[Fact, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def find(self, fact_id: str) -> Fact | None:
        """Return the fact of an id, or of the only id that begins so."""
        found = [one for one in self.facts if one.id.startswith(fact_id)]
        return found[0] if len(found) == 1 else None


def read_memory(folder: Path = DEFAULT_FOLDER) -> Memory:
    """Read the memory of a folder; one that is not there is an empty one."""
    facts: dict[str, Fact] = {}
    problems: list[Problem] = []
    notes: list[tuple[str, tuple[str, ...]]] = []
    for path in _files(folder):
        kept = []
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            problems.append(Problem(path.name, f"it cannot be read: {error.strerror or error}"))
            continue
        for number, line in enumerate(lines, 1):
            place = f"{path.name}:{number}"
            if _CONFLICT.match(line):
                problems.append(Problem(place, "a mark of a merge conflict; the facts of both sides are taken"))
            elif line.startswith("- ") and not _TOPIC_LINE.match(line):
                try:
                    fact = read_line(line)
                except BadLine as bad:
                    problems.append(Problem(place, str(bad)))
                    kept.append(line)
                    continue
                facts[fact.id] = together(facts[fact.id], fact) if fact.id in facts else fact
            elif line.strip() and line not in _HEADINGS and not _TOPIC_LINE.match(line) and line != _heading(path):
                kept.append(line)
        if kept:
            notes.append((path.name, tuple(dict.fromkeys(kept))))
    return Memory(tuple(facts.values()), tuple(problems), tuple(notes))


def together(one: Fact, other: Fact) -> Fact:
    """Return what two lines of the same fact say: the newer proof, the larger count, struck out by a later word."""
    newer, older = (one, other) if (one.date, one.times) >= (other.date, other.times) else (other, one)
    struck = max(one, other, key=lambda fact: fact.struck)
    holds = not struck.struck or (not newer.struck and newer.date > struck.struck)
    return replace(
        newer, times=max(one.times, other.times), log=newer.log or older.log, found_by=newer.found_by or older.found_by,
        struck="" if holds else struck.struck, why="" if holds else struck.why,
    )  # fmt: skip


@contextmanager
def changing(folder: Path = DEFAULT_FOLDER) -> Iterator[list[Fact]]:
    """Give the facts of a folder to be changed in place, and write them; of several processes one at a time does.

    Raises:
        OSError: the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        memory = read_memory(folder)
        facts = list(memory.facts)
        yield facts
        _write(folder, facts, memory)


def _write(folder: Path, facts: list[Fact], memory: Memory) -> None:
    """Write all files: the newest facts into MEMORY.md, as many as fit, the others by distribution."""
    notes = dict(memory.notes)
    newest_first = sorted(facts, key=lambda one: (not one.struck, one.date, one.id), reverse=True)
    kept = min(len(facts), MOST_LINES)
    while True:
        counts = Counter(one.topic for one in newest_first[kept:])
        index = _index_lines(sorted(newest_first[:kept], key=_order), counts, notes.get(INDEX, ()))
        if len(index) <= MOST_LINES or not kept:
            break
        kept -= 1
    before = _files(folder)
    for topic in counts:
        of_topic = sorted((one for one in newest_first[kept:] if one.topic == topic), key=_order)
        _write_lines(folder / f"{topic}.md", [f"# {topic}", "", *map(written, of_topic)], notes.get(f"{topic}.md", ()))
    _write_lines(folder / INDEX, index, ())
    for path in before:
        if path.name != INDEX and path.stem not in counts:  # all of its facts went to MEMORY.md
            noted = notes.get(path.name, ())
            if noted:
                _write_lines(path, [_heading(path)], noted)
            else:
                path.unlink(missing_ok=True)
    for name, content in ((".gitattributes", b"*.md merge=union\n"), (".gitignore", b".lock\n")):
        if not (folder / name).exists():  # two people's new lines are both kept
            write_atomically(folder / name, content)


def _index_lines(facts: list[Fact], counts: Mapping[str, int], notes: Iterable[str]) -> list[str]:
    lines = [_TITLE, "", *_ABOUT]
    lines += ["", _FAULTS, "", *(written(one) for one in facts if not one.name)]
    lines += ["", _SETS, "", *(written(one) for one in facts if one.name)]
    if counts:
        lines += ["", _OLDER, "", *(f"- [{topic}]({topic}.md): {count}" for topic, count in sorted(counts.items()))]
    noted = list(notes)
    return [*lines, "", _NOTES, "", *noted] if noted else lines


def _write_lines(path: Path, lines: list[str], notes: Iterable[str]) -> None:
    noted = list(notes)
    whole = [*lines, *(("", _NOTES, "", *noted) if noted else ())]
    content = "".join(f"{line}\n" for line in whole).encode()
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)


def _order(fact: Fact) -> tuple[str, str]:
    return fact.topic, fact.id


def _heading(path: Path) -> str:
    return f"# {path.stem}"


def _files(folder: Path) -> list[Path]:
    """Return the files of a memory, MEMORY.md first; files without a fact are not ours."""
    others = (path for path in sorted(folder.glob("*.md")) if path.name != INDEX and " · proved: " in _text(path))
    return [*([folder / INDEX] if (folder / INDEX).exists() else []), *others]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which goes with its process; a file system without locks gives it to everybody."""
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
            else:
                import fcntl

                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
