"""Takes from a long text what matters: its beginning, its end, and what stands around errors.

A stream is read by blocks and never held whole, so that a log of any length costs bounded memory.
"""

import codecs
from collections import Counter, deque
from collections.abc import Iterable, Iterator

BLOCK = 1 << 20
GAP = "[...]"  # a line of its own where something was left out
# What a line near an error holds, as plain strings, which are found fastest.
_SIGNS = (
    "Traceback (most",
    "rror:",
    "rror ",
    "Error\n",
    "ERROR",
    "xception",
    "undefined symbol",
    "cannot open shared",
    "FAILED",
    "fatal",
    "CRITICAL",
    "No solution found",
    "panicked",
    "Killed",
    "conflict",
    "terminate called",
    "out of memory",
    "Segmentation fault",
    "==",
)
_BEFORE, _AFTER = 2_000, 6_000
_MOST = 4_000  # how many signs of a kind are looked at in a block
_NO_DIGITS = dict.fromkeys(map(ord, "0123456789"))
_SAME = 2  # how often an error is kept that differs in numbers only


def decoded(blocks: Iterable[bytes]) -> Iterator[str]:
    """Yield the text of a stream of bytes by blocks; its encoding is told by the first one.

    Args:
        blocks: the bytes.

    Yields:
        Texts; what is no text of that encoding becomes U+FFFD.
    """
    decoder: codecs.IncrementalDecoder | None = None
    for block in blocks:
        decoder = decoder or codecs.getincrementaldecoder(_encoding(block))("replace")
        yield decoder.decode(block)
    if decoder:
        yield decoder.decode(b"", True)


def _encoding(start: bytes) -> str:
    """Return the encoding of a text that begins with these bytes."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if start.startswith(mark):
            return name
    sample = start[:4096]
    if sample.count(0) > len(sample) * 0.1:
        low, high = sample[::2], sample[1::2]
        for name, first, second in (("utf-16-le", low, high), ("utf-16-be", high, low)):
            plain = sum(1 for mark, zero in zip(first, second, strict=False) if zero == 0 and 9 <= mark < 127)
            if plain > 0.2 * len(second):
                return name
    return "utf-8"


def is_binary(text: str) -> bool:
    """Return whether a text is no text: many of its characters are controls, or could not be decoded."""
    sample = text[:20_000] + text[-20_000:]
    if not sample:
        return False
    strange = sum(1 for mark in sample if mark == "\ufffd" or (mark < " " and mark not in "\t\n\r\x1b\x08\x0c"))
    return strange > 0.1 * len(sample)


def excerpt(texts: Iterable[str], limit: int) -> tuple[str, bool]:
    """Return what matters of a text that comes in blocks, and whether anything was left out.

    Args:
        texts: the blocks.
        limit: how many characters are kept; a text that is no longer stays whole.

    Returns:
        The beginning (an eighth of the limit), windows around errors (three eighths) and the end (the rest), with a
        line of dots where something is missing; and whether something is.
    """
    head_size, window_size = limit // 8, limit * 3 // 8
    tail_size = limit - head_size - window_size
    whole: list[str] = []
    length = 0
    texts = iter(texts)
    for text in texts:
        whole.append(text)
        length += len(text)
        if length > limit:
            break
    else:
        return "".join(whole), False
    start = "".join(whole)
    windows = _Windows(window_size)
    tail: deque[str] = deque()
    held = 0
    for block in _lines_together(start[head_size:], texts):
        windows.look(block)
        tail.append(block)
        held += len(block)
        while held - len(tail[0]) >= tail_size:
            held -= len(tail.popleft())
    end = "".join(tail)
    parts = [start[:head_size].rpartition("\n")[0] or start[:head_size], *windows.kept]
    return f"\n{GAP}\n".join([*parts, end[-tail_size:].partition("\n")[2] or end[-tail_size:]]), True


def _lines_together(first: str, rest: Iterator[str]) -> Iterator[str]:
    """Yield blocks that end with lines, except where a line is longer than a block."""
    left = ""
    for at in range(0, len(first), BLOCK):
        left += first[at : at + BLOCK]
        done, mark, left = left.rpartition("\n")
        yield done + mark
    for block in rest:
        block = left + block
        done, mark, left = block.rpartition("\n")
        if not mark and len(left) > BLOCK:
            done, left = left, ""
        yield done + mark
    yield left


class _Windows:
    """Pieces around errors, of each kind of error the first few, up to a size.

    Args:
        size: how many characters are kept in all.
    """

    def __init__(self, size: int) -> None:
        self.kept: list[str] = []
        self._left = size
        self._seen: Counter[str] = Counter()

    def look(self, block: str) -> None:
        """Keep what is new in a block."""
        spans: list[tuple[int, int]] = []
        for sign in _SIGNS if self._left > 0 else ():
            at = block.find(sign)
            hits = 0
            while at >= 0 and hits < _MOST:
                hits += 1
                line = block.rfind("\n", max(0, at - 300), at) + 1 or max(0, at - 300)
                end = block.find("\n", at, at + 300)
                end = end if end >= 0 else at + 300
                key = block[line : min(end, line + 160)].translate(_NO_DIGITS)
                self._seen[key] += 1
                if self._seen[key] <= _SAME:
                    spans.append((max(0, line - _BEFORE), min(len(block), end + _AFTER)))
                if len(self._seen) > 20_000:
                    self._seen.clear()
                at = block.find(sign, max(end, at + 1))
        reach = -1
        for start, end in sorted(spans):
            start = max(start, reach)
            if end <= start or self._left <= 0:
                continue
            piece = block[start : min(end, start + self._left)]
            self._left -= len(piece)
            if start == reach and self.kept:
                self.kept[-1] += piece
            else:
                self.kept.append(piece)
            reach = end
