"""Make torch_symbols.zip of torch's wheels: `python -m doctor.knowledge.build_torch_symbols FOLDER`.

The folder holds Linux wheels of torch from PyPI, one of each minor version (`pip download --no-deps torch==2.6.0`).
Their libraries are read one by one and nothing is kept but keys of names.
"""

import json
import re
import sys
import tempfile
import zipfile
from pathlib import Path

from packaging.utils import parse_wheel_filename

from doctor.environment.elf import read_elf
from doctor.knowledge.torch_symbols import MEMBER, PACKED, key

_LIBRARIES = re.compile(
    r"torch/lib/lib(c10|c10_cuda|torch_cpu|torch_cuda|torch_cuda_cu|torch_cuda_cpp|torch_python)\.so$"
)
# Names that extensions use: classes and functions of c10, at and torch, without what is internal to kernels.
_KEPT = re.compile(r"^_Z(T[VI])?NK?(3c10|2at|5torch)|^aoti_torch_|^THP")
_DROPPED = re.compile(
    r"^_ZNK?(2at(6native|3cpu|4meta|8autocast|4cuda4blas|4cuda6solver|\d\dcompos)"
    r"|5torch(3jit11tensorexpr|4lazy|8profiler|3nnc))|_FUN|lambda"
)
_LONGEST = 400


def symbols_of(wheel: Path) -> set[str]:
    """Return the kept symbols that a wheel's libraries define."""
    found: set[str] = set()
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as scratch:
        for name in filter(_LIBRARIES.match, archive.namelist()):
            library = read_elf(archive.extract(name, scratch))
            if library is not None:
                found.update(filter(is_kept, library.defined))
    return found


def is_kept(symbol: str) -> bool:
    """Return whether a symbol is of a kind that extensions ask for."""
    return len(symbol) < _LONGEST and bool(_KEPT.match(symbol)) and not _DROPPED.match(symbol)


def pack(by_version: dict[str, set[str]]) -> None:
    """Write what was read, {"2.6": symbols}."""
    versions = sorted(by_version, key=lambda one: [int(part) for part in one.split(".")])
    masks: dict[str, int] = {}
    for number, version in enumerate(versions):
        for symbol in by_version[version]:
            masks[symbol] = masks.get(symbol, 0) | 1 << number
    counted: dict[int, int] = {}
    for mask in masks.values():
        counted[mask] = counted.get(mask, 0) + 1
    # A row's set is one byte: the 256 sets that most symbols have; the few others are left out.
    sets = sorted(counted, key=lambda mask: (-counted[mask], mask))[:256]
    place = {mask: number for number, mask in enumerate(sets)}
    rows = sorted({key(symbol) + bytes([place[mask]]) for symbol, mask in masks.items() if mask in place})
    head = json.dumps({"versions": versions, "sets": sets}).encode()
    with zipfile.ZipFile(PACKED, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            zipfile.ZipInfo(MEMBER, (2020, 1, 1, 0, 0, 0)), head + b"\n" + b"".join(rows), zipfile.ZIP_DEFLATED
        )


def main() -> None:
    """Read the wheels of a folder and write the table."""
    by_version: dict[str, set[str]] = {}
    for wheel in sorted(Path(sys.argv[1]).glob("torch-*.whl")):
        _, version, _, _ = parse_wheel_filename(wheel.name)
        by_version.setdefault(f"{version.major}.{version.minor}", set()).update(symbols_of(wheel))
    pack(by_version)


if __name__ == "__main__":
    main()
