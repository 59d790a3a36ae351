"""Opening a user's image: whatever its format, as RGB the right way up."""

import hashlib
import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from constants.counting import counted
from data.data_error import DataError

IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".avif",
    ".jp2", ".j2k", ".jpx", ".pbm", ".pgm", ".ppm", ".pnm", ".pfm", ".ico", ".qoi",
))  # fmt: skip
"""Suffixes of files that are opened, in lower case. What a file is, its first bytes say, not its suffix."""
HEIC_SUFFIXES = frozenset((".heic", ".heif", ".hif"))
OTHER_IMAGES = frozenset((
    ".svg", ".psd", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".eps", ".pdf", ".exr",
    ".hdr", ".jxl", ".tga", ".dcm", ".xcf",
))  # fmt: skip
"""Suffixes of images that are not opened: each file is named, so that nobody misses it."""
_FORMATS = (
    "JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "DIB", "AVIF", "JPEG2000", "PPM", "ICO", "QOI",
)  # fmt: skip
"""Formats of Pillow that are tried. Others start programs (EPS), or take any file for theirs (TGA)."""
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
WHITE_16_BIT = 65535
HEIC_ADVICE = (
    "HEIC, which Pillow doesn't read: pip install pillow-heif, or convert it to JPEG (on an iPhone: Settings > "
    "Camera > Formats > Most Compatible)"
)
_HEAD = 64  # bytes that tell what a file is


class ImageError(DataError):
    """An image that can't be opened; the text is the reason, without the file's name."""


def open_image(source: Path | str | bytes, at_least: int | None = None, white: int = WHITE_16_BIT) -> Image.Image:
    """Open an image as RGB: the right way up by its EXIF orientation, over white where it is transparent.

    16-bit grey levels are scaled to 8 bits. Of several frames or pages the first is taken. Colour profiles are not
    applied, as in the pipelines that models were trained with.

    Args:
        source: the file, or the bytes of one.
        at_least: pixels that the shorter side needs; a JPEG that is larger may then be decoded at 1/2, 1/4 or 1/8 of
            its size, which is several times as fast and differs a little from resizing the whole. None decodes all.
        white: level of 16-bit grey that becomes white.

    Returns:
        The image, mode RGB, with no tie to the file.

    Raises:
        ImageError: it can't be opened; the text is the reason.
    """
    with _opened(_content_of(source)) as opened:
        if at_least is not None and opened.format in ("JPEG", "MPO"):
            shorter = min(opened.size)
            scale = max((step for step in (1, 2, 4, 8) if shorter // step >= at_least), default=1)
            opened.draft(None, (opened.width // scale, opened.height // scale))
        opened.load()
        with suppress(Exception):  # broken EXIF says nothing of the pixels, which are there
            ImageOps.exif_transpose(opened, in_place=True)
        return _as_rgb(opened, white)


@dataclass(frozen=True)
class ImageCheck:
    """What came of trying to open an image.

    Attributes:
        digest: hexadecimal SHA-256 of its bytes, or pixels; empty where they can't be read.
        reason: why it can't be opened; empty where it can.
        brightest: highest level of an image of 16-bit grey; 0 of other images.
    """

    digest: str
    reason: str = ""
    brightest: int = 0


def check_image(source: Path | str | bytes) -> ImageCheck:
    """Find out whether an image can be opened, at the least expense that makes it sure.

    All bytes of a JPEG are decoded, to an eighth of its size; of a PNG, the check sums that it has of all its parts are
    enough. Others are opened.

    Args:
        source: the file, or the bytes of one.
    """
    digest, brightest = "", 0
    try:
        content = _content_of(source)
        digest = hashlib.sha256(content).hexdigest()
        if _png_is_whole(content):
            return ImageCheck(digest)
        with _opened(content) as opened:
            if opened.format in ("JPEG", "MPO"):
                opened.draft(None, (1, 1))
            opened.load()
            if opened.mode.startswith("I"):
                brightest = max(int(np.asarray(opened).max()), 0)
            elif opened.mode == "F":
                _as_rgb(opened, WHITE_16_BIT)  # its pixels must be numbers
    except ImageError as error:
        return ImageCheck(digest, str(error))
    return ImageCheck(digest, brightest=brightest)


def _png_is_whole(content: bytes) -> bool:
    """Whether these are all parts of a PNG of 8 bits or less, with their right check sums."""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return False
    try:
        with _opened(content) as opened:
            if opened.mode.startswith("I"):
                return False  # how bright it is must be known
            opened.verify()
    except ImageError:
        return False
    return True


def _content_of(source: Path | str | bytes) -> bytes:
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error
    if not content:
        raise ImageError("an empty file (0 bytes)")
    return content


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """Open bytes with Pillow; whatever error its readers raise in the block becomes an ImageError."""
    _set_up_pillow()
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as opened:
            yield opened
    except ImageError:
        raise
    except Exception as error:  # Pillow's readers raise errors of many kinds for broken files
        raise ImageError(_reason(error, content)) from error


def _as_rgb(image: Image.Image, white: int = WHITE_16_BIT) -> Image.Image:
    """Turn a loaded image of any of Pillow's modes into a new one: transparent over white, 16 bits scaled to 8."""
    mode = image.mode
    if mode == "F":
        return array_image(np.asarray(image))
    if mode.startswith("I"):  # 16 bits in files, and 32 where one level is higher
        levels = np.asarray(image)
        low, high = int(levels.min()), int(levels.max())
        return array_image(levels, (0, white) if low >= 0 and high <= white else (low, max(high, low + 1)))
    if mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, *profiles, outputMode="RGB")  # type: ignore[return-value]  # not in place
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, (255, 255, 255, 255)), clear).convert("RGB")
    return image.convert("RGB")


def array_image(pixels: np.ndarray, value_range: tuple[float, float] | None = None) -> Image.Image:
    """Turn an array into an RGB image.

    Args:
        pixels: (H, W) or (H, W, 1, 3 or 4; the fourth is alpha) numbers or bool.
        value_range: pixel values that become 0 and 255; None takes those of `range_of_values` of this array.

    Returns:
        The image, mode RGB, transparent parts over white.

    Raises:
        ImageError: the shape is another, or a pixel is NaN or infinite.
    """
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if (pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[2] not in (3, 4))) or 0 in pixels.shape:
        raise ImageError(f"an array {pixels.shape}: needed is (H, W) or (H, W, 1, 3 or 4)")
    if pixels.dtype != np.uint8:
        if pixels.dtype.kind not in "biuf":
            raise ImageError(f"pixels of type {pixels.dtype}: needed are numbers")
        values = pixels.astype(np.float64)
        if bad := int((~np.isfinite(values)).sum()):
            raise ImageError(f"{counted(bad, 'pixel')} of it NaN or infinite")
        low, high = value_range or range_of_values(pixels.dtype, float(values.min()), float(values.max()))
        pixels = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return _as_rgb(Image.fromarray(np.ascontiguousarray(pixels)))


