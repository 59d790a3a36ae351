"""Tracebacks in the lines of one process: chains of exceptions with their frames."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from doctor.failure.cleaning import Line
from doctor.failure.excerpt import GAP
from doctor.failure.facts import Frame
from doctor.failure.frames import ARROW, raised_at, read_frame
from doctor.failure.stated import states_version

CAUSE = "The above exception was the direct cause of the following exception"
CONTEXT = "During handling of the above exception, another exception occurred"
_HEADER = re.compile(r"(?P<before>.{0,400}?)(?:Exception Group )?Traceback \(most recent call last\)")
_NOTEBOOK_HEADER = re.compile(r"\s{0,8}(?P<type>[A-Za-z_][\w.]{0,200}) {2,200}Traceback \(most recent call last\)")
_RICH_HEADER = re.compile(r"[╭+|┌][─\-]{1,200} ?Traceback \(most recent call last\)")
_NAMES = r"(?:[A-Za-z_]\w{0,80}\.){0,12}"
# The last line of a traceback: any dotted name counts there.
_EXCEPTION = re.compile(
    rf"(?P<type>{_NAMES}[A-Za-z_]\w{{0,120}}(?:\([\w. ]{{1,120}}\))?)(?::(?: (?P<message>.*)|\s*)|\s*)$"
)
# Anywhere else only what is called an error.
_ENDINGS = r"(?:Error|Exception|Interrupt|Exit|Timeout|Failure|Exists|NotFound|Aborted|Expired|Fault|ExceptionGroup)"
_NAMED = re.compile(
    rf"(?P<type>{_NAMES}(?:[A-Z_]\w{{0,120}}{_ENDINGS}|Exception|KeyboardInterrupt|"
    rf"SystemExit|_?RemoteTraceback)(?:\([\w. ]{{1,120}}\))?)(?::(?: (?P<message>.*)|\s*)|\s*)$"
)
_MARGIN = re.compile(r"(?P<margin> {0,40}(?:\| ?|\+ (?=Exception)|\+-\+?-{3,}))")
_PART = re.compile(r" {0,40}\+-\+?-{3,} (?:\d{1,6}|\.\.\.) -{3,}| {0,40}\+-{6,}\s*$")
_PROCESS = re.compile(
    r"(?:Process (?P<name>[\w\-:.]{1,80}):|.{0,80}?-- Process (?P<number>\d{1,5}) terminated "
    r"with the following error:?)\s*$"
)
_IGNORED = re.compile(
    r"Exception ignored (?:in|on|while)\b|Error in sys\.excepthook|Exception in thread QueueManagerThread"
)
# Where a message certainly ends.
_AFTER = re.compile(
    r"(?:-{20,}|={20,}|#{1,6} |\$ |>>> |\(\w[\w\-./]{0,40}\) \S{1,80}[@$#%]|"
    r"[\w.\-]{1,40}@[\w.\-]{1,60}:\S{0,200}[$#]|(?:\(\S{1,40}\) ?)?(?:PS )?[A-Z]:\\[^>\n]{0,200}>|"
    r"Exception ignored in|Traceback \(most recent|Process [\w\-:]{1,60}:$|\[end of output\]|"
    r"note: This error originates|\[\w{1,40}\] (?:CRITICAL|ERROR|WARNING)\b|"
    r"(?:INFO|WARNING|DEBUG|ERROR|CRITICAL)[: \[]|(?:hint|warning|error): |\u00d7 |ERROR: |WARNING: |"
    r"Original error was:$|"
    r"[-*•]\s{0,4}\W{0,4}[\w.\- ]{1,40}(?: version)?\W{0,4}[:=]\s{0,40}\d|"
    r"(?:Platform|Python|OS|Versions?|Environment|packages|platform|System Info|GPU|CUDA)(?: [Vv]ersion)?\s{0,4}:|"
    r"(?:wandb|Synced|srun|slurmstepd|make|ninja|Killed|Aborted|Segmentation fault)\b[: (]|"
    r"NOTE: If your import is failing)"
)
_MESSAGE_LINES = 80


@dataclass
class Block:
    """An exception as it is read: facts of `Raised`, and where it stands.

    Args:
        start: number of its first line.
        end: number of the line after its last.
        type: name with the module; empty where the text ends before it.
        message: text of the exception.
        frames: from the outermost to the innermost.
        joined: how it follows the block before it: "cause", "context" or None.
        depth: how deep it lies in groups of exceptions.
        process: what is said of its process.
        ignored: whether Python ignored it, as in a destructor.
        headed: whether its heading is there.
        whole: whether its exception is there.
        logged: whether its exception's line had a prefix.
    """

    start: int
    end: int = 0
    type: str = ""
    message: str = ""
    frames: list[Frame] = field(default_factory=list)
    joined: str | None = None
    depth: int = 0
    process: str | None = None
    ignored: bool = False
    headed: bool = False
    whole: bool = False
    logged: bool = False


def read_blocks(lines: Sequence[Line]) -> list[Block]:
    """Return the exceptions that lines of one process tell, as they are printed.

    Args:
        lines: the lines in order, without prefixes.

    Returns:
        A block for each traceback and each line that is an exception's; those of groups say how deep they lie.
    """
    return _Reader(lines).read()


class _Reader:
    """Reads blocks line by line.

    Args:
        lines: what is read.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = [_without_margin(line) for line in lines]
        self._blocks: list[Block] = []
        self._joined: str | None = None
        self._process: str | None = None
        self._ignored = False
        self._last_mark = -10

    def read(self) -> list[Block]:
        at = 0
        while at < len(self._lines):
            at = max(self._step(at), at + 1)
        return self._blocks

    def _step(self, at: int) -> int:
        """Read what begins at a place, and return where to go on."""
        line, depth = self._lines[at]
        text = line.text
        stripped = text.strip()
        if not stripped:
            return at + 1
        if "above exception" in text:
            self._joined = "cause" if CAUSE in text else "context" if CONTEXT in text else self._joined
            self._last_mark = at
            return at + 1
        process = _PROCESS.match(stripped)
        if process:
            self._process = process["name"] or f"Process {process['number']}"
            return at + 1
        if stripped.startswith("Fatal Python error: "):
            return self._crash(at)
        if _IGNORED.match(stripped):
            self._ignored, self._last_mark = True, at
            return at + 1
        if "Traceback (most recent" in text:
            return self._traceback(at, depth)
        below = raised_at(text) if ".py:" in text else None
        if below and self._blocks and self._blocks[-1].type == below[1] and not self._blocks[-1].frames:
            self._blocks[-1].frames.append(below[0])  # a test runner's, below the exception
            self._blocks[-1].headed = True
            return at + 1
        found = read_frame(text)
        if found and (text.lstrip().startswith(("File", "> File")) or ".py:" in text):
            # A test runner writes no heading, and a remote error of Ray has it in a line of its own.
            headed = not text.lstrip().startswith(("File", "> File")) or "ray::" in self._raw(at - 1)
            return self._body(at, self._open(line, depth, headed=headed), indent=None, notebook=False)
        if (
            depth
            and _EXCEPTION.fullmatch(stripped)
            and (_NAMED.fullmatch(stripped) or (at and _PART.match(self._raw(at - 1))))
        ):
            return self._exception(at, self._open(line, depth, headed=True), text)
        if stripped.startswith("E  "):
            stripped = stripped[1:].strip()
        if _NAMED.match(stripped) and len(text) - len(text.lstrip()) <= 8 and not _is_code(stripped):
            return self._exception(at, self._open(line, depth, headed=False), stripped)
        return at + 1

    def _crash(self, at: int) -> int:
        """Read what the interpreter says when it dies: the frames of its threads, innermost first."""
        line, depth = self._lines[at]
        block = self._open(line, depth, headed=True)
        block.message, block.whole = line.text.strip(), True
        at += 1
        threads = 0
        while at < len(self._lines):
            text = self._lines[at][0].text
            found = read_frame(text)
            threads += "most recent call first" in text
            if found and threads == 1:
                block.frames.insert(0, found)
            elif text.strip() and not found and "most recent call first" not in text and "..." not in text:
                break
            at += 1
        block.end = self._lines[at - 1][0].number + 1
        self._blocks.append(block)
        return at

    def _raw(self, at: int) -> str:
        return self._lines[at][0].text if at >= 0 else ""

    def _open(self, line: Line, depth: int, headed: bool) -> Block:
        """Begin a block with what was said before it."""
        near = line.number - self._last_number() < 12
        block = Block(
            line.number,
            line.number + 1,
            joined=self._joined if self._blocks else None,
            depth=depth,
            process=line.process
            or self._process
            or (self._blocks[-1].process if self._joined and self._blocks else None),
            ignored=self._ignored and near,
            headed=headed,
        )
        self._joined, self._process, self._ignored = None, None, False
        return block

    def _last_number(self) -> int:
        return self._lines[self._last_mark][0].number if 0 <= self._last_mark < len(self._lines) else -100

    def _traceback(self, at: int, depth: int) -> int:
        """Read a traceback from its heading."""
        line = self._lines[at][0]
        block = self._open(line, depth, headed=True)
        header = _HEADER.match(line.text)
        indent = len(header["before"]) if header else 0
        if header and header["before"].strip():
            indent = len(line.text) - len(line.text.lstrip())
        named = _NOTEBOOK_HEADER.match(line.text)
        rich = _RICH_HEADER.match(line.text.strip())
        return self._body(
            at + 1, block, indent, notebook=bool(named), named=named["type"] if named else None, rich=bool(rich)
        )

    def _body(
        self, at: int, block: Block, indent: int | None, notebook: bool, named: str | None = None, rich: bool = False
    ) -> int:
        """Read frames up to the exception."""
        blank = 0
        while at < len(self._lines):
            line = self._lines[at][0]
            text = line.text
            stripped = text.strip()
            if not stripped:
                blank += 1
                at += 1
                if blank > 2 and not notebook and not rich:
                    break
                continue
            if "Traceback (most recent" in text or "above exception" in text or stripped == GAP:
                break
            if named and (stripped == named or stripped.startswith((f"{named}:", f"{named.split('.')[-1]}:"))):
                return self._exception(at, block, stripped)
            found = read_frame(text, notebook=notebook)
            if found:
                at = self._frame(at, block, found, notebook)
                blank = 0
                continue
            if rich or notebook:
                arrow = ARROW.match(text) or (
                    re.match(r"[│|] ❱ +(?P<line>\d{1,9}) (?P<code>.*?)\s*[│|]?$", stripped) if rich else None
                )
                if arrow and block.frames:
                    last = block.frames[-1]
                    block.frames[-1] = replace(
                        last, line=last.line or int(arrow["line"]), code=(arrow["code"] or "").strip()
                    )
                if rich and _NAMED.match(stripped):
                    return self._exception(at, block, stripped)
                at += 1
                if at - len(self._lines) > 0 or line.number - block.start > 3000:
                    break
                continue
            if re.match(r"\[?Previous line repeated", stripped) or re.fullmatch(r"[\s~^\-]+", stripped):
                at += 1
                continue
            if blank and not block.frames:
                break
            if re.match(r"E {2,}", stripped):
                stripped = stripped[1:].strip()
            here = len(text) - len(text.lstrip())
            if (indent is None or here <= indent + 1) and _EXCEPTION.fullmatch(stripped) and not _is_code(stripped):
                return self._exception(at, block, stripped)
            if _NAMED.match(stripped) and not _is_code(stripped) and here <= (indent or 0) + 8:
                return self._exception(at, block, stripped)
            if (indent is not None and here <= indent) or not block.frames or blank:
                break
            at += 1
        block.end = self._lines[at - 1][0].number + 1
        self._blocks.append(block)
        return at

    def _frame(self, at: int, block: Block, found: Frame, notebook: bool) -> int:
        """Take a frame and the code that stands below it; return where to go on."""
        text = self._lines[at][0].text
        here = len(text) - len(text.lstrip())
        at += 1
        code: list[str] = []
        while at < len(self._lines) and not notebook and "│" not in text:
            next_text = self._lines[at][0].text
            stripped = next_text.strip()
            if not stripped or read_frame(next_text) or "Traceback (most recent" in next_text:
                break
            if re.fullmatch(r"[~^\s\-]*[~^][~^\s\-]*", stripped) or stripped.startswith("[Previous line"):
                at += 1
                continue
            deeper = len(next_text) - len(next_text.lstrip()) > here
            flat = not code and here == 0 and not _NAMED.match(stripped) and not _is_end(self._lines, at)
            if not deeper and not flat:
                break
            code.append(stripped)
            at += 1
            if len(code) > 40:
                break
        block.frames.append(replace(found, code=code[0] if code else ""))
        return at

    def _exception(self, at: int, block: Block, text: str) -> int:
        """Read an exception's line and its message, which ends the block."""
        line, depth = self._lines[at]
        stripped = text.strip()
        found = _NAMED.match(stripped) or _EXCEPTION.match(stripped)
        if not found:
            self._blocks.append(block)
            return at + 1
        message = [found["message"] or ""]
        block.type, block.whole, block.logged = found["type"], True, line.logged
        base = len(line.text) - len(line.text.lstrip())
        at += 1
        while at < len(self._lines) and len(message) < _MESSAGE_LINES:
            following, deep = self._lines[at]
            plain = following.text[base:] if not following.text[:base].strip() else following.text
            stripped = plain.strip()
            if (
                "above exception" in plain
                or stripped == GAP
                or (_PART.match(following.text) or deep < depth - 1 or stripped == '"""')
            ):
                break
            if not stripped:
                if not self._goes_on(at, message):
                    break
            elif self._is_over(following, plain, line, message):
                break
            message.append(re.sub(r"^E {2,}", "", plain) if stripped.startswith("E  ") else plain.rstrip())
            at += 1
        while len(message) > 1 and not message[-1].strip():
            message.pop()
        block.message = "\n".join(message).strip("\n")
        block.end = self._lines[at - 1][0].number + 1
        self._blocks.append(block)
        return at

    def _goes_on(self, at: int, message: list[str]) -> bool:
        """Whether a message goes on after an empty line: where nothing was said yet, or more was promised."""
        said = [part for part in message if part.strip()]
        if said and not said[-1].rstrip().endswith(":"):
            return False
        for following, _ in self._lines[at + 1 : at + 3]:
            stripped = following.text.strip()
            if stripped:
                return not (_AFTER.match(stripped) or _NAMED.match(stripped) or "above exception" in stripped)
        return False

    def _is_over(self, following: Line, plain: str, first: Line, message: list[str]) -> bool:
        """Whether a line after an exception's no longer belongs to its message."""
        stripped = plain.strip()
        if first.logged != following.logged and following.process != first.process:
            return True
        if following.logged and not first.logged:
            return True
        if states_version(stripped):
            return True
        if _AFTER.match(stripped) and not (stripped.startswith("=") and not any(message)):
            return True
        if "Traceback (most recent" in plain or _PROCESS.match(stripped) or (read_frame(plain) and 'File "' in plain):
            return True
        promised = message[-1].rstrip().endswith(":")
        return bool(_NAMED.match(stripped)) and not _is_code(stripped) and not promised and not plain[:1].isspace()


