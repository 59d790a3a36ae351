"""Digests of files and folders, by which a changed input is known."""

import ast
import hashlib
import os
from collections.abc import Sequence
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
        self._imported: dict[str, list[str]] = {}

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

    def code_of(self, script: str) -> list[str]:
        """Return a script of Python and all that it imports from its own folder, as far as it is there and can be read.

        Args:
            script: path from the project's folder.
        """
        place = Path(script).parent
        if not (self._folder / place).is_dir():
            return []
        # Looked up once: most of what is imported is elsewhere.
        with os.scandir(self._folder / place) as entries:
            there = {entry.name for entry in entries if entry.name.endswith(".py") and entry.is_file()}
        found, left = [], [Path(script).name]
        while left:
            name = left.pop()
            if name in there and name not in found:
                found.append(name)
                left += self._imports(self._folder / place / name)
        return [str(place / name) for name in found]

    def _imports(self, path: Path) -> Sequence[str]:
        digest = self._file(path)
        if digest not in self._imported:
            try:
                nodes = list(ast.walk(ast.parse(path.read_bytes())))
            except (SyntaxError, ValueError):
                nodes = []  # the step itself will tell
            names = [one.name for node in nodes if isinstance(node, ast.Import) for one in node.names]
            names += [
                node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level
            ]
            self._imported[digest] = sorted({f"{name}.py" for name in names if "." not in name})
        return self._imported[digest]

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
