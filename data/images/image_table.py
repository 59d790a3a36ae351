"""Tables of images: a column that names files or holds their bytes, and one of labels."""

import atexit
import json
import math
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from constants.counting import counted
from constants.nearest import nearest
from data.chat_messages import RowError
from data.data_error import DataError
from data.images.decoding import IMAGE_SUFFIXES
from data.images.found_images import NAME_IMAGES, NAME_LABELS, PARTS, FoundImages, LeftOut
from data.images.image_folder import list_folder, shown
from data.images.image_sources import EncodedImages, FileImages
from data.text_files import find_files

if TYPE_CHECKING:
    import pyarrow

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_IMAGE_COLUMNS = (
    "image", "images", "img", "file_name", "filename", "file", "filepath", "file_path", "path", "image_path",
    "image_file", "image_name", "image_id", "imageid", "img_path", "img_id", "id", "name", "photo", "picture",
)  # fmt: skip
_LABEL_COLUMNS = (
    "label", "labels", "class", "class_name", "classname", "label_name", "category", "category_name", "target",
    "targets", "y", "species", "breed", "diagnosis", "dx", "fine_label", "class_id", "label_id", "coarse_label",
)  # fmt: skip
_PART_COLUMNS = ("split", "part", "set", "subset", "partition", "fold", "dataset", "usage", "phase")
_ONE_HOT = "\0one hot"  # a column that is made of several
_LOOKED_AT = 200  # rows whose values tell what a column is
_IN_MEMORY = 2 << 30  # bytes of images that are kept in memory; more go into a temporary file


@dataclass
class _Row:
    """A row of a table: where it is, and its cells as text; None where a cell is empty."""

    place: str
    cells: Mapping[str, str | None]


def read_table(path: Path, labels: str | None, images: str | None) -> FoundImages:
    """Find the images that a CSV, TSV or JSON lines names, which lie beside it or in folders below.

    Args:
        path: the file; its first line names the columns, or is already a row.
        labels: name of the column of labels; None finds it.
        images: name of the column of files; None finds it.

    Returns:
        The images; rows without a label or a file are left out.

    Raises:
        DataError: the file can't be read, or which columns are meant can't be found out.
    """
    left_out: list[LeftOut] = []
    rows: list[_Row] = []
    columns: dict[str, None] = {}
    for read in find_files(path).rows():
        if isinstance(read.value, RowError):
            advice = "; save the table as UTF-8" if "UTF-8" in read.value.reason else ""
            left_out.append(LeftOut(read.place, f"{read.value.reason} ({read.value.detail}){advice}"))
            continue
        columns |= dict.fromkeys(read.value)
        rows.append(_Row(read.place, {name: _cell(value) for name, value in read.value.items()}))
    if not rows and not columns:
        raise DataError(f"{path} has no rows; needed are a line that names the columns, and a row for each image.")
    names = list(columns)
    if any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names):  # the first line is a row
        numbered = [f"column {number}" for number in range(1, len(names) + 1)]
        rows = [_Row(row.place, dict(zip(numbered, row.cells.values(), strict=False))) for row in rows]
        rows.insert(0, _Row("line 1", dict(zip(numbered, names, strict=True))))
        names = numbered
    files = _Files(path)
    image_column = _image_column(path, names, rows, images, files)
    part_column = _part_column(names, rows, (image_column, labels))
    told = ""
    if labels is None and (columns_of_1 := _one_hot(names, rows, (image_column, part_column))):
        label_column, told = _ONE_HOT, f"the columns of 0 and 1 ({', '.join(columns_of_1)})"
        for row in rows:
            hot = [name for name in columns_of_1 if _number(row.cells.get(name)) == 1]
            row.cells = {**row.cells, _ONE_HOT: hot[0]}
    else:
        label_column = _label_column(path, names, rows, labels, (image_column, part_column))
    keys, classes, paths, parts = [], [], [], []
    seen: set[tuple[str, str]] = set()
    repeated, missing = 0, 0
    for row in rows:
        named, label = row.cells.get(image_column), row.cells.get(label_column)
        if not named:
            left_out.append(LeftOut(row.place, f"no {image_column}"))
        elif not label:
            left_out.append(LeftOut(named, "no label"))
        else:
            file, why = files.find(named, label)
            if file is None:
                missing += 1
                left_out.append(LeftOut(named, why))
            elif (file, label) in seen:
                repeated += 1
            else:
                seen.add((file, label))
                keys.append(files.key(file))
                classes.append(label)
                paths.append(file)
                parts.append(PARTS[(row.cells[part_column] or "").lower()] if part_column else "")
    if missing and not keys:
        first = next(left.key for left in left_out)
        raise DataError(
            f"{path}: column {image_column} names {counted(missing, 'file')}, such as {first}, but none is in "
            f"{path.parent} or below it. Put the table beside the images. If another column names them: --images NAME "
            "for recommend, images=NAME for train."
        )
    notes = [f"images are those of the column {image_column}, classes of {told or label_column}"]
    if repeated:
        notes.append(f"{counted(repeated, 'row')} that {'repeats' if repeated == 1 else 'repeat'} another passed over")
    classes, class_names = named_classes(path, label_column, classes)
    return FoundImages(keys, classes, class_names, FileImages(paths), parts if part_column else None, left_out, notes)


