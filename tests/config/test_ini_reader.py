"""The grammar of ini files, and every way to get it wrong."""

import os
from pathlib import Path

import pytest

from config.ini_reader import mask, parse_ini, quote, read_ini, split_items, unquote


def entries(text: str) -> dict[str, str]:
    ini = parse_ini(text.encode())
    assert ini.problems == []
    return {f"{entry.section}.{entry.key}": entry.text for entry in ini.entries}


def complaints(text: str | bytes) -> list[str]:
    ini = parse_ini(text if isinstance(text, bytes) else text.encode())
    return [f"{line} [{section}] {what}" for line, section, what in ini.problems]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("key = value", "value"),
        ("key=value", "value"),
        ("key =", ""),
        ("key = 50%  and %(other)s", "50%  and %(other)s"),
        ("key = a = b", "a = b"),
        ("key = value # comment", "value"),
        ("key = value ; comment = 3", "value"),
        ("key = # comment", ""),
        ("key = a#b;c", "a#b;c"),
        ("key = don't # comment", "don't"),
        ('key = "a # b" # comment', '"a # b"'),
        ("key = 'a ; b'", "'a ; b'"),
        ('key = 1, "a # b", 2 # comment', '1, "a # b", 2'),
        ('key = "so" it is # comment', '"so" it is'),
        ("key = [x]", "[x]"),
        ("key\t=\tvalue\t", "value"),
    ],
)
def test_value(line: str, value: str) -> None:
    assert entries(f"[S]\n{line}\n") == {"S.key": value}


def test_keys_and_sections_keep_their_case() -> None:
    assert entries("[S]\nKey = 1\nkey = 2\n[s]\nkey = 3\n") == {"S.Key": "1", "S.key": "2", "s.key": "3"}


def test_header_may_have_spaces_and_a_comment() -> None:
    assert entries("[ S ]  # comment\na = 1") == {"S.a": "1"}


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_numbers_hold_for_every_kind_of_newline(newline: str) -> None:
    ini = parse_ini(newline.join(["# one", "[S]", "", "a = 1", "b = 2"]).encode())
    assert [(entry.key, entry.line) for entry in ini.entries] == [("a", 4), ("b", 5)]
    assert ini.sections == {"S": 2}


def test_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert parse_ini(b"\xef\xbb\xbf[S]\na = 1\n").problems == []


def test_continuation_lines_are_joined_by_newlines() -> None:
    text = "[S]\na = 1\n    2  # two\n  # a comment between\n\t3\nb =\n  x\n  'y # z'\n"
    assert entries(text) == {"S.a": "1\n2\n3", "S.b": "x\n'y # z'"}


