"""Opening every image once, in threads, and remembering what came of it."""

import contextlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from data.images.decoding import ImageCheck
from data.images.image_sources import FileImages, ImageSource
from storage.errors import OutputError
from storage.files import write_atomically

DIGESTS_FOLDER = "image_digests"
"""Name of the folder of artifacts in which commands remember the digests of files."""
_VERSION = 1
_REPORTS = 200  # of progress, at most
_MOST_THREADS = 8


def check_images(
    source: ImageSource, cache: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> list[ImageCheck]:
    """Find out which images can be opened, and the digest of each.

    Args:
        source: the images.
        cache: folder in which the digests of files are remembered: one of the same path, size and time of change isn't
            read again. None remembers nothing.
        progress: called with the number of images that are done, and of all.

    Returns:
        One result for each image, in their order.
    """
    memory = _Memory(cache, source.paths) if cache is not None and isinstance(source, FileImages) else None
    results: list[ImageCheck | None] = [None] * len(source)
    if memory:
        results = [memory.known(path) for path in memory.paths]
    todo = [row for row, result in enumerate(results) if result is None]
    done = len(source) - len(todo)
    every = max(1, len(todo) // _REPORTS)
    try:
        with ThreadPoolExecutor(min(_MOST_THREADS, (os.cpu_count() or 1) + 1)) as pool:
            try:
                for number, (row, result) in enumerate(zip(todo, pool.map(source.check, todo), strict=True), 1):
                    results[row] = result
                    if progress and (number % every == 0 or number == len(todo)):
                        progress(done + number, len(source))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        if memory and todo:
            memory.write(results)
    return [result for result in results if result is not None]


class _Memory:
    """What is known of files from before.

    Args:
        folder: where it is kept, in one file for each folder of images.
        paths: the files.
    """

    def __init__(self, folder: Path, paths: tuple[str, ...]) -> None:
        self.paths = [os.path.abspath(path) for path in paths]
        self._marks = {path: _mark(path) for path in self.paths}
        above = os.path.commonpath(self.paths) if self.paths else ""
        self._file = folder / f"digests-{sha256(os.fsencode(above)).hexdigest()[:16]}.json"
        self._known: dict[str, tuple[str, str, int]] = {}  # mark, digest and highest level of a file that can be opened
        try:
            content = json.loads(self._file.read_bytes())
            if content["version"] == _VERSION:
                self._known = {path: (str(mark), str(digest), int(level))
                               for path, (mark, digest, level) in content["files"].items()}  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # there is none, or it is damaged: all files are read again

    def known(self, path: str) -> ImageCheck | None:
        """Return what came of a file that hasn't changed since; None where it must be read."""
        mark, digest, level = self._known.get(path, ("", "", 0))
        return ImageCheck(digest, brightest=level) if mark and mark == self._marks[path] else None

    def write(self, results: list[ImageCheck | None]) -> None:
        """Keep what is known of files that can be opened; those that can't are tried again the next time."""
        new = {path: (self._marks[path], result.digest, result.brightest)
               for path, result in zip(self.paths, results, strict=True)
               if result is not None and not result.reason and self._marks[path]}  # fmt: skip
        if new.items() <= self._known.items():
            return
        self._known |= new
        content = json.dumps({"version": _VERSION, "files": self._known}).encode()
        with contextlib.suppress(OSError, OutputError):  # it only saves time
            write_atomically(self._file, content, durable=False)


def _mark(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