def _cell(value: object) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = unicodedata.normalize("NFC", str(value)).strip()
    return text or None


class _Files:
    """The files that a table may name.

    Args:
        table: the table; it lies beside the files, or in a folder above them.
    """

    def __init__(self, table: Path) -> None:
        self.folder, self.table = table.parent, table.stem
        self._index: dict[str, list[tuple[str, ...]]] | None = None

    def key(self, file: str) -> str:
        """Return a file's path inside the folder, as text that can be printed."""
        inside = os.path.relpath(file, self.folder)
        return shown((file if inside.startswith("..") else inside,))

    def find(self, named: str, label: str | None) -> tuple[str | None, str]:
        """Return the file that is named, or None and why there is none.

        Args:
            named: a path, absolute or from the table's folder, a name of a file in any folder, or one without suffix.
            label: which of several files of that name is meant is told by the folder that is called so, or as the
                table is: train.csv is of train/.
        """
        if named.startswith(("http://", "https://", "s3://", "gs://")):
            return None, "an address: download it, and name the file"
        text = named.replace("\\", "/").removeprefix("file://")
        direct = os.path.join(self.folder, text)
        if os.path.splitext(text)[1] and os.path.isfile(direct):
            return os.path.normpath(direct), ""
        wanted = tuple(part for part in text.split("/") if part not in ("", "."))
        if not wanted:
            return None, "there is no such file"
        found = [way for way in self._by_name().get(wanted[-1], []) if _ends_with(way, wanted)]
        for folder in (label, self.table):
            if len(found) > 1:
                found = [way for way in found if folder in way[:-1]] or found
        if len(found) == 1:
            return os.path.join(self.folder, *found[0]), ""
        return None, f"{len(found)} files have that name" if found else "there is no such file"

    def _by_name(self) -> dict[str, list[tuple[str, ...]]]:
        if self._index is None:
            self._index = {}
            for way in list_folder(self.folder).images:
                name = unicodedata.normalize("NFC", way[-1])
                for known in dict.fromkeys((name, os.path.splitext(name)[0])):
                    self._index.setdefault(known, []).append(way)
        return self._index


