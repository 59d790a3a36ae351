"""Compiled libraries made on the spot: as much of an ELF file as a linker reads."""

import struct
from pathlib import Path


def write_elf(path: Path, *, needed=(), undefined=(), weak=(), defined=(), versions=(), machine=62, soname="") -> Path:
    """Write a library of 64 bits; versions as ("libc.so.6", "GLIBC_2.34")."""
    strings = bytearray(b"\0")

    def text(one: str) -> int:
        strings.extend(one.encode() + b"\0")
        return len(strings) - len(one) - 1

    symbols = bytearray(24)
    for names, info, section in ((undefined, 0x12, 0), (weak, 0x22, 0), (defined, 0x12, 1)):
        for name in names:
            symbols += struct.pack("<IBBHQQ", text(name), info, 0, section, 0, 0)
    tags = [(1, text(one)) for one in needed] + ([(14, text(soname))] if soname else []) + [(0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    needs = b""
    for number, (library, version) in enumerate(versions, 1):
        step = 0 if number == len(versions) else 32
        needs += struct.pack("<HHIII", 1, 1, text(library), 16, step) + struct.pack("<IHHII", 0, 0, 2, text(version), 0)
    parts = [(0, b"", 0, 0), (3, bytes(strings), 0, 0), (11, bytes(symbols), 1, 1), (6, dynamic, 1, 0)]
    parts += [(0x6FFFFFFE, needs, 1, len(versions))] if versions else []
    body, table = bytearray(), bytearray()
    for kind, data, link, info in parts:
        table += struct.pack("<IIQQQQIIQQ", 0, kind, 0, 0, 64 + len(body), len(data), link, info, 8, 0)
        body += data
    head = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, len(parts), 0)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + bytes(body) + bytes(table))
    return path
