"""Where the images of a dataset are: files, arrays, or the bytes of a table. Each opens one image at a time."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from data.images.decoding import ImageError, array_image, open_image


class ImageSource(Protocol):
    """Images in rows 0, 1, ...; it can be sent to other processes."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def chosen(self, rows: np.ndarray) -> "ImageSource":
        """Return a source of some of the rows, in that order; it may read them.

        Raises:
            DataError: what holds the images can't be read.
        """
        ...

    def image(self, row: int, at_least: int | None = None) -> Image.Image:
        """Open an image as RGB; `at_least` is that of `open_image`.

        Raises:
            ImageError: it can't be opened.
        """
        ...

    def check(self, row: int) -> tuple[str, str]:
        """Read an image once, and try to open it.

        Returns:
            Hexadecimal SHA-256 of its bytes or pixels ("" where they can't be read), and the reason where it can't be
            opened (otherwise "").
        """
        ...


class FileImages:
    """Images in files.

    Args:
        paths: the files, as the system names them.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def chosen(self, rows: np.ndarray) -> "FileImages":
        """Return a source of some of the files."""
        return FileImages([self.paths[row] for row in rows])

    def image(self, row: int, at_least: int | None = None) -> Image.Image:
        """Open an image as RGB."""
        return open_image(self.paths[row], at_least)

    def check(self, row: int) -> tuple[str, str]:
        """Read a file once."""
        try:
            content = Path(self.paths[row]).read_bytes()
        except OSError as error:
            return "", error.strerror or str(error)
        return _checked_bytes(content)


class EncodedImages:
    """Images as the bytes of files, one after another in one buffer.

    Args:
        buffer: (bytes,) uint8, the files laid end to end; may be a memory map.
        starts: (n,) int64, where each begins.
        ends: (n,) int64, where each ends.
    """

    def __init__(self, buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        self.buffer, self.starts, self.ends = buffer, starts, ends

    def __len__(self) -> int:
        return len(self.starts)

    def _bytes(self, row: int) -> bytes:
        return self.buffer[self.starts[row] : self.ends[row]].tobytes()

    def chosen(self, rows: np.ndarray) -> "EncodedImages":
        """Return a source of some of the images, in the same buffer."""
        return EncodedImages(self.buffer, self.starts[rows], self.ends[rows])

    def image(self, row: int, at_least: int | None = None) -> Image.Image:
        """Open an image as RGB."""
        return open_image(self._bytes(row), at_least)

    def check(self, row: int) -> tuple[str, str]:
        """Read an image once."""
        return _checked_bytes(self._bytes(row))


class ArrayImages:
    """Images in arrays.

    Args:
        arrays: each (m, H, W) or (m, H, W, 1, 3 or 4), as `array_image` takes its rows.
        value_range: pixel values that become 0 and 255, of all images.
        places: (n, 2) int64, the array and the row in it of each image; None takes all.
    """

    def __init__(
        self, arrays: Sequence[np.ndarray], value_range: tuple[float, float], places: np.ndarray | None = None
    ) -> None:
        self.arrays, self.value_range = tuple(arrays), value_range
        if places is None:
            counts = [len(array) for array in self.arrays]
            rows = np.concatenate([np.arange(count) for count in counts])
            places = np.stack([np.repeat(np.arange(len(counts)), counts), rows], axis=1)
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def _pixels(self, row: int) -> np.ndarray:
        array, place = self.places[row]
        return self.arrays[array][place]

    def chosen(self, rows: np.ndarray) -> "ArrayImages":
        """Return a source of some of the images, in the same arrays."""
        return ArrayImages(self.arrays, self.value_range, self.places[rows])

    def image(self, row: int, at_least: int | None = None) -> Image.Image:
        """Return an image as RGB."""
        return array_image(self._pixels(row), self.value_range)

    def check(self, row: int) -> tuple[str, str]:
        """Read an image once."""
        pixels = np.ascontiguousarray(self._pixels(row))
        digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype.str} ".encode())
        digest.update(pixels)
        try:
            array_image(pixels, self.value_range)
        except ImageError as error:
            return digest.hexdigest(), str(error)
        return digest.hexdigest(), ""


def _checked_bytes(content: bytes) -> tuple[str, str]:
    digest = hashlib.sha256(content).hexdigest()
    try:
        open_image(content, at_least=1)  # a JPEG at an eighth of its size: all of its bytes are read, few pixels made
    except ImageError as error:
        return digest, str(error)
    return digest, ""
