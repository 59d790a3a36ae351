"""Which releases of torch offer a C++ symbol: the answer to "undefined symbol: _ZN3c10..."."""

import json
import zipfile
from functools import cache
from hashlib import blake2b
from pathlib import Path

PACKED = Path(__file__).with_name("torch_symbols.zip")
MEMBER = "symbols"
KEY = 4  # bytes of a symbol's key: 46 000 symbols, so that one in 90 000 unknown ones is taken for a known one
ROW = KEY + 1


def key(symbol: str) -> bytes:
    """Return the bytes that a symbol is stored by."""
    return blake2b(symbol.encode(), digest_size=KEY).digest()


@cache
def _packed() -> tuple[list[str], list[int], bytes]:
    """Return the minor versions, the sets of them that occur (bit n: version n), and the sorted rows (key, set)."""
    with zipfile.ZipFile(PACKED) as archive:
        raw = archive.read(MEMBER)
    head, _, rows = raw.partition(b"\n")
    told = json.loads(head)
    return told["versions"], told["sets"], rows


def torch_versions() -> list[str]:
    """Return the minor versions of torch that were read, oldest first: "1.11", ..., "2.14"."""
    return _packed()[0]


def torch_with(symbol: str) -> list[str] | None:
    """Return the minor versions of torch whose Linux wheel on PyPI offers a symbol.

    Args:
        symbol: a mangled name, such as "_ZN3c104cuda9SetDeviceEi".

    Returns:
        Versions, oldest first; None where none of those that were read has it, or it is not of a kind that was kept.
    """
    versions, sets, rows = _packed()
    wanted = key(symbol)
    low, high = 0, len(rows) // ROW
    while low < high:
        middle = (low + high) // 2
        if rows[middle * ROW : middle * ROW + KEY] < wanted:
            low = middle + 1
        else:
            high = middle
    if rows[low * ROW : low * ROW + KEY] != wanted:
        return None
    mask = sets[rows[low * ROW + KEY]]
    return [version for number, version in enumerate(versions) if mask >> number & 1]
