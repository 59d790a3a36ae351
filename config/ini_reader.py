"""Reads ini text into entries that know their line, and finds every problem rather than the first.

The standard `configparser` gives no line numbers, stops at the first duplicate, lowers keys, interpolates `%` and leaks
`[DEFAULT]` into all sections. The grammar here:

    # or ; opens a comment: a whole line, or after whitespace behind a value
    [Section]
    key = value                 # only `=`; keys keep their case; `%` is a character like others
    key = " value # literal "   # in matching quotes, taken literally; a doubled quote inside stands for one
    key = first                 # lines indented deeper than their key continue its value, joined by newlines;
        second                  # a blank line ends it

An indented `other = 3` or `[Other]` below a key is refused, not swallowed into the value above it.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from constants.renamed import present_name

# A quote counts where an item starts, and only if its partner ends the item: the one in `don't` is just a character.
_QUOTED = re.compile(r'"(?:[^"\n]|"")*"' + r"|'(?:[^'\n]|'')*'")
_QUOTED_ITEM = re.compile(rf"(?:{_QUOTED.pattern})(?=\s|$|[,\])])")
_ITEM_START = re.compile(r"(?:^|,|\n)[\s\[(]*(?=[\"'])")
_COMMENT = re.compile(r"\s[#;]")
_NOT_UTF_8 = "is not UTF-8"
_LINE_BREAK = re.compile(rb"\r\n|\n|\r")
_HEADER_LIKE = re.compile(r"\[\s*[^\W\d]\w*\s*\]")
_NOT_IN_TEXT = [bytes([code]) for code in (*range(9), *range(14, 32))]
_MANY_STRANGE, _MOST_STRANGE = 10, 0.05  # of them that no text has, and as a share of its bytes
_MOST_UNDECODABLE = 3  # lines that are told one by one
# Characters that some editors show as a line break or not at all: text behind them would hide inside a value.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


_LOOKED_AT = 4096  # bytes that tell text in UTF-8 from other bytes


class Problem(NamedTuple):
    """One thing wrong with the file. Line 0 means the file as a whole; an empty section, none in particular."""

    line: int
    section: str
    text: str


@dataclass(frozen=True)
class Entry:
    """One `key = value`. `text` still has its quotes; a `damaged` entry has been reported and its text is no use."""

    section: str
    key: str
    text: str
    line: int
    damaged: bool = False


@dataclass
class IniFile:
    """What an ini file says."""

    sections: dict[str, int] = field(default_factory=dict)
    """Section names with the line of their (first) header."""
    entries: list[Entry] = field(default_factory=list)
    """In the file's order; a duplicate key is here twice."""
    problems: list[Problem] = field(default_factory=list)
    renamed: list[tuple[int, str, str]] = field(default_factory=list)
    """Sections under a name that their trainer once had: line, that name, the present one, by which they are kept."""

    @property
    def is_unread(self) -> bool:
        """Whether nothing of the file could be read, so that nothing can be missed in it either."""
        return bool(self.problems) and not self.sections and not self.entries

    def find(self, section: str, key: str) -> Entry | None:
        """The first entry of a key in a section, or None."""
        return next((entry for entry in self.entries if (entry.section, entry.key) == (section, key)), None)


def read_ini(path: Path) -> IniFile:
    """Read a file.

    Args:
        path: path of the ini file.

    Returns:
        The file's sections and entries, with everything wrong in `problems`; never raises for the file's sake.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        reason = "no such file"
    except IsADirectoryError:
        reason = "it is a folder, not a file"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
    else:
        return parse_ini(data)
    return IniFile(problems=[Problem(0, "", f"cannot be read: {reason}")])


def parse_ini(data: bytes) -> IniFile:
    """Read an ini file's bytes; see `read_ini`."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return IniFile(problems=[Problem(1, "", "is UTF-16: save the file as UTF-8")])
    reason = _not_text(data)
    if reason is not None:
        return IniFile(problems=[Problem(0, "", reason)])
    reader = _Reader()
    for number, line in enumerate(_LINE_BREAK.split(data.removeprefix(b"\xef\xbb\xbf")), start=1):
        reader.feed(number, line)
    reader.close()
    undecodable = [problem for problem in reader.ini.problems if _NOT_UTF_8 in problem.text]
    if len(undecodable) > _MOST_UNDECODABLE:  # another encoding, or no text at all: one line says it
        first, more = undecodable[0], len(undecodable) - 1
        told = Problem(first.line, first.section, f"{first.text} ({more} more lines are not either)")
        reader.ini.problems = [told]
    return reader.ini


