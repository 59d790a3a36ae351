"""Datasets of users: an .npz or a folder of images, checked and brought to the form that rankers read."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from constants.counting import counted
from data.benchmark_tasks import LabelledImages
from data.build_zoo_images import shrink
from data.data_error import DataError
from data.image_folders import read_images
from data.zoo_images import IMAGE_SIZE

FEWEST_IMAGES = 2
"""Of a class; the only image of a class says nothing of how its images differ."""
_CHUNK = 1000  # images converted at a time: float copies of a large set would not fit the memory
_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's grey
_NEEDED = (
    "Needed are `images` (n, H, W) or (n, H, W, 1 or 3), uint8 or float from 0 to 1, and `labels` (n,), whole numbers "
    "or text: np.savez('my.npz', images=images, labels=labels)."
)


@dataclass(frozen=True)
class UserDataset:
    """A dataset with where it came from.

    Attributes:
        name: name of the dataset's file or folder, without suffix.
        images: images of the dataset as rankers read them.
        size: (H, W) of the original images in pixels; None where they were of several sizes.
    """

    name: str
    images: LabelledImages
    size: tuple[int, int] | None


def read_dataset(path: Path) -> UserDataset:
    """Read a dataset: an .npz, a folder with a sub-folder of images for each class, or a folder of IDX files.

    Args:
        path: the file or folder.

    Returns:
        The dataset, its images grey and averaged down to 12x12; classes in the order of their names.

    Raises:
        DataError: it is missing, unreadable, or can't be ranked for; the text says what is needed.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise DataError(f"there is no file or folder {path}.")
    if path.suffix.lower() != ".npz":
        raise DataError(f"{path} is neither an .npz file nor a folder of images. {_NEEDED}")
    arrays = _read_arrays(path)
    images = arrays["images"]
    _check_images(images, path)
    labels, names = _whole_numbers(arrays["labels"], len(images), path)
    _check_counts(np.bincount(labels, minlength=len(names)), names, path)
    grey = [_shrink(images[start : start + _CHUNK]) for start in range(0, len(images), _CHUNK)]
    height, width = images.shape[1:3]
    return UserDataset(path.stem, LabelledImages(np.concatenate(grey), labels, names), (height, width))


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):  # numpy would take it for a pickle, and say so
        raise DataError(f"{path} is no .npz file, or is damaged. {_NEEDED}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if missing := [key for key in ("images", "labels") if key not in archive.files]:
                found = ", ".join(archive.files) or "nothing"
                raise DataError(f"{path} lacks {' and '.join(missing)}; it holds {found}. {_NEEDED}")
            return {key: archive[key] for key in ("images", "labels")}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, AttributeError,
            TypeError, MemoryError) as error:  # fmt: skip
        if "Object arrays" in str(error):
            raise DataError(f"{path} holds an array of Python objects, which is never unpickled. {_NEEDED}") from error
        raise DataError(f"cannot read {path}: {error}. {_NEEDED}") from error


def _check_images(images: np.ndarray, path: Path) -> None:
    """Refuse what can't be turned into grey images."""
    shape = images.shape
    if images.ndim not in (3, 4) or (images.ndim == 4 and shape[3] not in (1, 3)):
        first = images.ndim == 4 and shape[1] in (1, 3)
        hint = " Channels come last: images.transpose(0, 2, 3, 1)." if first else ""
        raise DataError(f"{path}: images are {shape}.{hint} {_NEEDED}")
    if 0 in shape:
        raise DataError(f"{path}: images are {shape}: there is none. {_NEEDED}")
    if images.dtype == np.uint8:
        return
    if images.dtype.kind != "f":
        raise DataError(f"{path}: images are {images.dtype}. {_NEEDED}")
    if bad := sum(int((~np.isfinite(images[i : i + _CHUNK])).sum()) for i in range(0, len(images), _CHUNK)):
        raise DataError(f"{path}: {bad} pixels are NaN or infinite. {_NEEDED}")
    if images.min() < 0 or images.max() > 1:
        raise DataError(
            f"{path}: float pixels go from {images.min():.4g} to {images.max():.4g}; they must be from 0 to 1. "
            f"{_NEEDED}"
        )


def _whole_numbers(labels: np.ndarray, count: int, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Number the classes 0, 1, ... in the order of their labels."""
    if labels.dtype.kind not in "iubUS":
        raise DataError(f"{path}: labels are {labels.dtype}. {_NEEDED}")
    if labels.shape != (count,):
        raise DataError(f"{path}: labels are {labels.shape}, but there are {count} images. {_NEEDED}")
    present, numbers = np.unique(labels, return_inverse=True)
    names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in present.tolist()]
    return numbers.astype(np.int64).reshape(-1), tuple(names)


def _check_counts(counts: np.ndarray, names: tuple[str, ...], where: Path) -> None:
    if len(names) < 2:
        raise DataError(f"{where} has {counted(len(names), 'class')}; at least 2 are needed.")
    few = [(name, count) for name, count in zip(names, counts.tolist(), strict=True) if count < FEWEST_IMAGES]
    if few:
        name, count = few[0]
        more = f" (and {len(few) - 1} more classes)" if len(few) > 1 else ""
        raise DataError(
            f"{where}: class {name} has {counted(count, 'image')}{more}; each class needs at least {FEWEST_IMAGES}."
        )


def _shrink(images: np.ndarray) -> np.ndarray:
    """Turn checked images into grey ones of 12x12, uint8."""
    pixels = images if images.dtype == np.uint8 else images.astype(np.float64) * 255
    if pixels.ndim == 4:
        pixels = pixels @ _GREY if pixels.shape[3] == 3 else pixels[..., 0]
    return shrink(np.rint(pixels).astype(np.uint8))


def _read_folder(path: Path) -> UserDataset:
    try:
        images, labels, names = read_images(path, IMAGE_SIZE)
    except OSError as error:
        raise DataError(f"cannot read the images in {path}: {error}.") from error
    counts = np.bincount(labels, minlength=len(names))
    size = None
    if any(path.glob("*-images-idx3-ubyte*")):  # an IDX file has no class for a number that it never uses
        size = (images.shape[1], images.shape[2])
        images = shrink(images)
        present, labels = np.unique(labels, return_inverse=True)
        names, counts = [names[label] for label in present], counts[present]
    _check_counts(counts, tuple(names), path)
    name = path.resolve().name
    return UserDataset(name, LabelledImages(images, labels.astype(np.int64), tuple(names)), size)
