"""A compiled library of Linux, read as far as a linker reads it: what it needs and what it offers."""

import struct
from dataclasses import dataclass
from pathlib import Path

_DYNAMIC, _DYNSYM, _VERNEED = 6, 11, 0x6FFFFFFE
_NEEDED, _SONAME, _RPATH, _RUNPATH = 1, 14, 15, 29
_MACHINES = {3: "i686", 62: "x86_64", 183: "aarch64", 40: "armv7l", 243: "riscv64", 21: "ppc64le", 22: "s390x"}


@dataclass(frozen=True)
class Library:
    """What an ELF file says of itself.

    Args:
        machine: processor that it is for, such as "x86_64".
        soname: name that others ask for it by; empty where it has none.
        needed: libraries that must be there (DT_NEEDED).
        runpath: folders that they are looked for in first, as they stand ("$ORIGIN/../lib").
        versions: versions that it asks of libraries: ("libc.so.6", "GLIBC_2.34").
        undefined: symbols that others must offer, mangled; weak ones, which may be missing, are left out.
        defined: symbols that it offers.
    """

    machine: str
    soname: str = ""
    needed: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    undefined: frozenset[str] = frozenset()
    defined: frozenset[str] = frozenset()


def read_elf(path: str | Path, *, symbols: bool = True) -> Library | None:
    """Return what a library says of itself.

    Args:
        path: the file.
        symbols: whether to read its symbols too; without, the answer takes a few kB of reading.

    Returns:
        The library; None where the file cannot be read or is no complete ELF file of 64 bits, little endian.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if head[:6] != b"\x7fELF\x02\x01":
                return None
            machine = struct.unpack_from("<H", head, 18)[0]
            table, entry_size, count = (
                struct.unpack_from("<Q", head, 40)[0],
                *struct.unpack_from("<HH", head, 58),
            )
            file.seek(table)
            raw = file.read(entry_size * count)
            # Per section: type, offset, size, link (its table of strings), info (the number of its entries).
            sections = []
            for index in range(count):
                _, kind, _, _, offset, size, link, info, _, _ = struct.unpack_from(
                    "<IIQQQQIIQQ", raw, index * entry_size
                )
                sections.append((kind, offset, size, link, info))

            def content(index: int) -> bytes:
                file.seek(sections[index][1])
                return file.read(sections[index][2])

            found: dict[str, list[str]] = {"needed": [], "soname": [], "runpath": []}
            versions: list[tuple[str, str]] = []
            undefined: list[str] = []
            defined: list[str] = []
            for index, (kind, _, _, link, info) in enumerate(sections):
                if kind == _DYNAMIC:
                    _read_dynamic(content(index), content(link), found)
                elif kind == _VERNEED:
                    versions = _read_version_needs(content(index), content(link), info)
                elif kind == _DYNSYM and symbols:
                    undefined, defined = _read_symbols(content(index), content(link))
    except (OSError, struct.error, IndexError, ValueError, MemoryError):
        return None
    return Library(
        machine=_MACHINES.get(machine, f"processor {machine}"),
        soname="".join(found["soname"][:1]),
        needed=tuple(found["needed"]),
        runpath=tuple(one for path in found["runpath"] for one in path.split(":") if one),
        versions=tuple(versions),
        undefined=frozenset(undefined),
        defined=frozenset(defined),
    )


def _text(strings: bytes, offset: int) -> str:
    """Return the string at an offset of a table of strings."""
    return strings[offset : strings.index(b"\0", offset)].decode("ascii", "replace")


def _read_dynamic(data: bytes, strings: bytes, found: dict[str, list[str]]) -> None:
    """Add the names of a dynamic section to what was found."""
    kinds = {_NEEDED: "needed", _SONAME: "soname", _RPATH: "runpath", _RUNPATH: "runpath"}
    for tag, value in struct.iter_unpack("<QQ", data[: len(data) // 16 * 16]):
        if tag == 0:
            break
        if tag in kinds:
            found[kinds[tag]].append(_text(strings, value))


def _read_version_needs(data: bytes, strings: bytes, count: int) -> list[tuple[str, str]]:
    """Return the versions that a library asks of others."""
    needs: list[tuple[str, str]] = []
    offset = 0
    for _ in range(count):
        _, inner_count, file_name, inner, step = struct.unpack_from("<HHIII", data, offset)
        place = offset + inner
        for _ in range(inner_count):
            _, _, _, name, inner_step = struct.unpack_from("<IHHII", data, place)
            needs.append((_text(strings, file_name), _text(strings, name)))
            place += inner_step
        offset += step
    return needs


def _read_symbols(data: bytes, strings: bytes) -> tuple[list[str], list[str]]:
    """Return the symbols that a table lacks (without weak ones) and those that it defines."""
    undefined, defined = [], []
    for name, info, _, section, _, _ in struct.iter_unpack("<IBBHQQ", data[: len(data) // 24 * 24]):
        if not name:
            continue
        text = _text(strings, name)
        if section:
            defined.append(text)
        elif info >> 4 != 2:
            undefined.append(text)
    return undefined, defined
