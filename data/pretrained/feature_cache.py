"""Features on disk, by the content of the image and of the model: computed once, whatever the dataset is called."""

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from storage.errors import OutputError
from storage.files import TEMPORARY, write_atomically

_VERSION = "1"  # of what a file holds, and of how features are computed
_ENDING = ".safetensors"
_ABANDONED = 3600.0  # seconds after which a file that was being written is taken for that of a killed process
Row = tuple[np.ndarray, np.ndarray | None]
"""Features (d,) and logits (K,) of one image, float32."""


class FeatureCache:
    """The features of one model: a folder of files, each with some images and a checksum.

    Several processes may use a folder at a time: files are written whole and never changed.

    Attributes:
        notes: what was done aloud: damaged files, a full disk, files that were removed.
    """

    def __init__(self, root: Path, name: str, key: str) -> None:
        """Open the cache of a model.

        Args:
            root: folder of all models' features; made with the first file.
            name: name of the model, for people who look into the folder.
            key: text that is the same for two models with equal features.
        """
        digest = hashlib.sha256(f"{_VERSION} {key}".encode()).hexdigest()
        self._root, self._folder = root, root / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:60]}-{digest[:16]}"
        self._writes = True
        self._used: set[Path] = set()
        self.notes: list[str] = []

    def find(self, digests: Iterable[str]) -> tuple[dict[str, Row], float]:
        """Read what is there of some images.

        Args:
            digests: SHA-256 of each image, 64 hexadecimal digits.

        Returns:
            Features and logits by digest, of the images that were computed before; and the seconds that one of them
            took, NaN where nothing was found.
        """
        wanted = set(digests)
        found: dict[str, Row] = {}
        seconds: list[float] = []
        for path in sorted(self._folder.glob(f"*{_ENDING}")) if self._folder.is_dir() else ():
            if path.name.startswith("."):
                continue
            try:
                inside = _digests_in(path)
                if wanted.isdisjoint(inside):
                    continue
                rows, took = _read(path, inside)
            except (OSError, SafetensorError, ValueError, KeyError) as error:
                self.notes.append(f"features kept in {path} are damaged ({error}); their images are computed anew")
                path.unlink(missing_ok=True)
                continue
            self._used.add(path)
            seconds.append(took)
            found.update((digest, rows[digest]) for digest in inside if digest in wanted)
            with contextlib.suppress(OSError):
                os.utime(path)  # what was used last is removed last
        return found, float(np.mean(seconds)) if seconds else float("nan")

    def add(self, digests: Sequence[str], features: np.ndarray, logits: np.ndarray | None, seconds: float) -> None:
        """Keep features of some images; where they can't be written, say so once and go on.

        Args:
            digests: SHA-256 of each image.
            features: (m, d) float32.
            logits: (m, K) float32, or None.
            seconds: time that an image took.
        """
        if not self._writes or not digests:
            return
        arrays: dict[str, np.ndarray] = {
            "digests": np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(len(digests), -1),
            "features": np.ascontiguousarray(features, np.float32),
        }
        if logits is not None:
            arrays["logits"] = np.ascontiguousarray(logits, np.float32)
        checksum = _checksum(arrays)
        content = save(arrays, {"checksum": checksum, "seconds": repr(seconds)})
        path = self._folder / f"{checksum[:24]}{_ENDING}"
        try:
            write_atomically(path, content, durable=False, setting="--artifacts")
        except OutputError as error:
            self._writes = False
            self.notes.append(f"features are not kept: {error}")
        else:
            self._used.add(path)

    def tidy(self, limit: int) -> None:
        """Remove what killed processes left, and the features that were used longest ago, of all models.

        Args:
            limit: bytes that all features together may take; those of this call are kept in any case.
        """
        files = []
        for path in self._root.rglob("*") if self._root.is_dir() else ():
            with contextlib.suppress(OSError):  # another process removes too
                state = path.stat()
                if path.name.endswith(TEMPORARY):
                    if state.st_mtime < time.time() - _ABANDONED:
                        path.unlink(missing_ok=True)
                elif path.suffix == _ENDING:
                    files.append((state.st_mtime, state.st_size, path))
        total, removed = sum(size for _, size, _ in files), 0
        for _, size, path in sorted(files):
            if total <= limit:
                break
            if path not in self._used:
                path.unlink(missing_ok=True)
                total, removed = total - size, removed + size
        if removed:
            self.notes.append(f"{removed / 1e9:.2f} GB of features that were used longest ago were removed from "
                              f"{self._root}, which may hold {limit / 1e9:.2f} GB")  # fmt: skip


def _digests_in(path: Path) -> list[str]:
    """Return the digests of a file's images; the rest of it isn't read."""
    with safe_open(path, framework="np") as file:
        return [bytes(row).hex() for row in file.get_tensor("digests")]


def _read(path: Path, inside: list[str]) -> tuple[dict[str, Row], float]:
    """Read a file whole and check it.

    Raises:
        ValueError: its content isn't what was written.
    """
    with safe_open(path, framework="np") as file:
        facts = file.metadata() or {}
    arrays = load_file(path)
    if _checksum(arrays) != facts.get("checksum"):
        raise ValueError("its checksum is another")
    logits = arrays.get("logits")
    rows = {digest: (arrays["features"][place], None if logits is None else logits[place])
            for place, digest in enumerate(inside)}  # fmt: skip
    return rows, float(facts.get("seconds", "nan"))


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
