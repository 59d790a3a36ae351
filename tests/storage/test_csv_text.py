"""CSV is read as it was written, whatever the cells have."""

import csv
import io

from storage.csv_text import csv_text


def test_rows_are_read_as_they_were_written():
    rows = [["text", "label"], ["a\rb", "lone"], ["a\r\nb", "pair"], ['a\nb, "c"', ""], ["x\x85y\x0bz", " d "]]
    text = csv_text(rows)
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == rows
    assert text.startswith("text,label\n") and "x\x85y\x0bz, d \n" in text  # quotes only where they are needed