def _ends_with(way: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether the folders that are named stand before the file, as far as both are known; `..` doesn't count."""
    folders = [part for part in wanted[:-1] if part != ".."]
    before = [unicodedata.normalize("NFC", part) for part in way[:-1]]
    return all(mine == theirs for mine, theirs in zip(reversed(before), reversed(folders), strict=False))


def _require_column(path: Path, given: str, names: list[str], what: str) -> str:
    if given in names:
        return given
    near = nearest(given, names)
    hint = f" Did you mean {near}?" if near else ""
    raise DataError(f"{path} has no column {given} for the {what}; it has {', '.join(names)}.{hint}")


def _image_column(path: Path, names: list[str], rows: list[_Row], given: str | None, files: _Files) -> str:
    if given is not None:
        return _require_column(path, given, names, "images")
    lower = {name: name.lower() for name in names}
    ordered = sorted(names, key=lambda name: _place(lower[name], _IMAGE_COLUMNS))
    best, share = "", 0.0
    for name in ordered:
        values = [value for row in rows[:_LOOKED_AT] if (value := row.cells.get(name))]
        there = sum(files.find(value, None)[1] != "there is no such file" for value in values)
        if values and there / len(values) > share:
            best, share = name, there / len(values)
    if best:
        return best
    for name in ordered:
        values = [value for row in rows[:_LOOKED_AT] if (value := row.cells.get(name))]
        if lower[name] in _IMAGE_COLUMNS[:-4] or any(Path(value).suffix.lower() in IMAGE_SUFFIXES for value in values):
            return name
    raise DataError(
        f"{path}: which column names the images can't be found out; it has {', '.join(names)}. {NAME_IMAGES}"
    )


def _place(name: str, known: tuple[str, ...]) -> int:
    return known.index(name) if name in known else len(known)


def _part_column(names: list[str], rows: list[_Row], taken: tuple[str | None, ...]) -> str | None:
    for name in names:
        if name.lower() in _PART_COLUMNS and name not in taken:
            values = {(row.cells.get(name) or "").lower() for row in rows}
            if values and values <= PARTS.keys():
                return name
    return None


def _one_hot(names: list[str], rows: list[_Row], taken: tuple[str | None, ...]) -> list[str]:
    """Return the columns one of which is 1 in each row and the others 0, each a class; empty where there are none."""
    others = [
        name for name in names
        if name not in taken and rows and all(_number(row.cells.get(name)) in (0, 1) for row in rows)
    ]  # fmt: skip
    once = all(sum(_number(row.cells[name]) for name in others) == 1 for row in rows)
    return others if len(others) > 1 and once else []


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan


def _label_column(
    path: Path, names: list[str], rows: list[_Row], given: str | None, taken: tuple[str | None, ...]
) -> str:
    if given is not None:
        return _require_column(path, given, names, "labels")
    others = [name for name in names if name not in taken and not re.fullmatch(r"|index|unnamed: \d+", name.lower())]
    known = sorted((name for name in others if name.lower() in _LABEL_COLUMNS),
                   key=lambda name: _LABEL_COLUMNS.index(name.lower()))  # fmt: skip
    if known:
        return known[0]
    if len(others) == 1:
        return others[0]
    if not others:
        raise DataError(f"{path} has no column of labels; it has {', '.join(names)}.")
    said = ", ".join(f"{name} ({counted(len({row.cells.get(name) for row in rows}), 'value')})" for name in others)
    raise DataError(f"{path}: which column is the label can't be found out: {said}. {NAME_LABELS}")


def named_classes(path: Path, column: str, classes: list[str]) -> tuple[list[str], list[str]]:
    """Name and order the classes of a table: numbers by their size, names by the alphabet.

    Args:
        path: the table, for errors.
        column: name of the column of labels, for errors.
        classes: label of each image, as text.

    Returns:
        Each image's class, and all classes in order; 1.0 and 1 are one.

    Raises:
        DataError: they are numbers with fractions, nearly as many as images: no classes.
    """
    different = sorted(set(classes))
    try:
        numbers = {name: float(name) for name in different}
    except ValueError:
        return classes, different
    if not all(math.isfinite(number) for number in numbers.values()):
        return classes, different
    if any(number != int(number) for number in numbers.values()):
        if 2 * len(different) > len(classes):
            raise DataError(
                f"{path}: {column} holds {len(different):,} different numbers with fractions, such as {different[0]}: "
                "classes are needed. Put the numbers into ranges, or take another column: --labels NAME for "
                "recommend, labels=NAME for train."
            )
        return classes, sorted(different, key=lambda name: numbers[name])
    if any("." in name for name in different):  # 1.0 and 1 are one class
        plain = {name: str(int(number)) for name, number in numbers.items()}
        return [plain[name] for name in classes], sorted(set(plain.values()), key=int)
    return classes, sorted(different, key=lambda name: (numbers[name], name))


def has_bytes(file: Path) -> bool:
    """Whether a Parquet file has a column of bytes, in which images may be; True where that can't be found out."""
    try:
        import pyarrow
        import pyarrow.parquet

        return any(_holds_bytes(column.type) for column in pyarrow.parquet.read_schema(file))
    except (ImportError, OSError, ValueError):  # errors of pyarrow are one of these
        return True


def _holds_bytes(kind: "pyarrow.DataType") -> bool:
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def read_parquet(files: list[Path], origin: Path, labels: str | None, images: str | None) -> FoundImages:
    """Find the images in Parquet files: a column of bytes, or of Hugging Face's `{bytes, path}`, and one of labels.

    Args:
        files: the files, of one schema; `train`, `test` and the like in their names say of which part they are.
        origin: the file or folder that was given.
        labels: name of the column of labels; None finds it.
        images: name of the column of images; None finds it.

    Returns:
        The images; their bytes are read when it is known which of them are needed.

    Raises:
        DataError: a file can't be read, pyarrow is missing, or which columns are meant can't be found out.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{origin}: Parquet needs pyarrow, which is not installed: pip install pyarrow.") from error
    keys, classes, parts, left_out = [], [], [], []
    places: list[tuple[int, int]] = []
    image_column = label_column = ""
    named: list[str] = []
    for number, file in enumerate(files):
        try:
            opened = pyarrow.parquet.ParquetFile(file)
            schema = opened.schema_arrow
            if not image_column:
                image_column = _bytes_column(file, schema, images)
                named_by = _class_labels(schema)
                label_column = _parquet_label(file, schema, labels, image_column, named_by)
                named = named_by.get(label_column, [])
            if missing := [name for name in (image_column, label_column) if name not in schema.names]:
                raise DataError(f"{file} has no column {missing[0]}, as {files[0].name} has; it has {schema.names}.")
            values = opened.read(columns=[label_column]).column(0).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{file} can't be read: {str(error).strip().splitlines()[0]}.") from error
        part = _part_of(file, origin)
        where = "" if len(files) == 1 else f"{file.relative_to(origin)} "
        for row, value in enumerate(values):
            text = named[value] if named and isinstance(value, int) and 0 <= value < len(named) else _cell(value)
            if text is None or (named and value == -1):
                left_out.append(LeftOut(f"{where}row {row}", "no label"))
                continue
            keys.append(f"{where}row {row}")
            classes.append(text)
            parts.append(part)
            places.append((number, row))
    classes, class_names = (classes, [name for name in named if name in set(classes)]) if named else named_classes(
        origin, label_column, classes
    )  # fmt: skip
    source = ParquetImages([str(file) for file in files], image_column, np.array(places, np.int64).reshape(-1, 2))
    notes = [f"images are those of the column {image_column}, classes of {label_column}"]
    several = len(set(parts)) > 1 and "" not in parts
    return FoundImages(keys, classes, class_names, source, parts if several else None, left_out, notes)


def _part_of(file: Path, origin: Path) -> str:
    inside = file.relative_to(origin) if origin.is_dir() else Path(file.name)
    return next((PARTS[word] for word in re.split(r"[-_./ ]", str(inside).lower()) if word in PARTS), "")


def _bytes_column(file: Path, schema: "pyarrow.Schema", given: str | None) -> str:
    fitting = [column.name for column in schema if _holds_bytes(column.type)]
    if given is not None:
        column = _require_column(file, given, schema.names, "images")
        if column not in fitting:
            raise DataError(
                f"{file}: column {given} is {schema.field(given).type}; needed are the bytes of image files."
            )
        return column
    ordered = sorted(fitting, key=lambda name: _place(name.lower(), _IMAGE_COLUMNS))
    if not ordered:
        said = ", ".join(f"{column.name} ({column.type})" for column in schema)
        raise DataError(f"{file} has no column with the bytes of images, as binary or {{bytes, path}}; it has {said}.")
    return ordered[0]


def _class_labels(schema: "pyarrow.Schema") -> dict[str, list[str]]:
    """Return the names of classes of each column that has some in Hugging Face's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: [str(label) for label in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _parquet_label(
    file: Path, schema: "pyarrow.Schema", given: str | None, image: str, named_by: dict[str, list[str]]
) -> str:
    if given is not None:
        return _require_column(file, given, schema.names, "labels")
    others = [name for name in schema.names if name != image and not name.startswith("__index")]
    for among in (list(named_by), others):
        known = sorted(among, key=lambda name: _place(name.lower(), _LABEL_COLUMNS))
        if known and (known[0].lower() in _LABEL_COLUMNS or len(known) == 1):
            return known[0]
    raise DataError(
        f"{file}: which column is the label can't be found out: it has {', '.join(others) or 'none beside ' + image}. "
        f"{NAME_LABELS}"
    )


