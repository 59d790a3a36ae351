"""Digests of files and folders, by which a changed input is known."""

import hashlib
from pathlib import Path

_BLOCK = 1 << 20
_IGNORED = frozenset({"__pycache__", ".git", ".workflow", ".ipynb_checkpoints"})


class Digests:
    """Digests of paths in a folder; a file that has the size and time of before is not read again.

    Args:
        folder: the project's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, int, int], str] = {}

    def of(self, path: str) -> str | None:
        """Return the digest of a file's content, or of a folder's names and contents; None where it isn't there.

        Args:
            path: path from the project's folder.
        """
        full = self._folder / path
        if full.is_dir():
            whole = hashlib.sha256()
            files = (one for one in sorted(full.rglob("*")) if not _IGNORED & set(one.relative_to(full).parts))
            for one in files:
                if one.is_file():
                    whole.update(f"{one.relative_to(full).as_posix()}\0{self._file(one)}\n".encode())
            return whole.hexdigest()
        return self._file(full) if full.is_file() else None

    def _file(self, path: Path) -> str:
        facts = path.stat()
        key = (str(path), facts.st_size, facts.st_mtime_ns)
        if key not in self._known:
            digest = hashlib.sha256()
            with path.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
            self._known[key] = digest.hexdigest()
        return self._known[key]
