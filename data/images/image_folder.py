"""Folders with a sub-folder of images for each class."""

import os
import re
import stat
import unicodedata
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

Way = tuple[str, ...]
"""A path inside of a folder: names of folders, and at last of the file."""
_FILLING = frozenset(("set", "data", "images", "image", "img", "imgs", "split", "seg", "folder", "part", "dataset"))
_LISTS = (".xlsx", ".xls", ".ods", ".txt", ".mat", ".xml", ".json", ".csv", ".tsv", ".db", ".yaml")
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

    images: list[Way] = field(default_factory=list)
    folders: list[Way] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def shown(names: Way) -> str:
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


def _list(folder: Path, names: Way, found: FolderFiles, above: frozenset[tuple[int, int]]) -> None:
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


def _class_name(folder: str) -> str:
    """Return the name of a folder's class: macOS writes accents apart from their letters, and others don't."""
    return unicodedata.normalize("NFC", shown((folder,)))


@dataclass(frozen=True)
class _Layout:
    """Where in a path the class of an image stands, and its part.

    Attributes:
        class_at: place of the class among a path's folders.
        class_in_part: the same for each folder that is a part, where classes are inside of parts; otherwise empty.
        part_at: place of the part; None where there are no parts.
        parts: train, val or test for each folder that is a part.
        notes: sentences on what was taken for what.
    """

    class_at: int
    class_in_part: dict[str, int] = field(default_factory=dict)
    part_at: int | None = None
    parts: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def place(self, way: Way) -> int | None:
        """Return the place of the class in a path; None where the path isn't of a part."""
        if self.part_at is None or not self.class_in_part:
            return self.class_at
        return self.class_in_part.get(way[self.part_at]) if len(way) > self.part_at else None

    def part(self, way: Way) -> str | None:
        """Return the part that a path is of; None where there are none."""
        return None if self.part_at is None or len(way) <= self.part_at else self.parts.get(way[self.part_at])


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
    layout = _layout_of(found)
    keys, classes, paths, parts = [], [], [], []
    left_out = list(found.left_out)
    below: set[Way] = set()
    for way in found.images:
        at, part = layout.place(way), layout.part(way)
        if at is None or (layout.part_at is not None and part is None):
            left_out.append(LeftOut(shown(way), f"in none of {', '.join(f'{name}/' for name in layout.parts)}"))
        elif len(way) < at + 2:
            left_out.append(LeftOut(shown(way), "in no class folder"))
        else:
            keys.append(shown(way))
            classes.append(way[at])
            paths.append(os.path.join(folder, *way))
            parts.append(part or "")
            if len(way) > at + 2 and layout.part_at != at + 1:
                below.add(way[: at + 2])
    if not keys or (layout.part_at is None and all(part_named(name) for name in classes)):
        return None  # train/ and test/ without classes in them are no classes
    names = {way[at] for way in found.folders if (at := layout.place(way)) is not None and len(way) == at + 1}
    notes = list(layout.notes)
    if below:
        first = min(below)
        notes.append(
            f"images in folders below a class are of that class: those of {shown(first)}/ are of {shown(first[-2:-1])}"
        )
    if found.others:
        said = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in found.others.most_common(3))
        notes.append(f"{counted(found.others.total(), 'file')} of other kinds passed over ({said})")
    return FoundImages(
        keys, [_class_name(name) for name in classes], sorted({_class_name(name) for name in names | set(classes)}),
        FileImages(paths), parts if layout.part_at is not None else None, left_out, notes, _list_hint(found),
    )  # fmt: skip


def _layout_of(found: FolderFiles) -> _Layout:
    """Find out which folders are parts of the dataset, and which are classes."""
    depth = _wrapping(found.images)
    notes = [f"the classes are the folders inside {shown(found.images[0][:depth])}/"] if depth else []
    inside = [way[depth:] for way in found.images]
    named = {way[0]: part for way in inside if len(way) > 1 and (part := part_named(way[0]))}
    with_classes = {way[0] for way in inside if len(way) > 2}
    others = {way[0] for way in inside if len(way) > 1} - named.keys()
    if named.keys() & with_classes and (len(set(named.values())) > 1 or not others):
        class_at = {name: depth + 1 + wrapped for name, wrapped in _wrapping_of_parts(inside, named).items()}
        if TRAIN in named.values():
            return _Layout(depth + 1, class_at, depth, named, tuple(notes))
        notes.append(f"there is no train/: images of {' and '.join(f'{name}/' for name in named)} are taken together")
        return _Layout(min(class_at.values()), notes=tuple(notes))
    inner = {way[1]: part_named(way[1]) for way in inside if len(way) > 2}
    if all(inner.values()) and TRAIN in inner.values() and len(set(inner.values())) > 1:  # cat/train/1.jpg
        parts = {name: part for name, part in inner.items() if part}
        return _Layout(depth, part_at=depth + 1, parts=parts, notes=tuple(notes))
    return _Layout(depth, notes=tuple(notes))


def _wrapping(ways: list[Way]) -> int:
    """Count the folders that only hold the one folder with all classes, as archives have them."""
    depth = 0
    while ways and len({way[: depth + 1] for way in ways}) == 1 and all(len(way) > depth + 2 for way in ways):
        depth += 1
    return depth


def _wrapping_of_parts(ways: list[Way], parts: dict[str, str]) -> dict[str, int]:
    """Return for each part 1 where it has one folder with all classes in it (`test/images/cat`), otherwise 0."""
    children = {part: {way[1] for way in ways if way[0] == part and len(way) > 2} for part in parts}
    wrapped = {}
    for part, names in children.items():
        elsewhere = set().union(*(children[other] for other in parts if other != part and children[other] != names))
        deep = all(len(way) > 3 for way in ways if way[0] == part and len(way) > 2)
        wrapped[part] = int(len(names) == 1 and deep and not names & elsewhere)
    return wrapped


def part_named(name: str) -> str | None:
    """Return the part of a dataset that a name stands for, such as `test` for `seg_test`; None where for none."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word and word not in _FILLING]
    if len(words) != 1:
        return None
    return PARTS.get(words[0]) or next((PARTS.get(words[0].removesuffix(end)) for end in ("set", "data")
                                        if words[0].endswith(end)), None)  # fmt: skip


def _list_hint(found: FolderFiles) -> str:
    """Say what to do with a file that may say what the images show; empty where there is none."""
    lists = [suffix for suffix in found.others if suffix in _LISTS]
    return f" If a {lists[0]} file says so, save it as CSV: a column of files, one of labels." if lists else ""


def refuse_folder(folder: Path, found: FolderFiles) -> DataError:
    """Say why a folder has no images that can be used."""
    if not found.images:
        named = f"; it has {found.left_out[0].key}: {found.left_out[0].reason}" if found.left_out else ""
        return DataError(f"{folder} has no images{named}.\n{LAYOUTS}")
    return DataError(
        f"{folder} has {counted(len(found.images), 'image')}, but no folder for each class: what they show isn't said "
        f"anywhere.{_list_hint(found)}\n{LAYOUTS}"
    )
