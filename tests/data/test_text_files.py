"""Readers keep the bytes of text, and name the line of what can't be read."""

import json

import pytest

from data.chat_messages import RowError
from data.data_error import DataError
from data.text_files import find_files

BOM = b"\xef\xbb\xbf"


def rows_of(path):
    return [(row.place, row.value) for row in find_files(path).rows()]


def refusals(path):
    return [(place, str(value)) for place, value in rows_of(path) if isinstance(value, RowError)]


def test_json_lines_keep_every_character(tmp_path):
    lines = ['{"text": "a\u2028b\u0085c \\ud83d\\ude00"}', "", '{"text": "\\r\\n"}', '{"text": "é"}']
    path = tmp_path / "a.jsonl"
    path.write_bytes(BOM + "\r\n".join(lines).encode())
    places, values = zip(*rows_of(path), strict=True)
    assert places == ("line 1", "line 3", "line 4")
    assert [value["text"] for value in values] == ["a\u2028b\u0085c \U0001f600", "\r\n", "é"]
    assert values[0]["text"].encode()[-4:] == b"\xf0\x9f\x98\x80"


def test_files_put_together_have_several_byte_order_marks(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(BOM + b'{"a": 1}\n' + BOM + b'{"a": 2}\r\n' + BOM + b"\n")
    assert rows_of(path) == [("line 1", {"a": 1}), ("line 2", {"a": 2})]


def test_what_cant_be_read_is_named_by_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": }\n{"a": "\xe9"}\n{"a": ["\\ud83d"]}\n[1]\n' + b"[" * 100_000 + b"\n{}")
    assert refusals(path) == [
        ("line 3", "bad JSON (Expecting value, column 7)"),
        ("line 4", "wrong encoding: not UTF-8 (byte 0xE9, column 8)"),
        ("line 5", "half a character (the lone surrogate \\ud83d)"),
        ("line 6", "a row is not a mapping of names and values (it is a list)"),
        ("line 7", "bad JSON (it is nested too deeply)"),
    ]
    assert [place for place, value in rows_of(path) if not isinstance(value, RowError)] == ["line 1", "line 8"]


def test_json_has_the_line_of_each_row(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(BOM + b'[{"a": 1},\r\n\r\n {"a":\n 2}, 3\n]')
    assert rows_of(path)[:2] == [("line 1", {"a": 1}), ("line 3", {"a": 2})]
    assert refusals(path) == [("line 4", "a row is not a mapping of names and values (it is a int)")]
    path.write_text('[{"a": 1}, {"a": 2},\n{"a": 3}, {"a": 4}]')  # places of rows tell them apart
    assert [place for place, _ in rows_of(path)] == ["line 1", "line 1 (row 2)", "line 2", "line 2 (row 4)"]
    path.write_bytes(b'[{"a": "x"}, {"a": "\xe9"},\n{"a": "\\ud83d"}]')
    assert refusals(path) == [("line 1 (row 2)", "wrong encoding: not UTF-8 (byte 0xE9)"),
                              ("line 2", "half a character (the lone surrogate \\ud83d)")]  # fmt: skip
    path.write_text('{"data": [{"a": 1}, {"a": 2}], "n": 2}')
    assert rows_of(path) == [("row 1", {"a": 1}), ("row 2", {"a": 2})]
    path.write_text('{"messages": [{"role": "user", "content": "a"}]}')
    assert [value["messages"][0]["role"] for _, value in rows_of(path)] == ["user"]
    path.write_text('[{"a": 1},\n{"a" 2}]')
    with pytest.raises(DataError, match="bad JSON in row 2: Expecting ':' delimiter, line 2"):
        rows_of(path)
    path.write_text('[{"a": 1}\n{"a": 2}]')
    with pytest.raises(DataError, match="bad JSON after row 1: no comma, line 2"):
        rows_of(path)


def test_json_and_json_lines_are_told_by_what_is_in_them(tmp_path):
    lines, array = tmp_path / "lines.json", tmp_path / "array.jsonl"
    lines.write_text('{"a": 1}\n{"a": }\n{"a": 3}\n')
    array.write_text('[\n{"a": 1},\n{"a": 2}\n]\n')
    assert find_files(lines).kinds == "JSON lines" and len(refusals(lines)) == 1
    assert find_files(array).kinds == "JSON" and [place for place, _ in rows_of(array)] == ["line 2", "line 3"]


def test_csv_keeps_cells_as_they_are(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        BOM + 'prompt,completion\r\n"a\r\nb",007\r\n\r\n"q ""x""",\u2028\r\nonly\r\n'.encode()
        + b"\xe9,b\r\nlast,\"open\r\n"
    )  # fmt: skip
    assert rows_of(path)[:2] == [
        ("line 2", {"prompt": "a\r\nb", "completion": "007"}),
        ("line 5", {"prompt": 'q "x"', "completion": "\u2028"}),
    ]
    assert refusals(path) == [
        ("line 6", "bad CSV (1 cells, but the header names 2 columns)"),
        ("line 7", "wrong encoding: not UTF-8 (byte 0xE9)"),
        ("line 8", "bad CSV (unexpected end of data)"),
    ]
    path.write_text("prompt;completion\na,b;c\n")
    assert rows_of(path) == [("line 2", {"prompt": "a,b", "completion": "c"})]
    tabs = tmp_path / "a.tsv"
    tabs.write_text("a\tb\n1,2\t" + "x" * 200_000 + "\n")
    assert rows_of(tabs)[0][1]["a"] == "1,2"
    path.write_text("a,a\n1,2\n")
    with pytest.raises(DataError, match="names a column twice"):
        rows_of(path)


def test_parquet_has_no_keys_of_other_rows(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"call": {"x": 1}, "name": None}, {"call": {"y": 2}, "name": "b"}]
    path, lines = tmp_path / "a.parquet", tmp_path / "a.jsonl"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert rows_of(path) == [("row 1", {"call": {"x": 1}}), ("row 2", {"call": {"y": 2}, "name": "b"})]
    assert rows_of(lines)[0][1] == rows[0]  # here null is what the file says
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="a.parquet can't be read"):
        rows_of(path)


def test_a_cell_of_parquet_that_cant_be_read_costs_its_row(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = pyarrow.array([b"a", b"x\xff", b"c"], pyarrow.binary()).view(pyarrow.string())
    late = pyarrow.array([2**40, 1, 2**40], pyarrow.timestamp("s"))  # a year that Python has no date for
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": texts, "late": late}), path)
    rows = rows_of(path)
    assert rows[0] == ("row 1", {"text": "a"}) and rows[2] == ("row 3", {"text": "c"})
    assert refusals(path) == [("row 2", "wrong encoding: not UTF-8 (byte 0xFF in `text`)")]


def test_a_folder_of_text(tmp_path):
    (tmp_path / "b.txt").write_bytes(BOM + b"two\r\nlines \n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.md").write_bytes(b"# one\n\xff")
    (tmp_path / "picture.png").write_bytes(b"")
    (tmp_path / ".hidden.txt").write_bytes(b"")
    found = find_files(tmp_path)
    before = found.digest()
    (tmp_path / "in" / "a.md").write_bytes(b"# one\n\xfe")
    assert len(before) == 64 and found.digest() != before
    (tmp_path / "in" / "a.md").write_bytes(b"# one\n\xff")
    assert found.digest() == before
    assert found.passed_over == ("picture.png",) and found.kinds == "text"
    assert rows_of(tmp_path)[0] == ("b.txt", {"text": "two\r\nlines \n"})
    assert refusals(tmp_path) == [("in/a.md", "wrong encoding: not UTF-8 (byte 0xFF, column 1, line 2)")]
    (tmp_path / "c.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"files of rows .c.jsonl. and of text .b.txt."):
        find_files(tmp_path)


def test_a_folder_of_rows_names_the_file(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "x"}\n')
    assert [place for place, _ in rows_of(tmp_path)] == ["a.jsonl line 1", "b.jsonl line 1"]


def test_what_is_no_data_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no file or folder"):
        find_files(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="has no file that is read; allowed are .jsonl"):
        find_files(tmp_path)
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(DataError, match="suffix .xlsx are not read"):
        find_files(tmp_path / "a.xlsx")
    wide = tmp_path / "a.jsonl"
    wide.write_bytes('{"a": 1}'.encode("utf-16"))
    with pytest.raises(DataError, match="is UTF-16; save it as UTF-8"):
        rows_of(wide)
    wide.write_bytes('{"a": 1}'.encode("utf-32"))
    with pytest.raises(DataError, match="is UTF-32; save it as UTF-8"):
        rows_of(wide)
