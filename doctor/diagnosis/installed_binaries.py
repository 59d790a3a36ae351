"""Compiled parts of what is installed, read as a linker reads them: what they need and don't get here."""

import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from doctor.case import Case
from doctor.diagnosis.library_tables import LIBRARIES
from doctor.diagnosis.mechanism import Said
from doctor.diagnosis.numpy_abi import FOR_NUMPY_2
from doctor.diagnosis.torch_extensions import MODULES, release_for_torch, torch_built_for
from doctor.environment.elf import Library, read_elf
from doctor.environment.facts import Environment, Installed
from doctor.environment.installed_files import recorded_paths
from doctor.finding import Change, Finding
from doctor.knowledge.torch_symbols import torch_versions, torch_with

# Distributions that are linked with torch.
_UNLINKED = {"bitsandbytes", "onnxruntime", "decord", "llama-cpp-python"}
_EXTENSIONS = frozenset(name for _, name in MODULES if name) - _UNLINKED
# Theirs load what is there of several system libraries, and do without the others.
_OPTIONAL = {"torchaudio", "torchvision", "torchcodec"}
_MOST_FILES, _LARGEST, _ENOUGH = 12, 400 * 2**20, 3
_OF_TORCH = re.compile(r"_Z(?:T[VI])?NK?(?:3c10|2at|5torch)")
_SOURCE = "symbols of torch's wheels, read 2026-11-28; installed files"
_FOLDERS = (
    "/lib",
    "/usr/lib",
    "/lib64",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
)


def find_installed_binaries(case: Case, knowledge: Any) -> Iterator[Said]:
    """Tell which installed extensions don't fit the torch, the NumPy or the system that is here.

    Args:
        case: an environment that was read from files; a failure is not needed.
        knowledge: for releases and what they pin.

    Yields:
        A finding for each distribution at fault; what was read and fits.
    """
    here = case.environment
    if not here.complete or here.interpreter is None or here.interpreter.sys_platform != "linux":
        return
    torch = here.version("torch")
    fine = []
    for one in here.installed:
        if one.name not in _EXTENSIONS or not one.site or one is not here.find(one.name):
            continue
        libraries = list(_libraries(one))
        faults = [*_other_torch(one, libraries, torch, here, knowledge), *_missing_libraries(one, libraries, here)]
        yield from faults
        if libraries and not faults:
            fine.append(f"{one.name} {one.version}")
    if fine:
        yield f"Compiled code read and found to fit torch and the system: {', '.join(fine)}."
    yield from _numpy_1_builds(here)


def _libraries(one: Installed) -> Iterator[tuple[str, Library]]:
    """Yield the compiled files of a distribution, paths with what they say; the first few of a large one."""
    paths = [path for path in recorded_paths(one.folder) if re.search(r"\.so(\.\d+)*$", path)]
    for path in sorted(paths, key=lambda each: (each.count("/"), each))[:_MOST_FILES]:
        whole = os.path.join(one.site, path)
        try:
            large = os.path.getsize(whole) > _LARGEST
        except OSError:
            continue
        library = read_elf(whole, symbols=not large)
        if library is not None:
            yield path, library


def _other_torch(
    one: Installed, libraries: list[tuple[str, Library]], torch: Version | None, here: Environment, knowledge: Any
) -> Iterator[Finding]:
    """Yield a finding where a distribution asks for symbols that the torch here doesn't offer."""
    if torch is None or one.name in ("torchvision", "torchaudio"):
        return
    minor = f"{torch.major}.{torch.minor}"
    if minor not in torch_versions():
        return
    lacking: dict[str, list[str]] = {}
    place = ""
    for path, library in libraries:
        for symbol in sorted(library.undefined):
            known = torch_with(symbol) if _OF_TORCH.match(symbol) else None
            if known is not None and minor not in known:
                lacking[symbol] = known
                place = place or path
    found = here.find("torch")
    if len(lacking) < _ENOUGH or found is None:
        return
    # The table is of PyPI's wheels; what is installed has the last word.
    offered: set[str] = set()
    for file in sorted(Path(found.site, "torch", "lib").glob("lib*.so")):
        if file.name.startswith(("libc10", "libtorch")):
            read = read_elf(file)
            offered.update(read.defined if read else ())
    lacking = {symbol: known for symbol, known in lacking.items() if symbol not in offered}
    if len(lacking) < _ENOUGH:
        return
    common = set.intersection(*(set(known) for known in lacking.values()))
    pinned = torch_built_for(one.name, Version(one.version), knowledge.metadata) if _is_version(one.version) else ()
    fits = [version for version in torch_versions() if version in common]
    fits = [version for version in fits if version in pinned] or fits
    built = f"torch {fits[0]}{f' to {fits[-1]}' if len(fits) > 1 else ''}" if fits else "another torch"
    changes = []
    other = release_for_torch(one.name, minor, knowledge.metadata)
    if other and not other.endswith(f"=={one.version}"):
        changes.append(
            Change(
                "pin", f"Take the {one.name} that is built for torch {minor}.", (other,), holds=(f"torch=={minor}.*",)
            )
        )
    if fits:
        changes.append(
            Change(
                "pin", f"Or install torch {fits[-1]}.", (f"torch=={fits[-1]}.*",), holds=(f"{one.name}=={one.version}",)
            )
        )
    symbol = next(iter(lacking))
    module = "" if "/" in place else place.split(".")[0]  # a module at the top is imported by its file's name
    yield Finding(
        "installed-extension-of-another-torch",
        "import/binary_abi",
        "error",
        0.92,
        f"{one.name} {one.version} was built for {built}, not for the torch {torch} that is installed.",
        (
            f"{place} asks for {len(lacking)} symbols that torch {torch} doesn't offer",
            f"{symbol}: in torch {lacking[symbol][0]} to {lacking[symbol][-1]}",
        ),
        "It will fail at its import with `undefined symbol`.",
        tuple(changes),
        "reinstalling the same wheel",
        f"python -c 'import torch, {module}'" if module else None,
        (one.name, "torch"),
        _SOURCE,
        provable=f"import torch, {module}" if module else None,
    )