def _not_text(data: bytes) -> str | None:
    """Say what a file with many control characters is; None where a few stand in a text, which are told by line."""
    few, many = sorted((data[::2].count(0), data[1::2].count(0)))
    if many > 0.4 * len(data) and few < 0.1 * len(data):
        return "is UTF-16 (without a byte order mark): save the file as UTF-8"
    strange = sum(map(data.count, _NOT_IN_TEXT))
    return "is no text file, such as config.ini is" if strange > max(_MANY_STRANGE, _MOST_STRANGE * len(data)) else None


@dataclass
class _Open:
    """The entry that indented lines would continue. `keep` is false where a line was refused and is no entry."""

    key: str
    line: int
    indent: int
    values: list[str]
    damaged: bool
    keep: bool = False


class _Reader:
    """Takes a file's lines one by one."""

    def __init__(self) -> None:
        self.ini = IniFile()
        # None before the first header; "" below a refused header: its keys have no section to be checked in.
        self.section: str | None = None
        self.first_lines: dict[tuple[str, str], int] = {}
        self.open: _Open | None = None

    def feed(self, number: int, data: bytes) -> None:
        """Take one line."""
        line, damaged = self._decode(number, data)
        stripped = line.strip()
        if stripped.startswith(("#", ";")):
            return
        if not stripped:
            self.close()
            return
        indent = len(line) - len(line.lstrip())
        if self.open is not None and indent > self.open.indent:
            self._continue(self.open, number, stripped, damaged)
            return
        self.close()
        if stripped.startswith("["):
            self._header(number, stripped, damaged)
        else:
            self._key_value(number, stripped, indent, damaged)

    def close(self) -> None:
        """End the open entry, if any, and keep it."""
        if self.open is not None and self.open.keep:
            values = self.open.values
            # `key =` with its values below: the empty first line is not one of them.
            text = "\n".join(values[1:] if len(values) > 1 and not values[0] else values)
            self.ini.entries.append(Entry(self.section or "", self.open.key, text, self.open.line, self.open.damaged))
        self.open = None

    def _problem(self, line: int, text: str) -> None:
        self.ini.problems.append(Problem(line, self.section or "", text))

    def _decode(self, number: int, data: bytes) -> tuple[str, bool]:
        """The line's text, and whether it holds something that is not text (which is reported here)."""
        try:
            line = data.decode("utf-8")
        except UnicodeDecodeError as error:
            byte, column = data[error.start], error.start + 1
            self._problem(number, f"{_NOT_UTF_8} (byte 0x{byte:02x}, column {column}): save the file as UTF-8")
            return _CONTROL.sub("\ufffd", data.decode("utf-8", errors="replace")), True
        found = _CONTROL.search(line)
        if found is None:
            return line, False
        self._problem(number, f"control character U+{ord(found[0]):04X} at column {found.start() + 1}: remove it")
        return _CONTROL.sub("\ufffd", line), True

    def _continue(self, entry: _Open, number: int, stripped: str, damaged: bool) -> None:
        text = _without_comment(stripped)
        entry.values.append(text)
        entry.damaged |= damaged
        if damaged:
            return
        if "=" in mask(text) or _HEADER_LIKE.fullmatch(text):
            what = "section" if text.startswith("[") else "key"
            self._problem(
                number,
                f"{shorten(text)} is indented, so it would continue the value of {entry.key!r} "
                f"(line {entry.line}): remove the indentation to make it a {what}, or put it in quotes",
            )
            entry.damaged = True
        elif _opens_quote(text):
            self._unclosed_quote(entry, number, text)

    def _header(self, number: int, stripped: str, damaged: bool) -> None:
        text = _without_comment(stripped)
        name = text[1:-1].strip()
        self.section = ""
        if damaged:
            return
        if not text.endswith("]") or not name or "[" in name or "]" in name:
            self._problem(number, f"{shorten(stripped)} is no section header: write [Name]")
        elif name == "DEFAULT":
            self._problem(number, "[DEFAULT] has no meaning here: put what holds for all trainers in [BaseTrainer]")
        else:
            present = present_name(name)
            if present != name:
                self.ini.renamed.append((number, name, present))
            self.section = name = present
            first = self.ini.sections.setdefault(name, number)
            if first != number:
                self._problem(number, f"duplicate section; first at line {first}")

    def _key_value(self, number: int, stripped: str, indent: int, damaged: bool) -> None:
        key, equals, rest = stripped.partition("=")
        if _COMMENT.search(key):  # the `=` stands in a comment
            equals = ""
        key = key.strip()
        # A refused line is opened too, so that the lines that continue it are not refused one by one.
        self.open = entry = _Open(key, number, indent, [_without_comment(rest)], damaged)
        if not equals or not key:
            if not damaged:
                self._not_key_value(number, _without_comment(stripped), bool(equals))
        elif self.section is None:
            self._problem(number, f"key {key!r} stands before the first [section]")
        elif self.section:
            entry.keep = True
            first = self.first_lines.setdefault((self.section, key), number)
            if first != number:
                self._problem(number, f"duplicate key {key!r}; first at line {first}")
            if _opens_quote(entry.values[0]) and not damaged:
                self._unclosed_quote(entry, number, entry.values[0])

    def _not_key_value(self, number: int, text: str, has_equals: bool) -> None:
        if has_equals:
            self._problem(number, f"{shorten(text)} has no key before '='")
            return
        hint = ": use '=' instead of ':'" if re.match(r"\w+\s*:", text) else ""
        self._problem(number, f"{shorten(text)} is neither 'key = value' nor '[section]'{hint}")

    def _unclosed_quote(self, entry: _Open, number: int, text: str) -> None:
        entry.damaged = True
        self._problem(number, f"{shorten(text)} opens a quote that is not closed on the same line")


