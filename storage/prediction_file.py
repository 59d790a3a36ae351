"""A file of predictions: a row for each sample, in the format that its suffix names."""

import importlib
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.csv_text import csv_text
from storage.files import write_atomically

if TYPE_CHECKING:  # takes a while, which a typing error need not wait for
    import numpy as np

FORMATS = {
    ".csv": "text; a column for each number of a sample",
    ".jsonl": "a JSON object for each sample, for lists of any length too",
    ".npz": "numpy arrays by name",
    ".npy": "one numpy array",
    ".parquet": "for pandas, polars, DuckDB (pip install pyarrow)",
    ".safetensors": "tensors by name",
}
_PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".joblib", ".bin", ".ckpt")
_MOST_COLUMNS = 1000  # of a table
INDEX = "index"

Columns = dict[str, "np.ndarray | list[Any]"]


class PredictionFileError(Exception):
    """A file that predictions can't be written to: says why, and what would do."""


def check_prediction_file(path: Path, force: bool) -> None:
    """Refuse a file that can't be written, before a model is asked.

    Args:
        path: file that is wanted.
        force: whether it may be there already.

    Raises:
        PredictionFileError: its suffix names no format, or it is there already, or its folder can't be.
    """
    suffix = path.suffix.lower()
    allowed = "\n".join(f"  {name:<13} {what}" for name, what in FORMATS.items())
    if suffix in _PICKLED:
        raise PredictionFileError(
            f"--out {path}: {suffix} is a pickle, which runs code when it is opened, so none is written. Take\n"
            f"{allowed}"
        )
    if suffix not in FORMATS:
        raise PredictionFileError(f"--out {path}: '{suffix}' names no format; its suffix must be one of\n{allowed}")
    if path.is_dir():
        raise PredictionFileError(f"--out {path} is a folder; name a file in it.")
    if path.exists() and not force:
        raise PredictionFileError(f"--out {path} is there already; --force replaces it, or take another name.")
    above = next((each for each in path.absolute().parents if each.exists()), None)
    if above is not None and not above.is_dir():
        raise PredictionFileError(f"--out {path}: {above} is a file, no folder.")
    if suffix == ".parquet":
        _pyarrow()


def write_prediction_file(path: Path, columns: Columns, force: bool) -> None:
    """Write predictions, all or nothing.

    Args:
        path: file to write; its suffix says the format.
        columns: a row for each sample: arrays (N, ...), or lists of N plain values, by name.
        force: whether the file may be there already.

    Raises:
        PredictionFileError: the format can't hold such a column, or the file has come to be meanwhile.
        OutputError: it can't be written.
    """
    content = _WRITERS[path.suffix.lower()](path, columns)
    if path.exists() and not force:
        raise PredictionFileError(f"--out {path} is there now, and was not before; --force replaces it.")
    write_atomically(path, content, setting="--out")


def _csv(path: Path, columns: Columns) -> bytes:
    flat = _flat(path, columns)
    rows = zip(*(map(_text, column) for column in flat.values()), strict=True)
    return csv_text([list(flat), *rows]).encode()


def _text(value: Any) -> str:
    """Write a number with as many digits as its type has, so that float32 0.1 is 0.1."""
    return "" if value is None else str(value)


def _flat(path: Path, columns: Columns) -> Columns:
    """Give each number of a sample a column of its own: `probability_0`, `probability_1`."""
    flat: Columns = {}
    for name, column in columns.items():
        if isinstance(column, list):
            if any(isinstance(value, list | tuple | Mapping) for value in column):
                raise PredictionFileError(_unfit(path, name, "lists or dicts", ".jsonl"))
            flat[name] = column
        elif column.ndim == 1:
            flat[name] = column
        else:
            shape = column.shape[1:]
            if math.prod(shape) > _MOST_COLUMNS:
                raise PredictionFileError(_unfit(path, name, f"{math.prod(shape):,} numbers a sample", ".npz"))
            import numpy as np

            for place in np.ndindex(*shape):
                flat["_".join([name, *map(str, place)])] = column[(slice(None), *place)]
    return flat


def _unfit(path: Path, name: str, what: str, better: str) -> str:
    return f"--out {path}: '{name}' has {what}, which a {path.suffix} file does not hold; {better} does."


def _jsonl(path: Path, columns: Columns) -> bytes:
    lists = {name: column if isinstance(column, list) else column.tolist() for name, column in columns.items()}
    rows = zip(*lists.values(), strict=True)
    try:
        lines = [json.dumps(dict(zip(lists, map(_finite, row), strict=True)), ensure_ascii=False) for row in rows]
    except TypeError as error:
        raise PredictionFileError(
            f"--out {path}: {error}; give tensors, arrays, numbers, texts, lists or dicts."
        ) from error
    return "".join(f"{line}\n" for line in lines).encode()


def _finite(value: Any) -> Any:
    """Replace what JSON does not have: NaN and infinity become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return {name: _finite(each) for name, each in value.items()} if isinstance(value, Mapping) else value


def _arrays(path: Path, columns: Columns) -> "dict[str, np.ndarray]":
    """Make arrays of all columns; none is of objects, which numpy would pickle."""
    import numpy as np

    arrays = {}
    for name, column in columns.items():
        try:
            array = np.asarray(column)
        except ValueError as error:  # lists of different lengths
            raise PredictionFileError(_unfit(path, name, "lists of different lengths", ".jsonl")) from error
        if array.dtype == object:
            raise PredictionFileError(_unfit(path, name, "values of different kinds", ".jsonl"))
        arrays[name] = array
    return arrays


def _npz(path: Path, columns: Columns) -> bytes:
    import numpy as np

    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **_arrays(path, columns))
    return stream.getvalue()


def _npy(path: Path, columns: Columns) -> bytes:
    import numpy as np

    arrays = _arrays(path, {name: column for name, column in columns.items() if name != INDEX} or columns)
    if len(arrays) != 1:
        raise PredictionFileError(f"--out {path}: .npy holds one array, there are {', '.join(arrays)}; .npz holds all.")
    stream = io.BytesIO()
    np.save(stream, next(iter(arrays.values())), allow_pickle=False)
    return stream.getvalue()


def _safetensors(path: Path, columns: Columns) -> bytes:
    import numpy as np
    from safetensors.numpy import save

    arrays = _arrays(path, columns)
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise PredictionFileError(_unfit(path, name, "values that are no numbers", ".jsonl"))
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def _pyarrow() -> Any:
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise PredictionFileError(
            ".parquet needs pyarrow: pip install pyarrow; .csv, .jsonl and .npz need nothing."
        ) from error


def _parquet(path: Path, columns: Columns) -> bytes:
    pyarrow = _pyarrow()
    lists = {name: column if isinstance(column, list) or column.ndim == 1 else column.tolist()
             for name, column in columns.items()}  # fmt: skip
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(lists), stream)
    return stream.getvalue()


_WRITERS = {
    ".csv": _csv, ".jsonl": _jsonl, ".npz": _npz, ".npy": _npy, ".safetensors": _safetensors, ".parquet": _parquet,
}  # fmt: skip
