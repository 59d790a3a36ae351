"""CSV that every reader takes apart as it was put together."""

import csv
import io
from collections.abc import Iterable, Sequence


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    r"""Return rows as CSV with lines that end in ``\n``.

    Python's writer leaves a lone carriage return unquoted where lines end otherwise, and readers begin a new row there.

    Args:
        rows: cells of each row, the head first.
    """
    stream = io.StringIO(newline="")
    plain = csv.writer(stream, lineterminator="\n")
    quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
    return stream.getvalue()
