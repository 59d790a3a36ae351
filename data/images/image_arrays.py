"""Images in arrays: .npz files and IDX files."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from constants.counting import counted
from data.data_error import DataError
from data.image_folders import read_idx
from data.images.decoding import range_of_values
from data.images.found_images import PARTS, TEST, TRAIN, FoundImages
from data.images.image_sources import ArrayImages

_NEEDED = (
    "Needed are `images` (n, H, W) or (n, H, W, 1, 3 or 4) and `labels` (n,), whole numbers or text: "
    "np.savez('my.npz', images=images, labels=labels)."
)
_NAMED = "Name what is there: --images and --labels for recommend, images= and labels= for train."
_CHUNK = 1000  # images looked at a time: float copies of a large set would not fit the memory
_IMAGES, _LABELS = ("images", "image", "x", "data"), ("labels", "label", "y", "targets", "target")


def read_npz(path: Path, labels: str | None, images: str | None) -> FoundImages:
    """Read an .npz of images and labels, perhaps in parts (`x_train`, `y_train`, `test_images`, ...).

    Args:
        path: the file.
        labels: name of the array of labels; None finds it.
        images: name of the array of images; None finds it.

    Returns:
        The images; an image with a pixel that is no number is left out.

    Raises:
        DataError: it is missing or damaged, lacks an array, or an array has a shape that can't be meant.
    """
    pairs = _read_arrays(path, labels, images)
    notes: list[str] = []
    arrays, keys, marks, part_of = [], [], [], []
    for part, (image_key, pixels, label_key, marked) in pairs.items():
        pixels = _channels_last(pixels, f"{path}: {image_key}", notes)
        marked = marked[:, 0] if marked.ndim == 2 and marked.shape[1] == 1 else marked
        if marked.shape != (len(pixels),):
            raise DataError(
                f"{path}: {label_key} are {marked.shape}, but there are {counted(len(pixels), 'image')}. {_NEEDED}"
            )
        arrays.append(pixels)
        marks.append(marked)
        part_of += [part] * len(pixels)
        keys += [f"{part} row {row}" if part else f"row {row}" for row in range(len(pixels))]
    names, numbers = _whole_numbers(np.concatenate(marks), path)
    value_range, told = _range_of(arrays)
    notes += told
    return FoundImages(
        keys, [names[number] for number in numbers], names, ArrayImages(arrays, value_range),
        part_of if "" not in pairs else None, [], notes,
    )  # fmt: skip


def _read_arrays(
    path: Path, labels: str | None, images: str | None
) -> dict[str, tuple[str, np.ndarray, str, np.ndarray]]:
    """Return the name and the array of images, and those of labels, of each part; the only part is called ""."""
    if not zipfile.is_zipfile(path):  # numpy would take it for a pickle, and say so
        raise DataError(f"{path} is no .npz file, or is damaged. {_NEEDED}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            found: dict[str, dict[str, str]] = {}
            for key in archive.files:
                part, base = _part_and_base(key)
                if key == images or (images is None and base in _IMAGES):
                    found.setdefault("" if key == images else part, {}).setdefault("images", key)
                if key == labels or (labels is None and base in _LABELS):
                    found.setdefault("" if key == labels else part, {}).setdefault("labels", key)
            whole = {part: keys for part, keys in found.items() if len(keys) == 2}
            if not whole or (images is not None and "" not in whole) or (labels is not None and "" not in whole):
                lacks = [
                    wanted for wanted in ("images", "labels") if not any(wanted in keys for keys in found.values())
                ]
                names = ", ".join(archive.files) or "nothing"
                lacking = " and ".join(images or "images" if name == "images" else labels or "labels" for name in lacks)
                raise DataError(
                    f"{path} lacks {lacking or 'images and labels of one part'}; it holds {names}. {_NAMED} {_NEEDED}"
                )
            if "" in whole:
                whole = {"": whole[""]}
            return {
                part: (keys["images"], archive[keys["images"]], keys["labels"], archive[keys["labels"]])
                for part, keys in whole.items()
            }
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, AttributeError,
            TypeError, MemoryError) as error:  # fmt: skip
        if "Object arrays" in str(error):
            raise DataError(f"{path} holds an array of Python objects, which is never unpickled. {_NEEDED}") from error
        raise DataError(f"cannot read {path}: {error or 'not enough memory'}. {_NEEDED}") from error


def _part_and_base(key: str) -> tuple[str, str]:
    """Split `x_train` and `train_images` into the part and what is of it."""
    words = key.lower().replace("/", "_").replace("-", "_").split("_")
    parts = [PARTS[word] for word in words if word in PARTS]
    return (parts[0] if parts else ""), "_".join(word for word in words if word not in PARTS)


def _channels_last(pixels: np.ndarray, what: str, notes: list[str]) -> np.ndarray:
    """Return images with the channels at the end, or say what is wrong with them."""
    shape = pixels.shape
    if pixels.dtype.kind not in "biuf":
        raise DataError(f"{what} are {pixels.dtype}. {_NEEDED}")
    if pixels.ndim not in (3, 4) or 0 in shape[1:]:
        raise DataError(f"{what} are {shape}. {_NEEDED}")
    if pixels.ndim == 3 or shape[3] in (1, 3, 4):
        return pixels
    if shape[1] in (1, 3, 4):
        notes.append(f"{what} are {shape}: the channels are taken to come first")
        return pixels.transpose(0, 2, 3, 1)
    raise DataError(f"{what} are {shape}: no dimension is of 1, 3 or 4 channels. {_NEEDED}")


def _whole_numbers(labels: np.ndarray, path: Path) -> tuple[list[str], np.ndarray]:
    """Number the classes 0, 1, ... in the order of their labels."""
    if labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels == np.rint(labels)).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iubUS":
        raise DataError(f"{path}: labels are {labels.dtype}. {_NEEDED}")
    present, numbers = np.unique(labels, return_inverse=True)
    names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in present.tolist()]
    return names, numbers.reshape(-1)


def _range_of(arrays: list[np.ndarray]) -> tuple[tuple[float, float], list[str]]:
    """Find the pixel values that stand for black and white in all of the arrays."""
    if all(array.dtype == np.uint8 for array in arrays):
        return (0.0, 255.0), []
    lows, highs = [], []
    for array in arrays:
        for start in range(0, len(array), _CHUNK):
            finite = array[start : start + _CHUNK]
            finite = finite[np.isfinite(finite)]
            if len(finite):
                lows.append(float(finite.min()))
                highs.append(float(finite.max()))
    if not lows:
        return (0.0, 1.0), []
    dtype = np.result_type(*arrays)
    low, high = range_of_values(dtype, min(lows), max(highs))
    return (low, high), [
        f"pixels are {dtype} from {min(lows):.4g} to {max(highs):.4g}: {low:g} is black, {high:g} white"
    ]


def read_idx_pairs(folder: Path) -> FoundImages | None:
    """Read the pairs `<part>-images-idx3-ubyte[.gz]` and `<part>-labels-idx1-ubyte[.gz]` of a folder.

    Returns:
        The images, with parts where there are train and t10k; None where the folder has no such file.

    Raises:
        DataError: a file of a pair is missing, damaged, or doesn't match the other.
    """
    files = sorted(folder.glob("*-images[-.]idx3-ubyte*"))
    if not files:
        return None
    arrays, keys, marks, part_of = [], [], [], []
    for path in files:
        name = path.name.partition("-images")[0]
        pixels = read_idx(path)
        marked = read_idx(path.with_name(path.name.replace("-images", "-labels").replace("idx3", "idx1")))
        if pixels.ndim != 3 or marked.ndim != 1 or len(pixels) != len(marked):
            raise DataError(
                f"{path} holds images {pixels.shape}, its label file labels {marked.shape}; needed: (N, H, W) and (N,) "
                "of one N."
            )
        arrays.append(pixels)
        marks.append(marked.astype(np.int64))
        keys += [f"{name} row {row}" for row in range(len(pixels))]
        part_of += [TEST if name == "t10k" else PARTS.get(name, "")] * len(pixels)
    present, numbers = np.unique(np.concatenate(marks), return_inverse=True)
    names = [str(label) for label in present.tolist()]
    parts = part_of if TRAIN in part_of and len(set(part_of)) > 1 and "" not in part_of else None
    return FoundImages(keys, [names[number] for number in numbers], names, ArrayImages(arrays, (0.0, 255.0)), parts)
