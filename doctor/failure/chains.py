"""Puts the errors of a text in the order in which they happened: what failed first comes first."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from doctor.failure.cleaning import Line
from doctor.failure.facts import Raised
from doctor.failure.programs import ToolError
from doctor.failure.tracebacks import Block, bare_type

_WRAPPED = re.compile(r"because of the following error \(look up to see its traceback\):\s*\n?")
_INSIDE = re.compile(r"-- Process \d+ terminated with the following error|\bray::\w")
_COMPILING = re.compile(
    r"CalledProcessError|CompileError|LinkError|Distutils\w*Error|ExecError|"
    r"InductorError|BackendCompilerFailed|[Ee]rror (?:compil|build)ing|"
    r"[Cc]ompil\w+ failed|command '|Failed to (?:build|compile)|returned non-zero|ninja"
)
_PARENTS = ("ProcessRaisedException", "ProcessExitedException")
_COPIES = ("RemoteTraceback", "_RemoteTraceback", "_ExceptionWithTraceback")
_WARNINGS = re.compile(r"\w*(?:Warning)$")
_HANDLED = re.compile(
    r"\b(?:[Rr]etry|[Rr]etrying|RETRY|[Ff]alling back|[Ff]all back|[Ii]gnor(?:ed|"
    r"ing)|[Ss]kipping|will continue|[Cc]ontinuing without|non-fatal|"
    r"not fatal|using .{1,40} instead|[Dd]isabling|[Aa]ttempt \d+(?:/| of )\d+)"
)
# What an exception is called whose message somebody else's wraps, told by the message.
_GUESSED = (
    (re.compile(r"No module named "), "ModuleNotFoundError"),
    (
        re.compile(
            r"cannot import name |undefined symbol|cannot open shared object|DLL load failed|"
            r"version `?\w+_[\d.]+'? not found"
        ),
        "ImportError",
    ),
    (re.compile(r"module '.+' has no attribute|'.+' object has no attribute"), "AttributeError"),
    (re.compile(r"numpy\.dtype size changed"), "ValueError"),
    (re.compile(r"name '.+' is not defined"), "NameError"),
    (re.compile(r".*(?:unexpected keyword argument|missing \d+ required|Descriptors cannot be created)"), "TypeError"),
)


@dataclass
class _Placed:
    """An error with its place in time: `rank` (0 what failed, 1 what reports it, 2 what follows it), then `at`."""

    raised: Raised
    rank: int
    at: float
    block: Block | None = None


def in_order_of_time(
    blocks: Sequence[Block], errors: Sequence[ToolError], lines: Sequence[Line]
) -> tuple[tuple[Raised, ...], list[ToolError]]:
    """Return the errors of a text in the order in which they happened, and those that are only worth a line.

    A chain is printed in order of time already. Against the order of print, what failed inside something comes before
    what reports that it failed (a build's log after pip's "subprocess-exited-with-error", a worker's traceback in its
    parent's message, the members of a group before the group), and what a destructor says comes last. A traceback that
    is followed or announced by a word of a retry or a fallback was handled: it becomes a line, unless it is the last.
    An error that several processes report, or one process twice, stands once.

    Args:
        blocks: exceptions as printed.
        errors: errors of programs.
        lines: all lines of the text.

    Returns:
        The errors, and the others.
    """
    left = [error for error in errors if not error.strong]
    placed = _blocks_placed(blocks, lines, left)
    strong = [error for error in errors if error.strong]
    probes = [error for error in strong if error.tool == "build" and not error.wrapper and _was_probe(error, blocks)]
    left += probes
    strong = [error for error in strong if error not in probes]
    if not placed and not strong:
        strong, left = _best_of(left)
    for error in strong:
        placed.append(_Placed(_of_tool(error), 1 if error.wrapper else 0, error.number))
    placed.sort(key=lambda one: (one.rank, one.at))
    return _without_copies([one.raised for one in placed]), left


def _was_probe(error: ToolError, blocks: Sequence[Block]) -> bool:
    """Return whether a compiler's error was only a try: what is raised after it is about something else."""
    following = next((block for block in blocks if block.start > error.number and block.whole and block.frames), None)
    if following is None or error.message.startswith("CMake"):
        return False
    return not _COMPILING.search(f"{following.type} {following.message[:400]}") and not following.joined


def _best_of(errors: list[ToolError]) -> tuple[list[ToolError], list[ToolError]]:
    """Return of weak errors those that a text without better ones is about, and the rest."""
    return errors[:8], errors[8:]


def _blocks_placed(blocks: Sequence[Block], lines: Sequence[Line], left: list[ToolError]) -> list[_Placed]:
    """Return exceptions with their places; of handled ones a line is left."""
    whole = [block for block in blocks if block.whole and not _WARNINGS.match(block.type)]
    for block in blocks:
        if block.whole and _WARNINGS.match(block.type):
            left.append(ToolError(block.start, block.end, f"{block.type}: {block.message}", "program", False))
    chains = _chains(whole)
    placed: list[_Placed] = []
    for number, chain in enumerate(chains):
        if number < len(chains) - 1 and _was_handled(chain, lines):
            for block in chain:
                left.append(ToolError(block.start, block.end, f"{block.type}: {block.message}", "program", False))
            continue
        at = float(chain[0].start)
        before = placed[-1].block if placed else None
        inside = before is not None and (_INSIDE.search(before.message) or bare_type(before.type) in _PARENTS)
        if before is not None and inside and chain[0].start - before.end < 6:
            at = placed[-1].at - 0.5  # printed inside the message of the one before: it failed first
        for step, block in enumerate(chain):
            if bare_type(block.type) in _COPIES:
                continue
            follows = chain[step + 1].joined if step + 1 < len(chain) else None
            # A group comes after its members, an inner group before an outer one.
            group = 100_000 - block.depth * 1000 if re.search(r"\(\d+ sub-exceptions?\)", block.message) else 0
            for part, raised in enumerate(_parts(block, follows)):
                rank = 2 if block.ignored else 0
                placed.append(_Placed(raised, rank, at + (group + step) * 1e-6 + part * 1e-7, block))
    return placed


def _chains(blocks: Sequence[Block]) -> list[list[Block]]:
    """Return the blocks that belong together: joined by a sentence, or members of one group."""
    chains: list[list[Block]] = []
    for block in blocks:
        last = next((chain for chain in reversed(chains) if chain[-1].process == block.process), None)
        if last is not None and (block.joined or (block.depth and last[-1].depth and block.start - last[-1].end < 6)):
            last.append(block)
        else:
            chains.append([block])
    return chains


def _was_handled(chain: list[Block], lines: Sequence[Line]) -> bool:
    """Return whether the lines beside a chain say that the program went on without what failed."""
    start, end = chain[0].start, chain[-1].end
    near = [*lines[max(0, start - 2) : start], *lines[end : end + 3]]
    return any(_HANDLED.search(line.text[:400]) for line in near if "Exception ignored" not in line.text)


def _parts(block: Block, then: str | None) -> list[Raised]:
    """Return an exception, after those whose messages its own wraps: "Failed to import X because of ... error"."""
    pieces = _WRAPPED.split(block.message)
    heads = _WRAPPED.findall(block.message)
    inner = pieces.pop().strip() if len(pieces) > 1 else ""
    frames = tuple(block.frames)
    raised = Raised(bare_type(block.type), block.message, frames, then, block.process)
    if not heads or not inner:
        return [raised]
    return [Raised(_guessed(inner), inner, frames, "cause", block.process), raised]


def _guessed(message: str) -> str:
    """Return the type that exceptions of a message have; empty where it can't be told."""
    return next((name for pattern, name in _GUESSED if pattern.search(message)), "")


def _of_tool(error: ToolError) -> Raised:
    """Return the error of a program; a Python message that lost its type gets it back."""
    kind = _guessed(error.message) if error.tool == "python" else ""
    return Raised(kind, error.message, (), None, error.process)


def _without_copies(raised: list[Raised]) -> tuple[Raised, ...]:
    """Return errors without those that another process, or the same one again, reports in the same words."""
    kept: dict[tuple[str, str], Raised] = {}
    for one in raised:
        key = (one.type, re.sub(r"\d+", "0", one.message.strip()))
        exact = (one.type, one.message.strip())
        same = next((old for old in (key, exact) if old in kept), None)
        if same is None:
            kept[key] = one
        elif not kept[same].frames and one.frames:
            kept[same] = one
    return tuple(kept.values())
