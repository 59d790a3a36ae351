"""Packed tables: zip files with one JSON member a project, of which only what is asked is read."""

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

INDEX = "index.json"
# A fixed time of members, so that the same contents are the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


class Packed:
    """A table on disk, perhaps not there.

    Args:
        path: the zip file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        try:
            self._archive = zipfile.ZipFile(path)
            self.members = frozenset(self._archive.namelist())
        except (OSError, zipfile.BadZipFile):
            self.members = frozenset()

    def text(self, member: str) -> bytes:
        """Return a member as it stands, to look for something before it is parsed; empty where it cannot be read."""
        if self._archive is None or member not in self.members:
            return b""
        try:
            return self._archive.read(member)
        except (OSError, zipfile.BadZipFile, zlib.error):
            return b""

    def read(self, member: str) -> dict[str, Any]:
        """Return a member's contents, {} where it is not there or cannot be read."""
        try:
            contents = json.loads(self.text(member) or "{}")
        except ValueError:
            return {}
        return contents if isinstance(contents, dict) else {}


def write(path: Path, members: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a table; an interrupted write leaves the old one.

    Args:
        path: the zip file.
        members: contents by the member's name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name in sorted(members):
                text = json.dumps(members[name], ensure_ascii=False, separators=(",", ":"))
                member = zipfile.ZipInfo(name, _TIME)
                member.compress_type = zipfile.ZIP_DEFLATED
                member.external_attr = 0o644 << 16
                archive.writestr(member, text)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