def range_of_values(dtype: np.dtype, low: float, high: float) -> tuple[float, float]:
    """Say which pixel values stand for black and white.

    Args:
        dtype: type of the pixels.
        low: smallest value that there is.
        high: largest value that there is.

    Returns:
        (0, 1) for floats up to 1 and bool; (0, 255) for bytes, and for numbers up to 255 but uint16; (0, 65535) for
        other integers up to that; otherwise, as for any value below 0, the range that there is.
    """
    tops = (1.0, 255.0) if dtype.kind == "f" else (1.0,) if dtype.kind == "b" else (255.0, 65535.0)
    if dtype == np.uint16:
        tops = (65535.0,)
    top = next((top for top in tops if high <= top), None)
    if low >= 0 and top is not None:
        return 0.0, top
    return low, high if high > low else low + 1


def looks_like_image(path: Path | str) -> bool:
    """Whether the first bytes of a file are those of an image that is opened; for files whose suffix says nothing."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")) or (
        head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    ) or head[4:12] == b"ftypavif"  # fmt: skip


@cache
def _set_up_pillow() -> None:
    """Let Pillow speak through errors alone: in threads, warnings can't be caught where they arise."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@cache
def _formats() -> tuple[str, ...]:
    if not has_heic():
        return _FORMATS
    import pillow_heif

    pillow_heif.register_heif_opener()
    return (*_FORMATS, "HEIF")


@cache
def has_heic() -> bool:
    """Whether HEIC is read here: whether pillow-heif is installed."""
    return find_spec("pillow_heif") is not None


def _reason(error: Exception, content: bytes) -> str:
    """Say in a few words why an image can't be opened."""
    head = content[:_HEAD]
    if isinstance(error, UnidentifiedImageError):
        return _what_it_is(head)
    if isinstance(error, Image.DecompressionBombError):
        return f"too large to be opened safely ({_first_line(error)})"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    text = _first_line(error)
    if "truncated" in text.lower() or isinstance(error, (EOFError, struct.error)):
        return f"cut short ({text})" if text else "cut short"
    return f"damaged ({text})" if text else f"damaged ({type(error).__name__})"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else ""


def _what_it_is(head: bytes) -> str:
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"RIFF")):
        return "cut short or damaged within its header"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return "cut short or damaged" if has_heic() else HEIC_ADVICE
    if head[:5] == b"%PDF-":
        return "a PDF, no image"
    if head[:4] == b"8BPS":
        return "a Photoshop file, which is not read: save it as PNG"
    if head.lstrip()[:5].lower() in (b"<?xml", b"<svg ", b"<svg>"):
        return "XML or SVG, which is not read: save it as PNG"
    if head.lstrip()[:9].lower() in (b"<!doctype", b"<html>") or head.lstrip()[:5].lower() == b"<html":
        return "a web page, no image: its download has failed"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the image: git lfs pull"
    if head[:2] == b"PK" or head[:2] == b"\x1f\x8b":
        return "an archive, no image: unpack it"
    if not any(head):
        return "nothing but zero bytes"
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8") if error.start > len(head) - 4 else "\0"
    if text.isprintable() or all(sign.isprintable() or sign in "\r\n\t" for sign in text):
        return "text, no image"
    return "no image, or damaged at its beginning"