class ParquetImages:
    """Images in Parquet files, which are read for good when it is known which are needed.

    Args:
        files: the files.
        column: name of the column of bytes.
        places: (n, 2) int64, the file and the row in it of each image.
    """

    def __init__(self, files: list[str], column: str, places: np.ndarray) -> None:
        self.files, self.column, self.places = files, column, places

    def __len__(self) -> int:
        return len(self.places)

    def chosen(self, rows: np.ndarray) -> EncodedImages:
        """Read the bytes of some of the images; row groups without one of them are passed over.

        Raises:
            DataError: a file can't be read, or there is no room for the bytes.
        """
        import pyarrow
        import pyarrow.parquet

        wanted = self.places[rows]
        starts, ends = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        kept = _Bytes()
        for number in np.unique(wanted[:, 0]):
            file = self.files[number]
            of_file = np.flatnonzero(wanted[:, 0] == number)
            of_row = {int(wanted[index, 1]): index for index in of_file}
            try:
                opened = pyarrow.parquet.ParquetFile(file)
                first = 0
                for group in range(opened.num_row_groups):
                    count = opened.metadata.row_group(group).num_rows
                    inside = sorted(row for row in range(first, first + count) if row in of_row)
                    if inside:
                        cells = opened.read_row_group(group, columns=[self.column]).column(0)
                        for row, cell in zip(
                            inside, cells.take(pyarrow.array([r - first for r in inside])), strict=True
                        ):
                            starts[of_row[row]], ends[of_row[row]] = kept.add(_bytes_of(cell.as_py(), file))
                    first += count
            except (pyarrow.ArrowException, OSError) as error:
                raise DataError(f"{file} can't be read: {str(error).strip().splitlines()[0]}.") from error
        return EncodedImages(kept.finish(), starts, ends)