def _is_code(text: str) -> bool:
    """Return whether a line that begins like an exception is code: `raise`, a call, an assignment."""
    return bool(
        re.match(r"[\w.]+\s*(?:=(?!=)|\()|(?:raise|except|from|import|return|class|assert)\b", text)
    ) and not re.match(r"[\w.]+\([\w. ]+\):", text)


def _is_end(lines: Sequence[tuple[Line, int]], at: int) -> bool:
    """Return whether a line without an indent is the exception's, and not the code of the frame above it."""
    text = lines[at][0].text.strip()
    if not _EXCEPTION.fullmatch(text) or _is_code(text):
        return False
    following = lines[at + 1][0].text.strip() if at + 1 < len(lines) else ""
    return bool(re.match(rf"{_NAMES}[A-Z]\w*:", text)) or not (_NAMED.match(following) or read_frame(following))


def _without_margin(line: Line) -> tuple[Line, int]:
    """Return a line without the margin that groups of exceptions print, and how deep it lies."""
    text = line.text
    found = _MARGIN.match(text) if ("|" in text or "+" in text) else None
    if not found or text.lstrip().startswith("|  |"):
        return line, 0
    margin = found["margin"]
    spaces = len(margin) - len(margin.lstrip(" "))
    if not 1 < spaces < 40:
        return line, 0
    if _PART.match(text):
        return Line(line.number, text, line.process, line.logged), spaces // 2
    rest = text[len(margin) :] if "|" in margin or "+ " in margin else text
    return Line(line.number, rest, line.process, line.logged), spaces // 2


def bare_type(text: str) -> str:
    """Return a type's name without its module."""
    inner = re.match(r"([\w.]+?)\(([\w. ]+)\)$", text)
    return f"{inner[1].rpartition('.')[2]}({inner[2]})" if inner else text.rpartition(".")[2]
