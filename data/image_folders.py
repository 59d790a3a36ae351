"""Readers of a user's own images: a folder of IDX files, or a folder with one sub-folder a class."""

import gzip
import struct
from pathlib import Path

import numpy as np

from data.data_error import DataError

_IDX_UINT8 = 0x08
_IDX_REMEDY = "Give an IDX file of unsigned bytes as MNIST's, plain or .gz; fetch it again if it was cut short."


def read_idx(path: Path) -> np.ndarray:
    """Read one IDX file of unsigned bytes, the format of MNIST and Fashion-MNIST.

    Args:
        path: the file, plain or gzip-compressed (`.gz`).

    Returns:
        uint8 array of the shape that the file declares.

    Raises:
        DataError: the file is missing, cut short or no IDX file of bytes.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:  # gzip.BadGzipFile is an OSError
        raise DataError(f"cannot read {path}: {error}. {_IDX_REMEDY}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _IDX_UINT8:
        raise DataError(f"{path} is no IDX file of unsigned bytes: it begins with {content[:4].hex()}. {_IDX_REMEDY}")
    dimensions = content[3]
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{path} ends within its header ({len(content)} of {header} bytes). {_IDX_REMEDY}")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    needed = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != needed:
        raise DataError(f"{path} has {len(content)} bytes, its header {shape} asks for {needed}. {_IDX_REMEDY}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_idx_folder(folder: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read all pairs `<part>-images-idx3-ubyte[.gz]` and `<part>-labels-idx1-ubyte[.gz]` of a folder.

    Args:
        folder: holds one pair or several (`train`, `t10k`).

    Returns:
        images (N, H, W) uint8, labels (N,) int64, class names (the label numbers as text).

    Raises:
        DataError: no pair, a file of a pair is missing, or images and labels don't match.
    """
    parts = sorted(folder.glob("*-images-idx3-ubyte*"))
    if not parts:
        raise DataError(f"{folder} has no file *-images-idx3-ubyte or *-images-idx3-ubyte.gz. {_IDX_REMEDY}")
    images, labels = [], []
    for path in parts:
        images.append(read_idx(path))
        labels.append(read_idx(path.with_name(path.name.replace("-images-idx3", "-labels-idx1"))))
        if images[-1].ndim != 3 or labels[-1].ndim != 1 or len(images[-1]) != len(labels[-1]):
            raise DataError(
                f"{path} holds images {images[-1].shape}, its label file labels {labels[-1].shape}; "
                "needed: (N, H, W) and (N,) of one N."
            )
    if len({part.shape[1:] for part in images}) > 1:
        raise DataError(f"{folder} holds images of several sizes: {sorted({part.shape[1:] for part in images})}.")
    stacked = np.concatenate(labels).astype(np.int64)
    return np.concatenate(images), stacked, [str(label) for label in range(int(stacked.max(initial=-1)) + 1)]


def read_image_folder(folder: Path, size: int | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read `folder/<class name>/<any name>.png` and the like as grey images of one size.

    Args:
        folder: folder with one sub-folder for each class.
        size: side in pixels that every image is resized to; None keeps the first image's and refuses others.

    Returns:
        images (N, H, W) uint8, labels (N,) int64, class names in alphabetic order.

    Raises:
        DataError: no class folder, no image, an unreadable one, or sizes that differ where `size` is None.
    """
    from PIL import Image

    from data.images.decoding import IMAGE_SUFFIXES, ImageError, open_image

    classes = sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith("."))
    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, class_folder in enumerate(classes):
        for path in sorted(class_folder.iterdir()):
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            try:
                grey = open_image(path).convert("L")
            except ImageError as error:
                raise DataError(f"cannot read image {path}: {error}. Repair or remove it.") from error
            image = np.asarray(grey.resize((size, size), Image.Resampling.BOX) if size else grey)
            if images and image.shape != images[0].shape:
                raise DataError(f"{path} is {image.shape}, images before it {images[0].shape}; give a size to resize.")
            images.append(image)
            labels.append(label)
    if not images:
        raise DataError(
            f"{folder} has no images; needed: one sub-folder a class with files of images (.jpg, .png, ...)."
        )
    return np.stack(images), np.asarray(labels, np.int64), [path.name for path in classes]


def read_images(folder: Path, size: int | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read a folder of IDX files, or one with a sub-folder for each class, whichever it is.

    Args:
        folder: folder of images.
        size: side in pixels that images of sub-folders are resized to; None keeps the first image's and refuses others.
            Not used for IDX files, whose images have one size.

    Returns:
        images (N, H, W) uint8, labels (N,) int64, class names.

    Raises:
        DataError: the folder is missing, or neither of the two.
    """
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder}; give one with IDX files or one with a sub-folder for each class."
        )
    if any(folder.glob("*-images-idx3-ubyte*")):
        return read_idx_folder(folder)
    return read_image_folder(folder, size)
