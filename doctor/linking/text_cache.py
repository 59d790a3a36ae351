"""Keeps what was read of installed modules, so that an environment is read once."""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from doctor.linking.calls import Signature
from doctor.linking.conditions import Guard
from doctor.linking.lazy_names import LazyNames
from doctor.linking.module_text import KeywordCall, ModuleText, Use

_FORMAT = 1


class TextCache:
    """What modules say, by their files; in a file for each folder of packages where a cache folder is given.

    An entry counts as long as its file has the size and the time of change that it had.

    Args:
        folder: where it is kept; None keeps it in memory only.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.kept: dict[str, dict[str, Any]] = {}
        self.changed: set[str] = set()
        self.texts: dict[str, ModuleText | None] = {}

    def _group(self, path: str) -> tuple[str, dict[str, Any]]:
        """Return the group of entries of the package that a file lies in, by its folder below site-packages."""
        head, _, tail = path.replace(os.sep, "/").rpartition("/site-packages/")
        root = f"{head}/site-packages/{tail.split('/')[0]}" if head else os.path.dirname(path)
        if root not in self.kept:
            self.kept[root] = self._load(root)
        return root, self.kept[root]

    def _file(self, root: str) -> Path | None:
        if self.folder is None:
            return None
        name = hashlib.sha256(f"{_FORMAT} {sys.version_info[:2]} {root}".encode()).hexdigest()[:24]
        return self.folder / f"{name}.json"

    def _load(self, root: str) -> dict[str, Any]:
        file = self._file(root)
        try:
            loaded = json.loads(file.read_bytes()) if file else {}
        except (OSError, ValueError):
            return {}
        return loaded if isinstance(loaded, dict) else {}

    def get(self, path: str, read: Callable[[str], ModuleText | None]) -> ModuleText | None:
        """Return what a module says: as kept, or as `read` says, which is kept.

        Args:
            path: its file.
            read: reads it.
        """
        if path in self.texts:
            return self.texts[path]
        root, group = self._group(path)
        stamp = _stamp(path)
        entry = group.get(path)
        if isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp:
            text = _restored(entry[1])
        else:
            text = read(path)
            if self.folder is not None:
                group[path] = [stamp, asdict(text) if text else None]
                self.changed.add(root)
        self.texts[path] = text
        return text

    def knows(self, path: str) -> bool:
        """Return whether what a module says is kept: then reading it whole costs nothing."""
        if self.folder is None:
            return path in self.texts
        entry = self._group(path)[1].get(path)
        return isinstance(entry, list) and len(entry) == 2 and entry[0] == _stamp(path)

    def names_of(self, folder: str, read: Callable[[str], tuple[str, ...]]) -> frozenset[str]:
        """Return names that the files below a folder export, as kept or as `read` says.

        Args:
            folder: the folder.
            read: reads it.
        """
        root, group = self._group(os.path.join(folder, "__init__.py"))
        key, stamp = f"names {folder}", _stamp(folder)
        entry = group.get(key)
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp):
            entry = [stamp, frozenset(read(folder))]
            group[key] = entry
            self.changed.add(root)
        if not isinstance(entry[1], frozenset):
            entry[1] = frozenset(entry[1])
        names: frozenset[str] = entry[1]
        return names

    def save(self) -> None:
        """Write what was read anew; a cache that can't be written is no fault."""
        if self.folder is None:
            return
        for root in self.changed:
            file = self._file(root)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                if file:
                    scratch = file.with_suffix(f".{os.getpid()}")
                    scratch.write_text(json.dumps(self.kept[root], default=sorted), encoding="utf-8")
                    os.replace(scratch, file)
            except OSError:
                return
        self.changed.clear()


def _stamp(path: str) -> list[int]:
    try:
        found = os.stat(path)
    except OSError:
        return [0, 0]
    return [found.st_size, found.st_mtime_ns]


def _restored(entry: dict[str, Any] | None) -> ModuleText | None:
    if entry is None:
        return None
    lazy = entry["lazy"]
    return ModuleText(
        names=frozenset(entry["names"]), stars=tuple(entry["stars"]),
        offered=tuple(entry["offered"]) if entry["offered"] is not None else None, open=entry["open"],
        lazy=LazyNames(tuple((name, place) for name, place in lazy["names"]), lazy["closed"], tuple(lazy["folders"]),
                       tuple(lazy["refused"]), lazy["stub"]) if lazy else None,
        refused=frozenset(entry["refused"]),
        uses=tuple(Use(one["module"], tuple(one["names"]), one["line"],
                       tuple(Guard(**guard) for guard in one["guards"]), one["how"]) for one in entry["uses"]),
        assigned=entry["assigned"], bindings=entry["bindings"],
        signatures={name: Signature(tuple(one["keywords"]) if one["keywords"] is not None else None,
                                    tuple(one["bases"]), tuple(one["also"]))
                    for name, one in entry["signatures"].items()},
        calls=tuple(KeywordCall(one["callee"], tuple(one["keywords"]), one["line"], one["function"])
                    for one in entry["calls"]), package=entry["package"],
    )  # fmt: skip
