"""Compiled libraries are read as a linker reads them."""

import importlib.util
from pathlib import Path

import pytest

from doctor.environment.elf import read_elf
from tests.doctor.elf_files import write_elf


def test_what_a_library_needs_and_offers(tmp_path):
    path = write_elf(
        tmp_path / "x.so",
        needed=("libnuma.so.1", "libc.so.6"),
        undefined=("asked",),
        weak=("maybe",),
        defined=("given",),
        versions=(("libc.so.6", "GLIBC_2.34"), ("libstdc++.so.6", "GLIBCXX_3.4.30")),
        machine=183,
        soname="libx.so.1",
    )
    library = read_elf(path)
    assert library.machine == "aarch64" and library.soname == "libx.so.1"
    assert library.needed == ("libnuma.so.1", "libc.so.6")
    assert library.undefined == {"asked"} and library.defined == {"given"}
    assert library.versions == (("libc.so.6", "GLIBC_2.34"), ("libstdc++.so.6", "GLIBCXX_3.4.30"))
    assert read_elf(path, symbols=False).undefined == frozenset()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x7fELF\x02\x01" + b"\xff" * 58, b"\x7fELF\x01\x01" + bytes(60)]
)
def test_what_is_no_library_is_none(tmp_path, content):
    (tmp_path / "x.so").write_bytes(content)
    assert read_elf(tmp_path / "x.so") is None
    assert read_elf(tmp_path / "absent.so") is None


def test_a_library_that_is_cut_off_is_none(tmp_path):
    path = write_elf(tmp_path / "x.so", needed=("libc.so.6",), undefined=("asked",))
    path.write_bytes(path.read_bytes()[:-40])
    assert read_elf(path) is None


def test_torchs_own_library_offers_its_error():
    folder = Path(importlib.util.find_spec("torch").origin).parent / "lib"
    library = read_elf(folder / "libc10.so")
    assert "libc.so.6" in library.needed and any("3c105Error" in symbol for symbol in library.defined)
