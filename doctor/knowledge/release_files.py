"""Python files of a release, each read once however many releases hold it."""

import io
import json
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from doctor.knowledge.index import File, Index
from doctor.knowledge.scan import FORMAT, summarise

_EXTENSIONS = (".so", ".pyd", ".dylib")
_NOT_SHIPPED = {"tests", "test", "testing", "docs", "doc", "examples", "example", "benchmarks", "benchmark", "scripts"}
_SKIPPED = {"tests", "test", "_tests", "node_modules", "__pycache__", "_internal_test", "third_party_tests"}
_LARGEST_FILE = 2 << 20
# Begins the key of a summary without what functions do.
_OUTLINE = "o"


class Summaries:
    """What was read of files, kept in a database so that an interrupted run goes on where it was.

    Args:
        path: the database.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._store = sqlite3.connect(path)
        self._store.execute("CREATE TABLE IF NOT EXISTS summary (key TEXT PRIMARY KEY, contents BLOB)")
        self._store.execute(
            "CREATE TABLE IF NOT EXISTS release (project TEXT, version TEXT, files BLOB, PRIMARY KEY(project, version))"
        )

    def files(self, project: str, version: str) -> dict[str, str] | None:
        """Return the keys of a release's files by their path, None where it was not read."""
        found = self._store.execute(
            "SELECT files FROM release WHERE project = ? AND version = ?", (project, version)
        ).fetchone()
        return None if found is None else json.loads(zlib.decompress(found[0]))

    def summary(self, key: str) -> dict[str, Any] | None:
        """Return a file's summary, None where it could not be read."""
        found = self._store.execute("SELECT contents FROM summary WHERE key = ?", (key,)).fetchone()
        return json.loads(zlib.decompress(found[0])) if found else None

    def has(self, key: str) -> bool:
        """Return whether a file was read."""
        return self._store.execute("SELECT 1 FROM summary WHERE key = ?", (key,)).fetchone() is not None

    def read(self, project: str, version: str, file: File, index: Index) -> int:
        """Read a release.

        Args:
            project: its project.
            version: its version.
            file: its wheel or source distribution.
            index: the index that has it.

        Returns:
            How many bytes were fetched.

        Raises:
            OSError: if it cannot be read.
        """
        keys: dict[str, str] = {}
        fetched = file.size
        if file.is_wheel:
            opened = index.open(file)
            with zipfile.ZipFile(opened) as archive:
                wanted = {}
                for member in archive.infolist():
                    path = member.filename
                    if is_read(path):
                        keys[path] = self._key(path, member.CRC, member.file_size)
                        if member.file_size > _LARGEST_FILE:
                            keys[path] = ""
                        elif not self.has(keys[path]):
                            wanted[keys[path]] = member
                    elif path.endswith(_EXTENSIONS):
                        keys[path] = ""
                opened.fetch_members(archive, wanted.values())
                for key, member in wanted.items():
                    self._keep(key, archive.read(member))
            fetched = opened.fetched
        else:
            for path, contents in _source_files(index.read(file.url)):
                keys[path] = self._key(path, zlib.crc32(contents), len(contents))
                if not self.has(keys[path]):
                    self._keep(keys[path], contents)
        packed = zlib.compress(json.dumps(keys).encode())
        self._store.execute("INSERT OR REPLACE INTO release VALUES (?, ?, ?)", (project, version, packed))
        self._store.commit()
        return fetched

    def _key(self, path: str, checksum: int, size: int) -> str:
        """Return the key of a file: the whole summary's where there is one, else that of what will be read."""
        whole = f"{FORMAT}-{checksum:08x}-{size}"
        return f"{_OUTLINE}{whole}" if is_inner(path) and not self.has(whole) else whole

    def _keep(self, key: str, contents: bytes) -> None:
        summary = summarise(contents, bodies=not key.startswith(_OUTLINE))
        packed = zlib.compress(json.dumps(summary if summary is not None else {"unlisted": True}).encode())
        self._store.execute("INSERT OR REPLACE INTO summary VALUES (?, ?)", (key, packed))


def is_inner(path: str) -> bool:
    """Return whether what a file's functions do is of no use to others: of one model among many, or private."""
    folders = PurePosixPath(path).parts[1:-1]
    return any(folder in ("models", "testing") or folder.startswith("_") for folder in folders)


def is_read(path: str) -> bool:
    """Return whether a file of a wheel is one to read: Python or a stub, of a package or a module, and no test."""
    parts = PurePosixPath(path).parts
    if not path.endswith((".py", ".pyi")) or not parts[-1].split(".")[0].isidentifier():
        return False
    if parts[0].endswith((".data", ".dist-info")) or parts[0] in _NOT_SHIPPED or _SKIPPED & set(parts[:-1]):
        return False
    return all(part.isidentifier() for part in parts[:-1])


def _source_files(contents: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the Python files of a source distribution as a wheel would hold them."""
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(contents)) as archive:
        for member in archive:
            path = member.name.partition("/")[2]
            path = path.removeprefix("src/").removeprefix("python/")
            if member.isfile() and member.size <= _LARGEST_FILE and is_read(path):
                opened = archive.extractfile(member)
                files[path] = opened.read() if opened else b""
    packages = {path.split("/")[0] for path in files if path.count("/") == 1 and path.endswith("/__init__.py")}
    yield from ((path, text) for path, text in files.items() if path.split("/")[0] in packages and "/" in path)
