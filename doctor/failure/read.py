"""Reads what failed from a traceback or a log of any kind and size."""

import re
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from doctor.failure.chains import in_order_of_time
from doctor.failure.cleaning import Line, clean_lines, plain_text
from doctor.failure.excerpt import BLOCK, GAP, decoded, excerpt, is_binary
from doctor.failure.facts import Failure, Raised
from doctor.failure.platforms import read_platform
from doctor.failure.programs import CONDA_ERRORS, ToolError, read_tool_errors, read_warnings
from doctor.failure.stated import read_stated
from doctor.failure.tracebacks import Block, bare_type, read_blocks
from doctor.redaction import redact

LIMIT = 1_000_000  # characters of a text that are read; of a longer one the parts that matter
SHOWN = 200_000  # characters of a text that are kept
_COMMAND = re.compile(
    r"(?:(?:\(\S{1,40}\) ?)?(?:PS )?(?:[A-Za-z]:\\[^>\n]{0,200}> ?|\S{0,80}[^\n$#%>\u276f]{0,40}[$#%>\u276f] "
    r"?)|! ?|\+ |%)?"
    r"(?P<command>(?:[A-Z_]{2,40}=\S{0,100} ){0,8}(?:python3?(?:\.\d+)?|"
    r"pip3?|uv|torchrun|accelerate|deepspeed|vllm|"
    r"axolotl|llamafactory-cli|tune|conda|mamba|poetry|cmake|make|sbatch|srun|docker) [^\n]{1,400})"
)


def read_failure_file(path: str, *, limit: int = LIMIT) -> Failure:
    """Return what a file tells of a failure; the file is never held whole.

    Args:
        path: path of the file; "-" for standard input.
        limit: how many characters are read of a longer text, where they matter.

    Returns:
        The failure.

    Raises:
        OSError: the file can't be read.
    """
    if path == "-":
        return _read(decoded(_blocks_of(sys.stdin.buffer)), limit)
    with open(path, "rb") as file:
        return _read(decoded(_blocks_of(file)), limit)


def read_failure(data: bytes | str, *, limit: int = LIMIT) -> Failure:
    """Return what a text tells of a failure. Never raises: of what can't be read the kind is "log".

    Args:
        data: a traceback, a log, or a description, in any encoding.
        limit: how many characters are read of a longer text, where they matter.

    Returns:
        The failure.
    """
    if isinstance(data, bytes):
        return _read(decoded(data[at : at + BLOCK] for at in range(0, len(data), BLOCK)), limit)
    return _read((data[at : at + BLOCK] for at in range(0, len(data), BLOCK)), limit)


def _blocks_of(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def _read(texts: Iterable[str], limit: int) -> Failure:
    """Return what a text in blocks tells of a failure."""
    text, shortened = excerpt(texts, max(limit, 10_000))
    if is_binary(text):
        return Failure("log", lines=("This is no text: most of it are bytes that no log has.",), cut=True)
    try:
        plain = redact(plain_text(text))
        return _understood(plain, shortened)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        # Whatever a text holds, the rest of the diagnosis goes on with it as it stands.
        shown, _ = excerpt([text], SHOWN)
        return Failure(
            "log", lines=(f"The text could not be read: {type(error).__name__}.",), text=redact(shown), cut=True
        )


def _understood(plain: str, shortened: bool) -> Failure:
    """Return what a text without colours and credentials tells."""
    lines = clean_lines(plain)
    blocks = _blocks(lines)
    taken = frozenset(number for block in blocks for number in range(block.start, block.end))
    errors = read_tool_errors(lines, taken)
    errors_at = {number for error in errors if error.strong for number in range(error.number, error.end)}
    stated = read_stated(lines, taken | errors_at)
    said = frozenset(one.text for one in stated)
    errors = [error for error in errors if error.strong or error.message not in said]
    raised, left = in_order_of_time(blocks, errors, lines)
    warnings = read_warnings(lines, taken)
    others = sorted({(one.number, one.message) for one in left} | set(warnings))
    shown, cut = excerpt([_joined(lines)], SHOWN)
    where = plain if len(plain) <= SHOWN else shown
    if not raised:
        raised = tuple(Raised("", text) for _, text in warnings if _FAULTY.match(text))
    kind = _kind(blocks, errors, raised, shown)
    if kind == "silent":
        others = [(line.number, line.text.strip()) for line in lines if line.text.strip()][:60]
    return Failure(
        kind,
        raised,
        tuple(text for _, text in others[:200]),
        shown,
        stated,
        read_platform(where, raised),
        _command(where),
        shortened or cut or _is_cut(blocks),
    )


def _joined(lines: list[Line]) -> str:
    """Return the lines as one text, without what was put around them."""
    return "\n".join(line.text.rstrip() for line in lines).strip("\n")


def _blocks(lines: list[Line]) -> list[Block]:
    """Return the exceptions of each process, in the order in which they end."""
    by_process: dict[str | None, list[Line]] = {}
    for line in lines:
        by_process.setdefault(line.process, []).append(line)
    blocks = [block for some in by_process.values() for block in read_blocks(some)]
    # Lines of other processes may stand between those of a block: what is in them is theirs.
    return sorted(blocks, key=lambda block: block.start)


def _is_cut(blocks: list[Block]) -> bool:
    """Return whether a traceback lacks its beginning or its end."""
    python = [block for block in blocks if block.frames]
    return any(not block.whole or (not block.headed and block.type not in _WITHOUT_HEADING) for block in python)


_WITHOUT_HEADING = ("SyntaxError", "IndentationError", "TabError")
# Warnings that are about what is wrong, where nothing else is.
_FAULTY = re.compile(
    r"WARNING: Ignoring invalid distribution|\S+ \S+ requires \S.*(?:, but you have |, which is not installed)"
)
_BUILD = re.compile(
    r"subprocess-exited-with-error|metadata-generation-failed|[Ff]ailed building (?:wheel|"
    r"editable)|Could not build wheels|Failed to build `|"
    r"build backend returned|CMake Error|nvcc fatal|ninja: build stopped|Error compiling objects "
    r"for extension|error: command '?\S+ failed|"
    r"fatal error: \S+\.(?:h|hpp|cuh): |Getting requirements to build wheel|"
    r"get_requires_for_build_wheel|failed to build installable"
)


def _kind(blocks: list[Block], errors: list[ToolError], raised: tuple[Raised, ...], text: str) -> str:
    """Return what kind of failure a text tells of."""
    tools = [error.tool for error in errors if error.strong]
    tools += ["conda" for block in blocks if bare_type(block.type) in CONDA_ERRORS]
    if _BUILD.search(text):
        return "build"
    for tool in ("uv", "conda", "poetry", "pip"):
        if tool in tools:
            return tool
    if any(block.whole for block in blocks) or any(block.frames for block in blocks) or "python" in tools:
        return "python"
    if "build" in tools:
        return "build"
    if re.search(r"WARNING: Ignoring invalid distribution|pip's dependency resolver does not currently", text):
        return "pip"
    if "loader" in tools:
        return "loader"
    if raised or errors or len(text) > 4000 or GAP in text:
        return "log"
    return "silent" if text.strip() else "log"


def _command(text: str) -> str | None:
    """Return the command that a text begins with or names last before its first error."""
    for line in text.splitlines()[:200]:
        stripped = line.strip()
        if "Traceback (most" in stripped:
            break
        found = _COMMAND.match(stripped)
        if found and not re.match(r"\S+ (?:version|is|was|has|can|does|\d)", found["command"]):
            return found["command"].strip()
    return None
