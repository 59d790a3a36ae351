"""What compiled and generated modules were made for, read from their bytes and text."""

import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from doctor.environment.facts import Installed
from doctor.environment.installed_files import recorded_paths

# A module larger than this is a whole library; the ones that ask for NumPy's C API are small parts beside it.
_MOST = 80_000_000
# What the C API is asked for through: headers of NumPy 1 know the first name only, those of NumPy 2 both.
_OLD, _NEW = b"numpy.core._multiarray_umath", b"numpy._core"
# How descriptors were made by compilers of protocol buffers before 3.20.
_OLD_DESCRIPTOR = re.compile(r"_descriptor\.(?:FieldDescriptor|FileDescriptor)\(\s*\n?\s*name=")
_MADE_BY = re.compile(r"ValidateProtobufRuntimeVersion\(\s*[\w.]+,\s*(\d+),\s*(\d+),\s*(\d+)")
_MOST_GENERATED = 40


@dataclass(frozen=True)
class Generated:
    """A module that a compiler of protocol buffers wrote.

    Args:
        file: its path below the folder of packages.
        old: whether it makes descriptors as compilers before 3.20 did, which protobuf 4 refuses.
        made_by: the version of protobuf that it asks for at least, (6, 31, 1); None where it doesn't say.
    """

    file: str
    old: bool
    made_by: tuple[int, int, int] | None = None


def built_for_numpy_1(path: str) -> str | None:
    """Return which library asks for NumPy's C API by the name of NumPy 1 alone: an extension module, or one beside it.

    Args:
        path: the file of an extension module.

    Returns:
        The name of the file; None where none does, or where one of them knows NumPy 2.
    """
    found = None
    folder = Path(path).parent
    for file in sorted(folder.glob("*.so")) + sorted(folder.glob("*.pyd")):
        try:
            with open(file, "rb") as stream:
                if os.fstat(stream.fileno()).st_size > _MOST:
                    continue
                with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    if content.find(_OLD) < 0:
                        continue
                    if content.find(_NEW) >= 0:
                        return None
        except (OSError, ValueError):
            continue
        found = found or file.name
    return found


def generated_modules(distribution: Installed) -> Iterator[Generated]:
    """Yield the modules of a distribution that a compiler of protocol buffers wrote, one of each kind.

    Args:
        distribution: the distribution.
    """
    if not distribution.folder:
        return
    paths = recorded_paths(distribution.folder)
    files = [path for path in paths if path.endswith("_pb2.py")]
    # Where there are several of one name, the package chooses by what is installed.
    names = [re.sub(r"_pb2\w*\.py$", "", path) for path in paths if "_pb2" in path and path.endswith(".py")]
    files = [path for path in files if names.count(path.removesuffix("_pb2.py")) == 1]
    seen: set[tuple[bool, tuple[int, int, int] | None]] = set()
    for file in sorted(files)[:_MOST_GENERATED]:
        try:
            text = (Path(distribution.site) / file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        asked = _MADE_BY.search(text)
        made_by = (int(asked[1]), int(asked[2]), int(asked[3])) if asked else None
        old = bool(_OLD_DESCRIPTOR.search(text))
        if (old or made_by) and (old, made_by) not in seen:
            seen.add((old, made_by))
            yield Generated(file, old, made_by)
