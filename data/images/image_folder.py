"""Folders with a sub-folder of images for each class."""

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from constants.counting import counted
from data.data_error import DataError
from data.images.decoding import (
    HEIC_ADVICE,
    HEIC_SUFFIXES,
    IMAGE_SUFFIXES,
    OTHER_IMAGES,
    has_heic,
    looks_like_image,
)
from data.images.found_images import LAYOUTS, PARTS, TRAIN, FoundImages, LeftOut
from data.images.image_sources import FileImages

_HIDDEN = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")


@dataclass
class FolderFiles:
    """All that lies in a folder, by the way to it.

    Attributes:
        images: for each image file its path inside the folder, as names of folders and at last of the file.
        folders: all folders inside it, as names.
        left_out: image files that can't be taken, such as links to nothing.
        others: how many other files there are, by suffix.
    """

    images: list[tuple[str, ...]] = field(default_factory=list)
    folders: list[tuple[str, ...]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def shown(names: tuple[str, ...]) -> str:
    """Write a path as text that can be printed, whatever bytes are in the names."""
    return os.fsencode("/".join(names)).decode("utf-8", "replace")


def list_folder(folder: Path) -> FolderFiles:
    """List the images in a folder and all folders below it, in the order of their names; hidden ones are passed over.

    Links are followed; a folder is not entered again from inside itself.

    Raises:
        DataError: the folder itself can't be read.
    """
    found = FolderFiles()
    try:
        _list(folder, (), found, frozenset())
    except OSError as error:
        raise DataError(f"the folder {folder} can't be read: {error.strerror or error}.") from error
    return found


def _list(folder: Path, names: tuple[str, ...], found: FolderFiles, above: frozenset[tuple[int, int]]) -> None:
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.name.startswith(".") or entry.name in _HIDDEN:
            continue
        way = (*names, entry.name)
        suffix = os.path.splitext(entry.name)[1].lower()
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            if suffix in IMAGE_SUFFIXES or not suffix:
                gone = entry.is_symlink() and isinstance(error, FileNotFoundError)
                reason = "a link to what is not there" if gone else error.strerror or str(error)
                found.left_out.append(LeftOut(shown(way), reason))
            continue
        if stat.S_ISDIR(mode):
            found.folders.append(way)
            try:
                _list(folder / entry.name, way, found, above | {here})
            except OSError as error:
                found.left_out.append(LeftOut(f"{shown(way)}/", f"the folder can't be read: {error.strerror or error}"))
        elif not stat.S_ISREG(mode):
            continue  # a pipe would wait for ever
        elif suffix in IMAGE_SUFFIXES or (suffix in HEIC_SUFFIXES and has_heic()):
            found.images.append(way)
        elif suffix in HEIC_SUFFIXES:
            found.left_out.append(LeftOut(shown(way), HEIC_ADVICE))
        elif suffix in OTHER_IMAGES:
            found.left_out.append(LeftOut(shown(way), f"files with the suffix {suffix} are not read: save it as PNG"))
        elif not suffix and looks_like_image(entry.path):
            found.images.append(way)
        else:
            found.others[suffix] += 1


def read_class_folders(folder: Path) -> FoundImages | None:
    """Find the images of a folder that has a sub-folder for each class, perhaps inside of train/, val/ and test/.

    Args:
        folder: the folder.

    Returns:
        The images; None where there is no class folder with an image.

    Raises:
        DataError: the folder can't be read.
    """
    found = list_folder(folder)
    notes: list[str] = []
    depth = _wrapping(found)
    if depth:
        notes.append(f"the classes are the folders inside {shown(found.images[0][:depth])}/")
    tops = sorted({way[depth] for way in found.folders if len(way) == depth + 1})
    parts = _parts(tops, found, depth)
    if parts:
        depth += 1
    keys, classes, paths, part_of = [], [], [], []
    loose: list[tuple[str, ...]] = []
    for way in found.images:
        if len(way) < depth + 2 or (parts and way[depth - 1] not in parts):
            loose.append(way)
            continue
        keys.append(shown(way))
        classes.append(way[depth])
        paths.append(os.path.join(folder, *way))
        part_of.append(parts.get(way[depth - 1], TRAIN))
    if not keys or (not parts and {name.lower() for name in classes} <= PARTS.keys()):
        return None  # train/ and test/ without classes in them are no classes
    for way in loose:
        if parts and len(way) >= depth + 1 and way[depth - 1] not in parts:
            found.left_out.append(LeftOut(shown(way), f"neither in {' nor '.join(f'{part}/' for part in parts)}"))
        else:
            found.left_out.append(LeftOut(shown(way), "in no class folder"))
    names = {way[depth] for way in found.folders if len(way) == depth + 1 and (not parts or way[depth - 1] in parts)}
    if found.others:
        said = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in found.others.most_common(3))
        notes.append(f"{counted(found.others.total(), 'file')} of other kinds passed over ({said})")
    return FoundImages(
        keys, [shown((name,)) for name in classes], sorted(shown((name,)) for name in names), FileImages(paths),
        part_of if parts else None, found.left_out, notes,
    )  # fmt: skip


def _wrapping(found: FolderFiles) -> int:
    """Count the folders that only hold the one folder with all classes, as archives have them."""
    depth = 0
    while found.images:
        tops = {way[: depth + 1] for way in found.images}
        inner = {way[: depth + 2] for way in found.images if len(way) > depth + 2}
        if len(tops) != 1 or not inner or any(len(way) <= depth + 2 for way in found.images):
            break
        depth += 1
    return depth


def _parts(tops: list[str], found: FolderFiles, depth: int) -> dict[str, str]:
    """Return the folders that are parts of the dataset; empty where classes come first."""
    named = {name: PARTS[name.lower()] for name in tops if name.lower() in PARTS}
    with_classes = {way[depth] for way in found.images if len(way) > depth + 2}
    others = {way[depth] for way in found.images if len(way) > depth + 1} - named.keys()
    are_parts = TRAIN in named.values() and named.keys() & with_classes and (len(named) > 1 or not others)
    return named if are_parts else {}


def refuse_folder(folder: Path, found: FolderFiles) -> DataError:
    """Say why a folder has no images that can be ranked for."""
    if not found.images:
        named = f"; it has {found.left_out[0].key}: {found.left_out[0].reason}" if found.left_out else ""
        return DataError(f"{folder} has no images{named}.\n{LAYOUTS}")
    return DataError(
        f"{folder} has {counted(len(found.images), 'image')}, but no folder for each class: what they show isn't said "
        f"anywhere.\n{LAYOUTS}"
    )
