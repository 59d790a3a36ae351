"""Reads README.md and docs/*.md: their fenced blocks, the notes before these, and the commands in them."""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
NEVER_RUN = ("make", "sbatch", "squeue", "scancel", "srun", "ssh", "pip", "docker", "git")  # as first words
_NOTE = re.compile(r"<!--\s*(not run|needs|exit|test|file|append|run|served)\b\s*(?:\[(.*?)\])?\s*:?\s*(.*?)\s*-->")
_FENCE = re.compile(r"^(\s*)(`{3,})\s*(\w*)\s*$")


@dataclass(frozen=True)
class Note:
    """An HTML comment before a block, such as `<!-- exit [--replay] 2 -->`.

    Attributes:
        kind: not run, needs, exit, test, file, append, run or served.
        only: text of the commands that it is for; empty for all of the block.
        text: what stands behind the kind.
    """

    kind: str
    only: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command of an `sh` block.

    Attributes:
        where: `README.md:31`.
        text: without its comment, lines that end in a backslash joined.
        exit_code: that it must end with.
        settings: `key=value` words that a test adds to it.
        not_run: why a test can't run it; empty where it does.
    """

    where: str
    text: str
    exit_code: int = 0
    settings: tuple[str, ...] = ()
    not_run: str = ""

    @property
    def parts(self) -> list[list[str]]:
        """Its words, without assignments of variables; several lists where `&&`, `|` or `;` join several commands."""
        lexer = shlex.shlex(self.text, posix=True, punctuation_chars=True)
        lexer.whitespace_split, lexer.commenters = True, "#"
        parts: list[list[str]] = [[]]
        words = iter(lexer)
        for word in words:
            if set(word) <= set("&|;()"):
                parts.append([])
            elif set(word) <= set("<>"):
                next(words, None)  # the file that is read or written
            elif parts[-1] or not re.match(r"\w+=", word):
                parts[-1].append(word)
        return [part for part in parts if part]


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: `README.md`.
        line: of its first line of text.
        language: `sh`, `python`, `ini`, or empty.
        text: without the fences.
        notes: the comments right before it.
    """

    page: str
    line: int
    language: str
    text: str
    notes: tuple[Note, ...]

    @property
    def where(self) -> str:
        """Page and line."""
        return f"{self.page}:{self.line}"

    def note(self, kind: str) -> Note | None:
        """The block's note of a kind."""
        return next((note for note in self.notes if note.kind == kind), None)

    @property
    def commands(self) -> list[Command]:
        """The commands of an `sh` block."""
        found, text, first = [], "", 0
        for number, line in enumerate(self.text.splitlines(), self.line):
            first = first if text else number
            text += line.removesuffix("\\")
            if line.endswith("\\"):
                continue
            if shown := _without_comment(text):
                found.append(self._command(f"{self.page}:{first}", shown))
            text = ""
        return found

    def _command(self, where: str, text: str) -> Command:
        code, settings, not_run = 0, (), ""
        for note in (note for note in self.notes if note.only in text):
            if note.kind == "exit":
                code = int(note.text.split(":")[0])
            elif note.kind == "test":
                settings = tuple(note.text.split())
            elif note.kind == "not run":
                not_run = note.text or "(no reason)"
            elif note.kind == "served":
                not_run = "it needs a service: tests/service/test_service_page.py"
            elif note.kind == "needs" and find_spec(note.text) is None:
                not_run = f"{note.text} is not installed"
        if not not_run and text.split()[0] in NEVER_RUN:
            not_run = f"no test runs {text.split()[0]}"
        return Command(where, text, code, settings, not_run)


def _without_comment(line: str) -> str:
    """The command of a line, without `# ...` behind it, with its quotes."""
    for match in re.finditer(r"(?:^|\s)#", line):
        before = line[: match.start()]
        if before.count("'") % 2 == 0 and before.count('"') % 2 == 0:
            return before.strip()
    return line.strip()


@cache
def blocks_of(page: str) -> tuple[Block, ...]:
    """Return a page's fenced blocks."""
    return tuple(_read_blocks(page, (ROOT / page).read_text(encoding="utf-8")))


def _read_blocks(page: str, text: str) -> Iterator[Block]:
    notes: list[Note] = []
    fence, start, language, body = None, 0, "", []
    for number, line in enumerate(text.splitlines(), 1):
        opened = _FENCE.match(line)
        if fence is not None:
            if opened and opened[2] == fence[2] and not opened[3]:
                yield Block(page, start, language, "\n".join(body) + "\n", tuple(notes))
                fence, notes = None, []
            else:
                body.append(line.removeprefix(fence[1]))
        elif opened:
            fence, start, language, body = opened, number + 1, opened[3], []
        elif note := _NOTE.search(line):
            notes.append(Note(note[1], note[2] or "", note[3]))
        elif line.strip():
            notes = []
    if fence is not None:
        raise ValueError(f"{page}:{start}: this block has no end")


def prose_of(page: str) -> list[tuple[int, str]]:
    """Return a page's lines with their numbers, without those inside fenced blocks."""
    found, inside = [], False
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1):
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            found.append((number, line))
    return found


def anchors_of(page: str) -> set[str]:
    """Return the names that links into a page can have: its headings, as GitHub names them."""
    headings = [line.lstrip("#").strip() for _, line in prose_of(page) if re.match(r"#+ ", line)]
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return {*plain, *(f"{name}-{count}" for name in plain for count in range(1, plain.count(name)))}


@cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return what a source consists of; it is named by many commands."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def _modules(names: list[str | None]) -> list[Path]:
    """Return those of the project's modules that are among names."""
    paths = [ROOT / f"{name.replace('.', '/')}.py" for name in names if name and re.fullmatch(r"[\w.]+", name)]
    return [path for path in paths if path.is_file()]


@cache
def _options_in(script: Path) -> frozenset[str]:
    """Return the options that a script declares, and the project's modules that it imports."""
    named = [node.value for node in _nodes(script) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    sources = [script, *_modules(named)]  # a script calls its command by the name of its module
    names = [node.module for each in sources for node in _nodes(each) if isinstance(node, ast.ImportFrom)]
    sources += _modules(names)
    calls = [node for each in dict.fromkeys(sources) for node in _nodes(each) if isinstance(node, ast.Call)]
    declared = [call for call in calls if getattr(call.func, "attr", "") == "add_argument"]
    words = [part.value for call in declared for part in call.args if isinstance(part, ast.Constant)]
    return frozenset(word for word in words if isinstance(word, str) and word.startswith("-"))


def options_of(words: list[str]) -> tuple[Path | None, set[str]]:
    """Find the script that a `python ...` command runs, and the options that its source declares.

    Args:
        words: of the command, `python` first.

    Returns:
        The script, None where there is none; the options, of it and of the project's modules that it imports.
    """
    if words[1:2] == ["-m"]:
        stem = words[2].replace(".", "/") if len(words) > 2 else ""
        script = next((path for path in (ROOT / f"{stem}.py", ROOT / stem / "__main__.py") if path.is_file()), None)
    else:
        script = ROOT / words[1] if len(words) > 1 and (ROOT / words[1]).is_file() else None
    if script is None:
        return None, set()
    return script, {*_options_in(script), "--help", "-h"}