def _bytes_of(cell: object, file: str) -> bytes:
    if isinstance(cell, dict):
        inside, name = cell.get("bytes"), cell.get("path")
        if inside is None and isinstance(name, str):
            try:
                return (Path(file).parent / name).read_bytes()
            except OSError:
                return b""
        cell = inside
    return cell if isinstance(cell, bytes) else b""


@dataclass
class _Bytes:
    """Bytes laid end to end: in memory, or in a temporary file where they are many."""

    _memory: bytearray = field(default_factory=bytearray)
    _path: str = ""
    _size: int = 0

    def add(self, content: bytes) -> tuple[int, int]:
        """Add some, and return where they begin and end."""
        start = self._size
        self._size += len(content)
        self._memory += content
        if len(self._memory) > _IN_MEMORY:
            self._spill()
        return start, self._size

    def _spill(self) -> None:
        if not self._path:
            handle, self._path = tempfile.mkstemp(prefix="menagerie_images_")
            os.close(handle)
            atexit.register(_remove, self._path, os.getpid())
        with open(self._path, "ab") as file:
            file.write(self._memory)
        self._memory = bytearray()

    def finish(self) -> np.ndarray:
        """Return all of them, as one array or memory map of uint8."""
        if not self._path:
            return np.frombuffer(self._memory, np.uint8)
        self._spill()
        return np.memmap(self._path, np.uint8, mode="r")


def _remove(path: str, process: int) -> None:
    if os.getpid() == process and os.path.exists(path):
        os.unlink(path)


def find_tables(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the tables of text and the Parquet files in a folder and below it, by their names, without hidden ones."""
    files = sorted(
        path for path in folder.rglob("*")
        if path.suffix.lower() in (*TABLE_SUFFIXES, ".parquet") and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )  # fmt: skip
    parquet = [path for path in files if path.suffix.lower() == ".parquet"]
    return [path for path in files if path not in parquet], parquet


def is_image_table(path: Path) -> bool:
    """Whether a table of text names images: whether a cell in its first rows ends as an image does, or is an id."""
    try:
        rows: Iterable = find_files(path).rows()
        for _, row in zip(range(20), rows, strict=False):
            if isinstance(row.value, RowError):
                continue
            for name, value in row.value.items():
                if any(Path(str(text)).suffix.lower() in IMAGE_SUFFIXES for text in (name, value)):
                    return True
                if str(name).lower() in _IMAGE_COLUMNS:
                    return True
    except DataError:
        return False
    return False
