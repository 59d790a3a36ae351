"""Where the images of a dataset are: files, arrays, or the bytes of a table. Each opens one image at a time."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from data.images.decoding import WHITE_16_BIT, ImageCheck, ImageError, array_image, check_image, open_image


class UnreadImages(Protocol):
    """Images in rows 0, 1, ..., perhaps not read yet."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def chosen(self, rows: np.ndarray) -> "ImageSource":
        """Return a source of some of the rows, in that order; it may read them.

        Raises:
            DataError: what holds the images can't be read.
        """
        ...


class ImageSource(UnreadImages, Protocol):
    """Images in rows 0, 1, ..., each opened when it is asked for; it can be sent to other processes."""

    def image(self, row: int, at_least: int | None = None) -> Image.Image:
        """Open an image as RGB; `at_least` is that of `open_image`.

        Raises:
            ImageError: it can't be opened.
        """
        ...

    def check(self, row: int) -> ImageCheck:
        """Read an image once, and find out whether it can be opened."""
        ...

    def with_white(self, white: int) -> "ImageSource":
        """Return the same images, with another level of 16-bit grey that becomes white."""
        ...

    @property
    def scaling(self) -> str:
        """How levels are scaled to 8 bits, as text; empty where nothing was chosen for this dataset."""
        ...


class FileImages:
    """Images in files.

    Args:
        paths: the files, as the system names them.
        white: level of 16-bit grey that becomes white.
    """

    def __init__(self, paths: Sequence[str], white: int = WHITE_16_BIT) -> None:
        self.paths, self.white = tuple(paths), white

    def __len__(self) -> int:
        return len(self.paths)

    def chosen(self, rows: np.ndarray) -> "FileImages":
        """Return a source of some of the files."""
        return FileImages([self.paths[row] for row in rows], self.white)

    def with_white(self, white: int) -> "FileImages":
        """Return the same images, with another white of 16-bit grey."""
        return FileImages(self.paths, white)

    @property
    def scaling(self) -> str:
        """The level that is white, where it isn't 65535."""
        return "" if self.white == WHITE_16_BIT else f"white {self.white}"

    def image(self, row: int, at_least: int | None = None) -> Image.Image:
        """Open an image as RGB."""
        return open_image(self.paths[row], at_least, self.white)

    def check(self, row: int) -> ImageCheck:
        """Read a file once."""
        return check_image(self.paths[row])


class EncodedImages:
    """Images as the bytes of files, one after another in one buffer.

    Args:
        buffer: (bytes,) uint8, the files laid end to end; may be a memory map.
        starts: (n,) int64, where each begins.
        ends: (n,) int64, where each ends.
        white: level of 16-bit grey that becomes white.
    """

    def __init__(self, buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray, white: int = WHITE_16_BIT) -> None:
        self.buffer, self.starts, self.ends, self.white = buffer, starts, ends, white

    def __len__(self) -> int:
        return len(self.starts)

    def __getstate__(self) -> dict[str, object]:
        state = dict(self.__dict__)
        if isinstance(self.buffer, np.memmap):  # which would be sent whole
            state["buffer"] = str(self.buffer.filename)
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        if isinstance(self.buffer, str):
            self.buffer = np.memmap(self.buffer, np.uint8, mode="r")

    def _bytes(self, row: int) -> bytes:
        return self.buffer[self.starts[row] : self.ends[row]].tobytes()

    def chosen(self, rows: np.ndarray) -> "EncodedImages":
        """Return a source of some of the images, in the same buffer."""
        return EncodedImages(self.buffer, self.starts[rows], self.ends[rows], self.white)

    def with_white(self, white: int) -> "EncodedImages":
        """Return the same images, with another white of 16-bit grey."""
        return EncodedImages(self.buffer, self.starts, self.ends, white)

    @property
    def scaling(self) -> str:
        """The level that is white, where it isn't 65535."""
        return "" if self.white == WHITE_16_BIT else f"white {self.white}"

    def image(self, row: int, at_least: int | None = None) -> Image.Image:
        """Open an image as RGB."""
        return open_image(self._bytes(row), at_least, self.white)

    def check(self, row: int) -> ImageCheck:
        """Read an image once."""
        return check_image(self._bytes(row))


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

    def with_white(self, white: int) -> "ArrayImages":
        """Return the same images: the range of their values is known."""
        return self

    @property
    def scaling(self) -> str:
        """The range of values, where it isn't that of bytes."""
        return "" if self.value_range == (0, 255) else f"{self.value_range[0]!r} to {self.value_range[1]!r}"

    def check(self, row: int) -> ImageCheck:
        """Read an image once."""
        pixels = np.ascontiguousarray(self._pixels(row))
        digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype.str} ".encode())
        digest.update(pixels.tobytes())
        try:
            array_image(pixels, self.value_range)
        except ImageError as error:
            return ImageCheck(digest.hexdigest(), str(error))
        return ImageCheck(digest.hexdigest())
