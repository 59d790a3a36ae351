"""Image files and folders that tests of images read."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def coloured(number: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    """An image of one colour of its own, which a lossless file keeps."""
    return Image.new("RGB", size, (number % 256, number // 256, 77))


def noise(number: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """An image of random pixels."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_of_16_bits(colour_type: int, *levels: int) -> bytes:
    """A PNG of 2x2 pixels of 16 bits a channel, which Pillow can't write for colours."""
    return _png(2, 2, 16, colour_type, (b"\0" + struct.pack(f">{len(levels)}H", *levels) * 2) * 2)


def png_bomb() -> bytes:
    """A PNG of a few bytes that claims to be of 40000 x 40000 pixels."""
    return _png(40000, 40000, 8, 2, bytes(1000))


def make_folder(path: Path, counts: dict[str, int], suffix: str = ".png") -> Path:
    """Make a folder with so many images, all different, in each of these folders inside of it."""
    number = 0
    for name, count in counts.items():
        (path / name).mkdir(parents=True)
        for index in range(count):
            coloured(number).save(path / name / f"{index}{suffix}")
            number += 1
    return path
