"""The figures of a message about GPU memory: how much was asked for, who holds the rest."""

import re
from dataclasses import dataclass

_UNITS = {
    "b": 1, "byte": 1, "bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "kb": 10**3, "mb": 10**6,
    "gb": 10**9, "tb": 10**12,
}  # fmt: skip
_SIZE = r"(\d+(?:\.\d+)?)\s*([KMGT]i?B|bytes?|B)"
_CONTEXT = 600 * 2**20  # what a process holds beside PyTorch's memory: the CUDA context and libraries' workspaces


@dataclass(frozen=True)
class Figures:
    """What a message says, in bytes; None where it doesn't.

    Args:
        asked: the request that failed.
        total: the GPU's memory.
        free: what was free of it.
        own: what this process held, with what is not PyTorch's.
        allocated: what of it tensors held.
        idle: what PyTorch had reserved and tensors did not hold.
        others: what other processes held.
        device: number of the GPU.
    """

    asked: int | None = None
    total: int | None = None
    free: int | None = None
    own: int | None = None
    allocated: int | None = None
    idle: int | None = None
    others: int | None = None
    device: int | None = None


def read_figures(text: str) -> Figures:
    """Return the figures of the last such message of a text, in the forms of PyTorch 1 and 2 (CUDA, HIP, XPU, MPS)."""
    begin = max((one.start() for one in re.finditer(r"tried to allocate", text, re.IGNORECASE)), default=None)
    if begin is None:
        return Figures()
    # MPS tells what it holds before what it was asked for: "(MPS allocated: ..., max allowed: ...). Tried to allocate".
    before = text[max(0, begin - 300) : begin]
    after = text[begin : begin + 1500]
    asked = _size(after, rf"tried to allocate {_SIZE}")
    if "MPS" in before:
        allocated = _size(before, rf"MPS allocated: {_SIZE}")
        rest = _size(before, rf"other allocations: {_SIZE}") or 0
        total = _size(before, rf"max allowed: {_SIZE}")
        own = allocated + rest if allocated is not None else None
        free = max(0, total - own) if total is not None and own is not None else None
        return Figures(asked, total, free, own, allocated, None, None)
    total = _size(after, rf"{_SIZE} total capacity") or _size(after, rf"total capac\w+ of {_SIZE}")
    free = _size(after, rf"{_SIZE} free\b") or _size(after, rf"of which {_SIZE} is free")
    if free is None and re.search(r"\b0 bytes free|of which 0 bytes is free", after):
        free = 0
    allocated = _size(after, rf"{_SIZE} already allocated") or _size(after, rf"allocated memory {_SIZE} is allocated")
    idle = _size(after, rf"{_SIZE} is reserved by PyTorch but unallocated")
    reserved = _size(after, rf"{_SIZE} reserved in total") or _size(after, rf"{_SIZE} cached")
    if idle is None and reserved is not None and allocated is not None:
        idle = max(0, reserved - allocated)
    own = _size(after, rf"this process has {_SIZE}")
    if own is None and (reserved or allocated) is not None:
        own = (reserved if reserved is not None else (allocated or 0) + (idle or 0)) + _CONTEXT
    told = [_bytes(*one) for one in re.findall(rf"(?<!this )process \d+ has {_SIZE}", after, re.IGNORECASE)]
    others = sum(told) if told else None
    if told and own is None and len(told) == 1 and total and allocated and told[0] > allocated:
        own, others = told[0], None  # in a container the process's own number may be another one
    if others is None and total is not None and free is not None and own is not None:
        others = max(0, total - free - own)
    device = re.search(r"GPU (\d+)", after)
    return Figures(asked, total, free, own, allocated, idle, others, int(device[1]) if device else None)


def show(size: int | None) -> str:
    """Return a size as a reader wants it: "12.7 GiB", "69 MiB"."""
    if size is None:
        return "an unknown amount"
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _size(text: str, pattern: str) -> int | None:
    """Return the bytes of a pattern's two groups, a number and a unit; None where it isn't found."""
    found = re.search(pattern, text, re.IGNORECASE)
    return _bytes(found[1], found[2]) if found else None


def _bytes(number: str, unit: str) -> int:
    """Return a number of a unit as bytes."""
    return int(float(number) * _UNITS[unit.lower()])