def mask(text: str) -> str:
    """The text with every quoted item replaced by as many `x`, so that what remains can be searched for syntax."""
    pieces, position = [], 0
    for start in _ITEM_START.finditer(text):
        quoted = _QUOTED_ITEM.match(text, start.end()) if start.end() >= position else None
        if quoted:
            pieces += [text[position : quoted.start()], "x" * len(quoted[0])]
            position = quoted.end()
    return "".join([*pieces, text[position:]])


def unquote(text: str) -> str | None:
    """What a text that is wholly in matching quotes holds, or None where it is not."""
    if not _QUOTED.fullmatch(text):
        return None
    quote = text[0]
    return text[1:-1].replace(quote * 2, quote)


def quote(text: str) -> str:
    """The text in quotes, such that `unquote` gives it back."""
    mark = "'" if '"' in text and "'" not in text else '"'
    return mark + text.replace(mark, mark * 2) + mark


def split_items(text: str) -> list[str]:
    """Split a list's text at commas and newlines outside quotes; brackets around the whole are optional.

    Args:
        text: text of a list, such as `1, 2`, `[1, 2,]` or `"a, b"\\nc`.

    Returns:
        The items, their quotes still on.

    Raises:
        ValueError: an empty item, unbalanced brackets, or a quote that is never closed.
    """
    text = _without_brackets(text.strip())
    items: list[str] = []
    for line in filter(None, map(str.strip, text.split("\n"))):
        cuts = [found.start() for found in re.finditer(",", mask(line))]
        parts = [line[a:b].strip() for a, b in zip([0, *(cut + 1 for cut in cuts)], [*cuts, len(line)], strict=True)]
        if not parts[-1]:  # a trailing comma
            parts.pop()
        if "" in parts:
            raise ValueError('has an empty item; write "" for empty text')
        items += parts
    for item in items:
        if item[0] in "\"'" and unquote(item) is None:
            raise ValueError(f"has the item {shorten(item)}, whose quotes do not match")
    return items


def shorten(text: str, limit: int = 80) -> str:
    """`repr` of the text, cut to `limit` characters."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def _without_brackets(text: str) -> str:
    """The text without one pair of brackets around the whole; `(a), (b)` has none such."""
    masked = mask(text)
    opened: list[int] = []
    partner_of_first = -1
    for position, character in enumerate(masked):
        if character in "[(":
            opened.append(position)
        elif character in "])":
            if not opened or masked[opened[-1]] + character not in ("[]", "()"):
                raise ValueError("has brackets that do not match")
            if opened.pop() == 0:
                partner_of_first = position
    if opened:
        raise ValueError("has brackets that do not match")
    return text[1:-1] if text and partner_of_first == len(text) - 1 else text


def _without_comment(text: str) -> str:
    found = _COMMENT.search(mask(text))
    return (text[: found.start()] if found else text).strip()


def _opens_quote(text: str) -> bool:
    """Whether the text begins with a quote that nothing closes (after brackets, where it is a list)."""
    start = text.lstrip("[( \t")
    return start[:1] in ("'", '"') and start[:1] not in start[1:]