def _is_version(text: str) -> bool:
    """Return whether a text is a version."""
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def _missing_libraries(one: Installed, libraries: list[tuple[str, Library]], here: Environment) -> Iterator[Finding]:
    """Yield a finding where a distribution needs a system library, or a C library, that isn't here."""
    if one.name in _OPTIONAL:
        return
    for path, library in libraries:
        for needed in library.needed:
            base = re.sub(r"\.so.*", "", needed)
            known = next((each for each in LIBRARIES if re.fullmatch(each.pattern, base)), None)
            if known is None or _is_there(needed, one, path, here):
                continue
            yield Finding(
                "installed-extension-misses-library",
                "import/system_library",
                "warning",
                0.8,
                f"{one.name} needs {needed} ({known.what}), which was not found on this machine.",
                (f"{path} asks for {needed}",),
                "The package doesn't bring it; its import will fail where it is needed.",
                (
                    Change(
                        "system",
                        f"Install it with the system's packages: apt {known.apt}; dnf {known.dnf}.",
                        commands=(f"apt-get install -y {known.apt}",),
                    ),
                ),
                f"reinstalling {one.name}: the file is no part of it",
                f"ldconfig -p | grep {base}",
                source="installed files",
            )
            return
        oldest = [name.removeprefix("GLIBC_") for _, name in library.versions if re.fullmatch(r"GLIBC_2\.\d+", name)]
        libc = re.search(r"glibc (\d+\.\d+)", (here.interpreter.libc if here.interpreter else "") or "")
        newest = max(oldest, key=_numbers, default="0")
        if libc and _numbers(newest) > _numbers(libc[1]):
            yield Finding(
                "installed-extension-of-newer-system",
                "import/system_library",
                "error",
                0.92,
                f"{one.name} {one.version} was compiled for glibc {newest}; this system has {libc[1]}.",
                (f"{path} asks for GLIBC_{newest}",),
                "glibc comes with the distribution and can't be raised alone.",
                (
                    Change("install", f"Build {one.name} here, or take a wheel for an older glibc."),
                    Change("system", "Or use a newer distribution or image."),
                ),
                source="installed files",
                culprits=(one.name,),
            )
            return


def _is_there(needed: str, one: Installed, path: str, here: Environment) -> bool:
    """Return whether a library lies where the loader, or a package that loads it first, looks."""
    prefix = here.interpreter.prefix if here.interpreter else ""
    base = here.interpreter.base_prefix if here.interpreter else ""
    folders = [
        *_FOLDERS,
        os.path.dirname(os.path.join(one.site, path)),
        os.path.join(one.site, "torch", "lib"),
        *(os.path.join(each, "lib") for each in (prefix, base) if each),
        *here.variables.get("LD_LIBRARY_PATH", "").split(":"),
    ]
    if any(folder and os.path.exists(os.path.join(folder, needed)) for folder in folders):
        return True
    inside = os.path.join(one.site, f"{one.name.replace('-', '_')}.libs")
    return os.path.isdir(inside) and any(name.startswith(needed.split(".so")[0]) for name in os.listdir(inside))


def _numpy_1_builds(here: Environment) -> Iterator[Finding]:
    """Yield a finding where installed releases were built for NumPy 1 and NumPy 2 is here."""
    numpy = here.version("numpy")
    if numpy is None or numpy.major < 2:
        return
    for one in here.installed:
        first = FOR_NUMPY_2.get(one.name, "0")
        if first in ("0", "999") or one is not here.find(one.name) or not one.site:
            continue
        try:
            old = Version(one.version) < Version(first)
        except InvalidVersion:
            continue
        path = _built_for_numpy_1(one) if old else None
        if path:
            module = re.sub(r"[/.].*", "", path)
            yield Finding(
                "installed-for-numpy-1",
                "import/binary_abi",
                "error",
                0.92,
                f"{one.name} {one.version} was built for NumPy 1, and NumPy {numpy} is installed.",
                (f"{path} asks for numpy.core, and not for numpy._core of NumPy 2",),
                "Code compiled against NumPy 1 can't run with NumPy 2.",
                (
                    Change("pin", "Hold numpy below 2.", ("numpy<2",), holds=(f"{one.name}<{first}",)),
                    Change(
                        "pin",
                        f"Or raise {one.name} to {first}, the first that is built for NumPy 2.",
                        (f"{one.name}>={first}",),
                    ),
                ),
                None,
                f"python -c 'import {module}'",
                ("numpy", one.name),
                "https://numpy.org/doc/stable/numpy_2_0_migration_guide.html",
                provable=f"import {module}",
            )


def _built_for_numpy_1(one: Installed) -> str | None:
    """Return the first compiled file that imports the C interface of NumPy 1 alone; None where there is none."""
    paths = [path for path in recorded_paths(one.folder) if re.search(r"\.so$", path)]
    for path in paths[:40]:
        try:
            with (
                open(os.path.join(one.site, path), "rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ):
                if data.find(b"numpy.core.multiarray") >= 0 or data.find(b"numpy.core._multiarray_umath") >= 0:
                    return path if data.find(b"numpy._core") < 0 else None
        except (OSError, ValueError):
            continue
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """Return a version as numbers that compare."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())
