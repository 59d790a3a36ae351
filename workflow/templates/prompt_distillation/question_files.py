"""Reads questions from a file of rows: JSON lines, JSON, CSV or TSV. Nothing is dropped unsaid: bad rows are named.

A row has what is asked, and perhaps its setting and background. The columns are known by their names (`COLUMNS`), or
named by `--question`, `--setting` and `--background`. Answers that rows have are not used: the teacher gives them.
"""

import csv
import io
import json
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

COLUMNS = {
    "question": ("dialogue", "question", "prompt", "instruction", "messages", "conversations", "text"),
    "setting": ("setting", "scene", "location", "category"),
    "background": ("background", "context", "input"),
}
ANSWERS = ("output", "answer", "response", "completion", "chosen", "rejected")
SUFFIXES = {".jsonl": "JSON lines", ".ndjson": "JSON lines", ".json": "JSON", ".csv": "CSV", ".tsv": "CSV"}
LONGEST = 8000  # characters of a question
_LISTS = ("data", "rows", "questions", "examples", "train")  # where a JSON file that is one object keeps its rows
_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK": "a zip archive, as .xlsx files are",
              b"PAR1": "a Parquet file"}  # fmt: skip
_USERS, _SPEAKERS = ("user", "human"), ("role", "from", "speaker")
_SAID = ("content", "value", "text")
_INVISIBLE = re.compile(r"[\u200b-\u200f\u2060\ufeff\u00ad]")


class BadFile(SystemExit):
    """A file that can't be read at all; the text begins with `error:` and says where, and what is allowed."""

    def __init__(self, text):
        super().__init__(f"error: {text}")


@dataclass(frozen=True)
class Bad:
    """A row that can't be used: the file's line, why, and the row itself as far as it can be shown."""

    line: int
    why: str
    row: object


@dataclass(frozen=True)
class Question:
    """What a row asks: the file's line, and its texts; setting and background are "" where there is none."""

    line: int
    question: str
    setting: str
    background: str


@dataclass
class Table:
    """What is in a file.

    Attributes:
        path: the file.
        kind: `JSON lines`, `JSON` or `CSV`.
        rows: (line, row) of each row that can be read.
        bad: rows that can't be read or used, in the order of their lines.
        columns: how many rows have each column.
        taken: the column that is read as `question`, `setting` and `background`, where there is one.
        notes: what else is to be said aloud.
    """

    path: Path
    kind: str
    rows: list = field(default_factory=list)
    bad: list = field(default_factory=list)
    columns: Counter = field(default_factory=Counter)
    taken: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)

    def place(self, line):
        """Return file:line."""
        return f"{self.path}:{line}"


# --------------------------------------------------------------------------------------------------- rows of a file


def read_table(path):
    """Read a file's rows.

    Args:
        path: a file whose name ends in one of SUFFIXES.

    Returns:
        A Table, with rows that can't be read among `bad`.

    Raises:
        BadFile: there is no such file, it is of another kind, or nothing in it is a row.
    """
    path = Path(path)
    allowed = ", ".join(SUFFIXES)
    if not path.is_file():
        raise BadFile(f"there is no file {path}; {_what_is_there(path)}")
    if path.suffix.lower() not in SUFFIXES:
        raise BadFile(f"{path}: files that end in {path.suffix or 'nothing'} are not read; allowed are {allowed}. "
                      f"Save it "
                      "as one of these, and name it as `data`")  # fmt: skip
    content = path.read_bytes()
    for sign, kind in _ENCODINGS.items():
        if content.startswith(sign):
            raise BadFile(f"{path}:1: this is {kind}; allowed is text in UTF-8. Save it as UTF-8 (of a spreadsheet: "
                          f"`CSV "
                          "UTF-8`)")  # fmt: skip
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise BadFile(f"{path} is empty; a row for each question belongs there")
    table = Table(path, SUFFIXES[path.suffix.lower()])
    first = content.lstrip()[:1]
    if table.kind != "CSV" and first == b"[":
        table.kind = "JSON"
    elif table.kind == "JSON" and _is_json_lines(content):
        table.kind = "JSON lines"
    {"JSON lines": _read_json_lines, "JSON": _read_json, "CSV": _read_csv}[table.kind](table, content)
    table.columns = Counter(name for _, row in table.rows for name in row)
    if not table.rows and not table.bad:
        raise BadFile(f"{path}: there is no row, only {_lines(content)} line(s); a row for each question belongs there")
    return table


