"""Finding out in which form a user's images are, and reading it."""

from pathlib import Path

from constants.nearest import nearest
from data.data_error import DataError
from data.images.decoding import IMAGE_SUFFIXES
from data.images.found_images import LAYOUTS, PARTS, TRAIN, FoundImages, LeftOut
from data.images.image_arrays import read_idx_pairs, read_npz
from data.images.image_folder import list_folder, part_named, read_class_folders, refuse_folder
from data.images.image_sources import FileImages
from data.images.image_table import (
    TABLE_SUFFIXES,
    find_tables,
    has_bytes,
    is_image_table,
    named_classes,
    read_parquet,
    read_table,
)

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
_SHEETS = (".xlsx", ".xls", ".ods")
_NOT_READ = {
    ".pkl": "a pickle, which is never read: it may run any code", ".pickle": "a pickle, which is never read: it may "
    "run any code", ".pt": "a file of torch", ".pth": "a file of torch", ".npy": "one array, without labels",
    ".h5": "HDF5", ".hdf5": "HDF5", ".mat": "a file of MATLAB", ".arrow": "an Arrow file", ".tfrecord": "a TFRecord",
}  # fmt: skip


def find_images(path: Path, labels: str | None = None, images: str | None = None) -> FoundImages:
    """Find the images of a dataset, in whichever form it is.

    Args:
        path: the file or folder.
        labels: name of the column or array of labels; None finds it.
        images: name of the column or array of images; None finds it.

    Returns:
        What was found; no image was opened.

    Raises:
        DataError: it is missing, or in no form that is read; the text says which are.
    """
    if path.is_dir():
        return _in_folder(path, labels, images)
    if not path.exists():
        raise DataError(f"there is no file or folder {path}.{_near(path)}")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return read_npz(path, labels, images)
    if suffix == ".parquet" and has_bytes(path):
        return read_parquet([path], path, labels, images)
    if suffix in TABLE_SUFFIXES or suffix == ".parquet":
        return read_table(path, labels, images)
    if suffix in _ARCHIVES:
        raise DataError(f"{path} is an archive, which is not read: unpack it, and name the folder.\n{LAYOUTS}")
    if suffix in _NOT_READ:
        raise DataError(
            f"{path} is {_NOT_READ[suffix]}. Save arrays by np.savez('my.npz', images=images, labels=labels).\n"
            f"{LAYOUTS}"
        )
    if suffix in _SHEETS:
        raise DataError(f"{path} is a spreadsheet, which is not read: save it as CSV, beside the images.\n{LAYOUTS}")
    if suffix in IMAGE_SUFFIXES:
        raise DataError(f"{path} is one image; a dataset is needed.\n{LAYOUTS}")
    raise DataError(f"files with the suffix {suffix or '(none)'} are not read: {path}.\n{LAYOUTS}")


def _near(path: Path) -> str:
    """Say what is there under a similar name, a sentence after a blank; empty where nothing is."""
    try:
        near = nearest(path.name, (each.name for each in path.parent.iterdir() if not each.name.startswith(".")))
    except OSError:
        return ""
    return f" Did you mean {path.parent / near}?" if near else ""


def _in_folder(folder: Path, labels: str | None, images: str | None) -> FoundImages:
    named = labels is not None or images is not None
    if not named and (found := read_idx_pairs(folder)):
        return found
    classes = None if named else read_class_folders(folder)
    with_images = set(classes.classes) if classes else set()
    if classes and len(with_images) > 1:
        return classes
    tables, parquet = find_tables(folder)
    if parquet and all(has_bytes(file) for file in parquet):
        return read_parquet(parquet, folder, labels, images)
    tables = [table for table in tables if is_image_table(table)]
    parts = {table: part for table in tables if (part := _part_of(table, folder))}
    if len(parts) > 1 and len(set(parts.values())) == len(parts) and TRAIN in parts.values():
        return _tables_of_parts(folder, parts, labels, images)
    if len(tables) > 1 and (best := [table for table in tables if _is_usual(table, folder)]):
        tables = best
    if len(tables) == 1:
        found = read_table(tables[0], labels, images)
        found.notes.insert(0, f"the table {tables[0].relative_to(folder)} in {folder} is read")
        return found
    if len(tables) > 1:
        raise DataError(
            f"{folder} has several tables of images: "
            f"{', '.join(str(table.relative_to(folder)) for table in tables[:5])}. Name the one that is meant in place "
            "of the folder."
        )
    if classes:
        return classes
    if named:
        raise DataError(
            f"{folder} has no table that columns could be named of; tables end in {', '.join(TABLE_SUFFIXES)}."
        )
    raise refuse_folder(folder, list_folder(folder))


def _part_of(table: Path, folder: Path) -> str | None:
    """Return the part that a table is of, by its name or by the folder that it lies in; None where it is of none."""
    inside = table.relative_to(folder).parts
    return part_named(table.stem) or (part_named(inside[0]) if len(inside) > 1 else None)


def _tables_of_parts(folder: Path, parts: dict[Path, str], labels: str | None, images: str | None) -> FoundImages:
    """Read a table for each part; one without labels, such as a test that others score, is passed over."""
    keys, classes, paths, part_of = [], [], [], []
    left_out, notes = [], []
    for table, part in sorted(parts.items(), key=lambda item: (item[1] != TRAIN, item[0])):
        name = table.relative_to(folder)
        try:
            found = read_table(table, labels, images)
        except DataError as error:
            if part == TRAIN:
                raise
            notes.append(f"the table {name} is passed over: {str(error).splitlines()[0].removeprefix(f'{table}: ')}")
            continue
        assert isinstance(found.source, FileImages)
        above = "" if name.parent == Path() else f"{name.parent.as_posix()}/"
        keys += [f"{above}{key}" for key in found.keys]
        left_out += [LeftOut(f"{above}{each.key}", each.reason) for each in found.left_out]
        classes += found.classes
        paths += found.source.paths
        part_of += [part] * len(found.keys)
        notes += [f"the table {name} in {folder} is read as {part}", *found.notes]
    classes, class_names = named_classes(folder, "the label", classes)
    several = len(set(part_of)) > 1
    return FoundImages(keys, classes, class_names, FileImages(paths), part_of if several else None, left_out, notes)


def _is_usual(table: Path, folder: Path) -> bool:
    """Whether a table has the name and the place that the one with the labels mostly has."""
    return table.parent == folder and table.stem.lower() in ("labels", "metadata", "train", "train_labels", *PARTS)
