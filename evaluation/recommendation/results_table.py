"""A user's own table of measured results: what fine-tuning reached, beside what the probe had said before."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from constants.paths import ARTIFACTS_DIR
from data.data_error import DataError
from storage.csv_text import csv_text
from storage.file_lock import FolderLock
from storage.files import write_atomically

OWN_TABLE = ARTIFACTS_DIR / "model_results.csv"
"""Where `--fine-tune` writes, and what a recommendation learns from if no other table is named."""


@dataclass(frozen=True)
class MeasuredResult:
    """What one model reached on one dataset; one row of the table.

    Attributes:
        model: the model as manifests name it: `timm/resnet18.a1_in1k`, or the name of one's own.
        dataset: name of the dataset.
        metric: name of the metric, such as `accuracy`; higher is better.
        value: what was measured after fine-tuning; accuracies from 0 to 1.
        probe_accuracy: accuracy of the linear probe on the same images, from 0 to 1; None where it wasn't measured.
        images: images of the dataset that were used; None if unknown.
        classes: classes of the dataset; None if unknown.
        dataset_digest: hexadecimal digest of images and labels; "" if unknown.
        low: lower end of the 95 % interval of `value`; None if unknown.
        high: upper end.
        seeds: number of seeds whose mean `value` is; None if unknown.
        budget: how it was fine-tuned, such as `full, 10 epochs`; results of different budgets aren't alike.
    """

    model: str
    dataset: str
    metric: str
    value: float
    probe_accuracy: float | None = None
    images: int | None = None
    classes: int | None = None
    dataset_digest: str = ""
    low: float | None = None
    high: float | None = None
    seeds: int | None = None
    budget: str = ""


_COLUMNS = tuple(each.name for each in fields(MeasuredResult))
_NEEDED = _COLUMNS[:4]
_WHOLE = ("images", "classes", "seeds")


def append_results(results: Sequence[MeasuredResult], path: Path = OWN_TABLE) -> None:
    """Add rows to a table, which is made where it is missing; columns that it has besides stay.

    A row for the same model, the same images (dataset and digest), metric and budget takes the place of the older one.
    Several processes may append at a time.

    Args:
        results: rows to add.
        path: the CSV.

    Raises:
        DataError: the file is there and is no such table.
        OutputError: it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(path.parent)
    lock.take(wait=True)
    try:
        header, rows = _read_rows(path) if path.exists() else (list(_COLUMNS), [])
        header += [name for name in _COLUMNS if name not in header]
        new = [{key: "" if value is None else str(value) for key, value in asdict(each).items()} for each in results]
        replaced = {_key(row) for row in new}
        kept = [row for row in rows if _key(row) not in replaced] + new
        text = csv_text([header, *([row.get(name, "") for name in header] for row in kept)])
        write_atomically(path, text.encode())
    finally:
        lock.release()


def read_results(path: Path) -> list[MeasuredResult]:
    """Read a table of results: `model,dataset,metric,value`, and of the further columns those that there are.

    Args:
        path: the CSV.

    Raises:
        DataError: it can't be read, lacks a column, or a number is none.
    """
    _, rows = _read_rows(path)
    return [_result(path, number, row) for number, row in enumerate(rows, 2)]


def _key(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row.get(name, "") for name in ("model", "dataset", "dataset_digest", "metric", "budget"))


def _read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = [[cell.strip() for cell in line] for line in csv.reader(stream, strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"cannot read the table of results {path}: {reason}. Check the path; it must be CSV."
        ) from error
    lines = [line for line in lines if any(line)]
    header = lines[0] if lines else []
    if missing := [name for name in _NEEDED if name not in header]:
        raise DataError(
            f"{path}: there is no column {' and no column '.join(missing)}; needed are {', '.join(_NEEDED)}, one row "
            f"for each model and dataset. The columns are {', '.join(header) or 'none'}."
        )
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(header):
            raise DataError(f"{path}, row {number}: {len(line)} cells, the header has {len(header)} columns.")
    return header, [dict(zip(header, line, strict=True)) for line in lines[1:]]


def _result(path: Path, number: int, row: dict[str, str]) -> MeasuredResult:
    texts = {name: row.get(name, "") for name in _COLUMNS}
    values: dict[str, object] = {
        name: texts[name] for name in ("model", "dataset", "metric", "dataset_digest", "budget")
    }
    for name in ("value", "probe_accuracy", "low", "high", *_WHOLE):
        text = texts[name]
        try:
            value = float(text) if text else math.nan
        except ValueError:
            raise DataError(f"{path}, row {number}: {name} is {text!r}; it must be a number.") from None
        if not math.isfinite(value):
            if name == "value" or text:
                raise DataError(f"{path}, row {number}: {name} is {text!r}; it must be a finite number.")
            values[name] = None
        else:
            values[name] = round(value) if name in _WHOLE else value
    return MeasuredResult(**values)  # type: ignore[arg-type]  # of the types that were just made


def names_of(reference: str, name: str) -> Iterable[str]:
    """Return the names by which a table may call a model: its reference, its own name, the name inside its library."""
    return dict.fromkeys((reference, name, reference.partition("/")[2] or reference))