def _what_is_there(path):
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder} either"
    names = sorted(one.name for one in folder.iterdir() if one.suffix.lower() in SUFFIXES)
    near = get_close_matches(path.name, names, 1)
    if near:
        return f"did you mean {folder / near[0]}?"
    return f"{folder} has {', '.join(names[:8]) or 'no file of rows'}. Put yours there, and name it as `data`"


def _is_json_lines(content):
    lines = [line for line in content.splitlines() if line.strip()]
    if len(lines) < 2:
        return False
    try:
        return isinstance(json.loads(lines[0]), dict)
    except ValueError:
        return False


def _lines(content):
    return len(content.splitlines())


def _decoded(raw, table, line):
    """Return a line's text; None where it is no UTF-8, which is told."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = raw.decode("cp1252", "replace")
        table.bad.append(Bad(line, f"wrong encoding: byte {error.start + 1} of the line, 0x{raw[error.start]:02x}, is "
                                   f"no "
                                   f"UTF-8 (as Windows-1252 it reads "
                                   f"{shown[max(error.start - 8, 0):error.start + 8]!r}); "
                                   "save the file as UTF-8", shown))  # fmt: skip
        return None


def _read_json_lines(table, content):
    for line, raw in enumerate(content.split(b"\n"), 1):  # not splitlines: a row may have U+2028 in it
        if not raw.strip():
            continue
        text = _decoded(raw.rstrip(b"\r"), table, line)
        if text is None:
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            at = f"column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            why = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            table.bad.append(Bad(line, f"broken JSON at {at}: {why}; allowed is one object a line, "
                                       '{"setting": ..., "dialogue": ..., "background": ...}', text))  # fmt: skip
            continue
        _add(table, line, row)


def _add(table, line, row):
    if isinstance(row, dict):
        table.rows.append((line, row))
    else:
        table.bad.append(Bad(line, f"the row is {_kind_of(row)}; allowed is an object with named columns", row))


def _read_json(table, content):
    whole = Table(table.path, table.kind)
    text = _decoded(content, whole, 1)
    if text is None:
        line = 1
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            line += content[: error.start].count(b"\n")
        raise BadFile(f"{table.place(line)}: wrong encoding: not UTF-8; save the file as UTF-8")
    decoder, place = json.JSONDecoder(), re.compile(r"\s*")
    begin = place.match(text).end()
    try:
        if text[begin] == "{":
            rows = json.loads(text)
            name = next((one for one in _LISTS if isinstance(rows.get(one), list)), None)
            if name is None:
                raise BadFile(f"{table.place(1)}: the file is one object with {_named(rows)}; allowed is a list of "
                              f"rows, or "
                              f"an object that keeps it as {', '.join(_LISTS)}")  # fmt: skip
            table.notes.append(f"the rows are those of `{name}`")
            begin = text.index("[", text.index(f'"{name}"'))
        at = place.match(text, begin + 1).end()
        while text[at : at + 1] != "]":
            row, after = decoder.raw_decode(text, at)
            _add(table, text.count("\n", 0, at) + 1, row)
            at = place.match(text, after).end()
            if text[at : at + 1] == ",":
                at = place.match(text, at + 1).end()
            elif text[at : at + 1] != "]":
                raise json.JSONDecodeError("Expecting ',' or ']' after a row", text, at)
    except json.JSONDecodeError as error:
        raise BadFile(f"{table.place(error.lineno)}: broken JSON at column {error.colno}: {error.msg}; "
                      f"{len(table.rows)} rows "
                      "before it are whole. Mend it there, or save the rows as JSON lines, one object a "
                      "line") from None  # fmt: skip


def _read_csv(table, content):
    lines = content.split(b"\n")
    good = []
    for line, raw in enumerate(lines, 1):  # a line of another encoding stands for itself: its row is told and left
        text = _decoded(raw, table, line)
        good.append(raw.decode("cp1252", "replace") if text is None else text)
    wrong = {one.line for one in table.bad}
    text = "\n".join(good)
    delimiter = _delimiter(table, good[0])
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header, begin = None, 1
    while True:
        line = begin
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            begin = reader.line_num + 1
            open_quote = "end of data" in str(error)
            told = (
                f"a quote is opened and not closed: {begin - line} line(s) can't be read" if open_quote else str(error)
            )
            table.bad.append(Bad(line, f'{told}; allowed is "..." around a cell, and "" for a quote in it',
                                 "\n".join(good[line - 1 : begin - 1])))  # fmt: skip
            continue
        begin = reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            if twice := [name for name, count in Counter(header).items() if count > 1]:
                raise BadFile(f"{table.place(line)}: the column {twice[0] or '(no name)'} is there twice; allowed is "
                              f"each "
                              "name once")  # fmt: skip
        elif wrong.intersection(range(line, begin)):
            continue
        elif len(cells) != len(header):
            table.bad.append(Bad(line, f"{len(cells)} cells, where the first line names {len(header)} columns; put a "
                                       f"cell "
                                       f"that has a {delimiter!r}, a quote or a line break in it into "
                                       f"quotes", cells))  # fmt: skip
        else:
            table.rows.append((line, dict(zip(header, cells, strict=True))))
    table.bad.sort(key=lambda one: one.line)


def _delimiter(table, header):
    counts = {one: header.count(one) for one in ("\t", ",", ";")}
    if table.path.suffix.lower() == ".tsv":
        return "\t"
    delimiter = max(counts, key=counts.get)
    if not counts[delimiter]:
        return ","
    if delimiter != ",":
        table.notes.append(f"cells are divided by {delimiter!r}")
    return delimiter


# --------------------------------------------------------------------------------------------- what the rows ask


def recognise(table, **named):
    """Find out which columns are read.

    Args:
        table: what was read; `taken` and `notes` are added to.
        named: columns that are named by whoever called, of `question`, `setting` and `background`; None where not.

    Raises:
        BadFile: no column is a question, or one that was named is not there.
    """
    if not table.rows:
        return
    names = {_plain(name): name for name in table.columns if isinstance(name, str)}
    for what, known in COLUMNS.items():
        wanted = named.get(what)
        if wanted is not None:
            if wanted not in table.columns:
                raise BadFile(f"{table.path}: no row has the column {wanted} that --{what} names; there is "
                              f"{_named(table.columns)}")  # fmt: skip
            table.taken[what] = wanted
            continue
        here = [names[name] for name in known if name in names]
        if here:
            table.taken[what] = max(here, key=lambda name: table.columns[name])  # of as many, the first
            others = [one for one in here if one != table.taken[what]]
            if others and what == "question":
                table.notes.append(f"questions are read from `{table.taken[what]}`, not from {_named(others)}")
    if "question" not in table.taken:
        line = table.rows[0][0] if table.kind != "CSV" else 1
        near = [f"`{name}` (for {match[0]}?)" for plain, name in names.items()
                if (match := get_close_matches(plain, COLUMNS["question"], 1))]  # fmt: skip
        raise BadFile(f"{table.place(line)}: no column is a question; there is {_named(table.columns)}"
                      f"{', such as ' + near[0] if near else ''}. Allowed are {', '.join(COLUMNS['question'])}: "
                      "rename yours, or add `--question NAME` to the commands of the steps explore and validate in "
                      "workflow.yaml")  # fmt: skip
    answers = [names[name] for name in ANSWERS if name in names]
    if answers:
        table.notes.append(f"{_named(answers)} is not used: the teacher answers")
    if "input" in names and names["input"] == table.taken.get("background") and "instruction" in names:
        table.notes.append("`input` is read as the background; to ask it too, set `reads: background question`")


def questions_of(table):
    """Return the questions of a table; rows without one are added to its `bad`."""
    found = []
    several = system = 0
    for line, row in table.rows:
        texts, why = {}, ""
        for what in COLUMNS:
            name = table.taken.get(what)
            if name is None:
                texts[what] = ""
                continue
            if name not in row:
                if what == "question":
                    why = f"no column `{name}`; the row has {_named(row) or 'none'}"
                texts[what] = ""
                continue
            value = row[name]
            if isinstance(value, list) and what == "question":
                value, turns, has_system = _asked(value)
                several += turns > 1
                system += has_system
            if value is None:
                value = ""
            if not isinstance(value, str):
                why = why or f"`{name}` is {_kind_of(value)}; allowed is text"
                value = ""
            texts[what] = unicodedata.normalize("NFC", value.replace("\r\n", "\n")).strip()
        why = why or _why_unusable(texts, table.taken)
        if why:
            table.bad.append(Bad(line, why, row))
        else:
            found.append(Question(line, **texts))
    if several:
        table.notes.append(f"{several} conversations have several turns: the first question of each is read")
    if system:
        table.notes.append(f"{system} conversations have a system message of their own, which is not used")
    table.bad.sort(key=lambda one: one.line)
    return found


def _why_unusable(texts, taken):
    question = _INVISIBLE.sub("", texts["question"]).strip()
    if not question:
        return f"`{taken['question']}` is empty; a question belongs there"
    if not any(letter.isalnum() for letter in question):
        return f"`{taken['question']}` is {question[:20]!r}, without a letter or a number; a question belongs there"
    if len(question) > LONGEST:
        return f"`{taken['question']}` has {len(question):,} characters; allowed are {LONGEST:,}: shorten or divide it"
    for what, text in texts.items():
        if any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):
            return f"`{taken[what]}` has half a character (an escape such as \\ud83d alone); write it out in UTF-8"
        if "\0" in text:
            return f"`{taken[what]}` has a zero byte in it; take it out"
    return ""


def _asked(turns):
    """Return what the first user's message asks, how many of these there are, and whether a system message is there."""
    if turns and all(isinstance(one, str) for one in turns):
        return turns[0], (len(turns) + 1) // 2, False
    asked, system = [], False
    for one in turns:
        if not isinstance(one, dict):
            return one, 1, False
        who = next((str(one[name]).lower() for name in _SPEAKERS if name in one), "")
        said = next((one[name] for name in _SAID if name in one), None)
        if isinstance(said, list):  # parts, as of OpenAI's messages
            said = "".join(part.get("text", "") for part in said if isinstance(part, dict))
        system = system or who == "system"
        if who in _USERS:
            asked.append(said)
    return (asked[0] if asked else ""), len(asked), system


def alike(text):
    """Return a text as it is compared: without its case, and with single spaces."""
    return " ".join(_INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold().split())


def _plain(name):
    return name.strip().casefold()


def _named(names):
    names = [str(one) for one in names]
    return ", ".join(f"`{one}`" for one in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _kind_of(value):
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object", str: "text"}
    return f"{kinds.get(type(value), 'null')}, {json.dumps(value)[:40]}"


def writable(row):
    """Return a row as it can be written in UTF-8: one with half a character as JSON with escapes."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(row)
    return row


def tell_bad(table, bad, most=20):
    """Print bad rows, each with file:line."""
    for one in bad[:most]:
        print(f"{table.place(one.line)}: {one.why}")
    if len(bad) > most:
        print(f"... and {len(bad) - most} more")