def test_indented_section_is_a_section_and_its_keys_are_keys() -> None:
    assert entries("  [S]\n  a = 1\n  b = 2\n") == {"S.a": "1", "S.b": "2"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[S]\na = 1\na = 2\n", ["3 [S] duplicate key 'a'; first at line 2"]),
        (
            "[S]\na = 1\n[T]\n[S]\na = 2",
            ["4 [S] duplicate section; first at line 1", "5 [S] duplicate key 'a'; first at line 2"],
        ),
        ("[S]\nepochs\n", ["2 [S] 'epochs' is neither 'key = value' nor '[section]'"]),
        ("[S]\nepochs: 5\n", ["2 [S] 'epochs: 5' is neither 'key = value' nor '[section]': use '=' instead of ':'"]),
        ("[S]\nepochs # = 5\n", ["2 [S] 'epochs' is neither 'key = value' nor '[section]'"]),
        ("[S]\n= 5\n", ["2 [S] '= 5' has no key before '='"]),
        ("a = 1\n[S]\n", ["1 [] key 'a' stands before the first [section]"]),
        ("[S\na = 1\n", ["1 [] '[S' is no section header: write [Name]"]),
        ("[]\na = 1\n", ["1 [] '[]' is no section header: write [Name]"]),
        ("[S] x\n", ["1 [] '[S] x' is no section header: write [Name]"]),
        ("[DEFAULT]\na=1\n", ["1 [] [DEFAULT] has no meaning here: put what holds for all trainers in [BaseTrainer]"]),
        ("[S]\na = 'x # y\n", ["2 [S] \"'x\" opens a quote that is not closed on the same line"]),
        ("[S]\na =\n  'x\n", ["3 [S] \"'x\" opens a quote that is not closed on the same line"]),
        ("[S]\na = 1\n\n  2\n", ["4 [S] '2' is neither 'key = value' nor '[section]'"]),
        (
            "[S]\na = x\n  b = 2\n",
            [
                "3 [S] 'b = 2' is indented, so it would continue the value of 'a' (line 2): "
                "remove the indentation to make it a key, or put it in quotes"
            ],
        ),
        (
            "[S]\na = x\n  [T]\n",
            [
                "3 [S] '[T]' is indented, so it would continue the value of 'a' (line 2): "
                "remove the indentation to make it a section, or put it in quotes"
            ],
        ),
        (b"[S]\na = \xff1\n", ["2 [S] is not UTF-8 (byte 0xff, column 5): save the file as UTF-8"]),
        (b"[S\xe9]\na = 1\n", ["1 [] is not UTF-8 (byte 0xe9, column 3): save the file as UTF-8"]),
        ("[S]\na = 1".encode("utf-16"), ["1 [] is UTF-16: save the file as UTF-8"]),
        ("[S]\na = 1".encode("utf-16-le"), ["0 [] is UTF-16 (without a byte order mark): save the file as UTF-8"]),
        ("[S]\na = 1".encode("utf-16-be"), ["0 [] is UTF-16 (without a byte order mark): save the file as UTF-8"]),
        (bytes(range(256)) * 4, ["0 [] is no text file, such as config.ini is"]),
        (
            "[S]\na = ü\nb = ü\nc = ü\nd = ü\n".encode("latin-1"),
            ["2 [S] is not UTF-8 (byte 0xfc, column 5): save the file as UTF-8 (3 more lines are not either)"],
        ),
        ("[S]\na = x\x0bb = 2\n", ["2 [S] control character U+000B at column 6: remove it"]),
        ("[S]\na = x\u2028b = 2\n", ["2 [S] control character U+2028 at column 6: remove it"]),
        ("[S]\na = \x00\n", ["2 [S] control character U+0000 at column 5: remove it"]),
    ],
)  # fmt: skip
def test_problem(text: str | bytes, expected: list[str]) -> None:
    assert complaints(text) == expected


def test_all_problems_are_found_in_one_go() -> None:
    found = complaints(b"x = 1\n[S]\na\nb = \xff\n[S]\nc = 1\nc = 2\n[T\n")
    assert [line.split()[0] for line in found] == ["1", "3", "4", "5", "7", "8"]


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert read_ini(tmp_path / "none.ini").problems == [(0, "", "cannot be read: no such file")]
    assert read_ini(tmp_path).problems == [(0, "", "cannot be read: it is a folder, not a file")]
    assert "cannot be read: " in read_ini(Path("a\0b")).problems[0].text
    if hasattr(os, "geteuid") and os.geteuid() != 0:  # root may read everything
        locked = tmp_path / "locked.ini"
        locked.write_text("")
        locked.chmod(0)
        assert read_ini(locked).problems == [(0, "", "cannot be read: Permission denied")]


@pytest.mark.parametrize("text", ["", "a", "a'b", 'a"b', "a'b\"c", "''", '""', " # x"])
def test_quote_and_unquote_are_opposites(text: str) -> None:
    assert unquote(quote(text)) == text
    assert mask(quote(text)) == "x" * len(quote(text))


@pytest.mark.parametrize("text", ["a", "'a", "'a' b", '"a\', b" c', "'a' 'b'"])
def test_text_that_is_not_wholly_quoted(text: str) -> None:
    assert unquote(text) is None


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("1", ["1"]),
        ("1, 2,3", ["1", "2", "3"]),
        ("1, 2,", ["1", "2"]),
        ("[1, 2]", ["1", "2"]),
        ("(1, 2)", ["1", "2"]),
        ("[]", []),
        ("1,\n2\n3", ["1", "2", "3"]),
        ("[\n1,\n2\n]", ["1", "2"]),
        ('"a, b", c', ['"a, b"', "c"]),
        ("conv(3), relu", ["conv(3)", "relu"]),
        ("(a), (b)", ["(a)", "(b)"]),
    ],
)
def test_split_items(text: str, items: list[str]) -> None:
    assert split_items(text) == items


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,,2", 'has an empty item; write "" for empty text'),
        (",", 'has an empty item; write "" for empty text'),
        ("[1, 2", "has brackets that do not match"),
        ("1, 2]", "has brackets that do not match"),
        ("[1, 2)", "has brackets that do not match"),
        ("a, 'b", 'has the item "\'b", whose quotes do not match'),
    ],
)
def test_split_items_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        split_items(text)
    assert str(caught.value) == message
