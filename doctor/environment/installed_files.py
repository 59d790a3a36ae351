"""The files that a distribution says it installed, and which of them are there."""

import csv
import os
import re
from collections.abc import Iterable, Iterator

from doctor.environment.facts import Installed

_MODULE = re.compile(r"([A-Za-z_]\w*)(\.py|\.[\w-]+\.(so|pyd)|\.so|\.pyd)?")


def recorded_paths(folder: str) -> list[str]:
    """Return the paths of a RECORD (or of an egg's list of files), relative to the folder of packages.

    Args:
        folder: a dist-info or egg-info folder.

    Returns:
        Paths with forward slashes, as they stand; empty where there is no such list.
    """
    try:
        with open(os.path.join(folder, "RECORD"), encoding="utf-8", errors="replace", newline="") as stream:
            text = stream.read()
    except OSError:
        return _egg_paths(folder)
    if '"' in text:
        return [row[0].replace("\\", "/") for row in csv.reader(text.splitlines()) if row]
    return [line.split(",", 1)[0].replace("\\", "/") for line in text.splitlines() if line]


def recorded_sizes(folder: str) -> dict[str, tuple[str, int | None]]:
    """Return hash and size of each path of a RECORD.

    Args:
        folder: a dist-info folder.

    Returns:
        ("sha256=...", bytes) by path; "" and None where the list doesn't tell.
    """
    try:
        with open(os.path.join(folder, "RECORD"), encoding="utf-8", errors="replace", newline="") as stream:
            rows = [row for row in csv.reader(stream) if len(row) >= 3]
    except OSError:
        return {}
    return {row[0].replace("\\", "/"): (row[1], int(row[2]) if row[2].isdigit() else None) for row in rows}


def _egg_paths(folder: str) -> list[str]:
    """Return the paths of installed-files.txt, which are relative to the egg-info folder itself."""
    try:
        with open(os.path.join(folder, "installed-files.txt"), encoding="utf-8", errors="replace") as stream:
            lines = [line.strip().replace("\\", "/") for line in stream if line.strip()]
    except OSError:
        return []
    return [os.path.normpath(f"{os.path.basename(folder)}/{line}").replace("\\", "/") for line in lines]


def top_level_names(paths: Iterable[str]) -> list[str]:
    """Return the names that can be imported of some installed paths, sorted."""
    firsts = {path.split("/", 1)[0] if "/" not in path else path.split("/", 1)[0] + "/" for path in paths}
    names = set()
    for first in firsts:
        match = _MODULE.fullmatch(first.rstrip("/"))
        if match and bool(match[2]) != first.endswith("/") and match[1] != "__pycache__":
            names.add(match[1])
    return sorted(name for name in names if not name.startswith("__editable__"))


def missing_paths(installed: Installed, wanted: re.Pattern[str] | None = None) -> Iterator[str]:
    """Yield the recorded paths of a distribution that are not there, each folder being listed once.

    Args:
        installed: the distribution.
        wanted: what a path must match to be looked for; every path if None.

    Yields:
        Paths relative to the folder of packages.
    """
    listed: dict[str, set[str]] = {}
    for path in recorded_paths(installed.folder):
        if wanted is not None and not wanted.search(path):
            continue
        folder, name = os.path.split(path)
        if folder not in listed:
            try:
                listed[folder] = set(os.listdir(os.path.join(installed.site, folder)))
            except OSError:
                listed[folder] = set()
        if name not in listed[folder]:
            yield path
