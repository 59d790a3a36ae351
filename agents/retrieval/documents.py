"""Documents are read and cut into passages that know where they are from."""

import importlib
import importlib.util
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

from agents.retrieval.passage import Passage
from data.data_error import DataError

READ = (".txt", ".md", ".markdown", ".html", ".htm", ".pdf")
_LONGEST = 900  # letters of a passage
_BLOCKS = (
    "p",
    "div",
    "li",
    "br",
    "tr",
    "table",
    "ul",
    "ol",
    "section",
    "article",
    "header",
    "footer",
    "pre",
    "dd",
    "dt",
)
_UNSEEN = ("script", "style", "noscript", "template", "svg", "head", "nav")


def passages_of(folder: Path) -> tuple[list[Passage], list[str]]:
    """Read all documents of a folder.

    Args:
        folder: the folder, or one document.

    Returns:
        The passages, and what was left out and why, a sentence each.

    Raises:
        DataError: there is no document that can be read.
    """
    paths = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    root = folder.parent if folder.is_file() else folder
    found, left_out = [], []
    for path in paths:
        name = path.relative_to(root).as_posix()
        if any(part.startswith(".") for part in Path(name).parts):
            continue
        try:
            found += list(_pieces(path, name))
        except (DataError, OSError) as error:
            left_out.append(f"{name} is left out: {getattr(error, 'strerror', None) or error}")
    if not found:
        told = ". ".join(left_out) or f"it has no file that ends with {', '.join(READ)}"
        raise DataError(f"{folder} has no document that can be read: {told}")
    return found, left_out


def _pieces(path: Path, name: str) -> Iterator[Passage]:
    kind = path.suffix.lower()
    if kind == ".pdf":
        for number, text in enumerate(_pdf_pages(path), 1):
            yield from _cut(name, [(f"page {number}", "", text)])
        return
    if kind not in READ:
        raise DataError(f"only files that end with {', '.join(READ)} are read")
    text = path.read_bytes().decode("utf-8", "replace")
    if "\0" in text:
        raise DataError("it is no text")
    if kind in (".html", ".htm"):
        page = _Page()
        page.feed(text)
        page.close()
        yield from _cut(name, page.paragraphs())
    else:
        yield from _cut(name, _paragraphs(text, marked=kind != ".txt"))


def _paragraphs(text: str, marked: bool) -> Iterator[tuple[str, str, str]]:
    """Yield place, heading and text of the paragraphs of a text; Markdown's headings where it is marked."""
    heading, lines, begin = "", list[str](), 1
    for number, line in enumerate([*text.splitlines(), ""], 1):
        title = re.match(r"#{1,6}\s+(.*?)\s*#*$", line) if marked else None
        if title or not line.strip():
            if lines:
                yield f"line {begin}", heading, " ".join(lines)
            lines, heading = [], title[1] if title else heading
        else:
            if not lines:
                begin = number
            lines.append(line.strip())


class _Page(HTMLParser):
    """The paragraphs of a page, with their headings."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[tuple[str, str, str]] = []
        self._heading, self._in_heading, self._unseen = "", False, 0
        self._text, self._line = list[str](), 1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a paragraph, a heading, or what is not seen."""
        if tag in _UNSEEN:
            self._unseen += 1
        elif re.fullmatch("h[1-6]", tag):
            self._end()
            self._in_heading = True
        elif tag in _BLOCKS:
            self._end()

    def handle_endtag(self, tag: str) -> None:
        """End what its beginning has begun."""
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif re.fullmatch("h[1-6]", tag):
            self._heading, self._text, self._in_heading = " ".join("".join(self._text).split()), [], False
        elif tag in _BLOCKS:
            self._end()

    def handle_data(self, data: str) -> None:
        """Take text that is seen."""
        if not self._unseen:
            if not self._text:
                self._line = self.getpos()[0]
            self._text.append(data)

    def _end(self) -> None:
        text = " ".join("".join(self._text).split())
        if text and not self._in_heading:
            self._found.append((f"line {self._line}", self._heading, text))
        self._text = []

    def paragraphs(self) -> list[tuple[str, str, str]]:
        """Return place, heading and text of each paragraph."""
        self._end()
        return self._found


def _pdf_pages(path: Path) -> list[str]:
    if importlib.util.find_spec("pypdf") is None:
        raise DataError("PDF is read by the package pypdf, which is not installed: pip install pypdf")
    pypdf = importlib.import_module("pypdf")
    try:
        return [" ".join((page.extract_text() or "").split()) for page in pypdf.PdfReader(path).pages]
    except Exception as error:  # whatever a broken file makes it raise
        raise DataError(f"it is no PDF that can be read: {error}") from None


def _cut(name: str, paragraphs: Iterable[tuple[str, str, str]]) -> Iterator[Passage]:
    """Yield passages: paragraphs of one heading together as long as they are short, long ones cut at sentences."""
    texts, where, title, size = list[str](), "", "", 0
    for place, heading, text in paragraphs:
        for piece in _sentences(text):
            if texts and (heading != title or size + len(piece) > _LONGEST):
                yield _passage(name, where, title, texts)
                texts, size = [], 0
            if not texts:
                where, title = place, heading
            texts.append(piece)
            size += len(piece) + 1
    if texts:
        yield _passage(name, where, title, texts)


def _passage(name: str, where: str, title: str, texts: list[str]) -> Passage:
    source = ", ".join(part for part in (name, f'"{title}"' if title else "", where) if part)
    return Passage(" ".join(texts), source, title)


def _sentences(text: str) -> Iterator[str]:
    """Yield a paragraph whole where it is short, else cut at the ends of sentences, and of words."""
    while len(text) > _LONGEST:
        at = max(text.rfind(end, 0, _LONGEST) for end in (". ", "! ", "? ", "\u3002"))
        at = at + 1 if at > 0 else text.rfind(" ", 0, _LONGEST) if " " in text[:_LONGEST] else _LONGEST
        at = at if at > 0 else _LONGEST
        yield text[:at].strip()
        text = text[at:].strip()
    if text:
        yield text


def passages_in(database: Path, query: str) -> list[Passage]:
    """Read the rows of a database: their columns are the text, `title`, `id` and the like their citation.

    Args:
        database: a SQLite file; it is opened for reading only.
        query: the query.

    Raises:
        DataError: it can't be read, the query fails, or gives no row.
    """
    found = []
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            cursor = connection.execute(query)
            names = [str(column[0]) for column in cursor.description or ()]
            for number, row in enumerate(cursor, 1):
                values = {name: str(value) for name, value in zip(names, row, strict=True) if value is not None}
                lower = {name.lower(): value for name, value in values.items()}
                title = lower.get("title") or lower.get("name") or ""
                where = f"id {lower['id']}" if "id" in lower else f"row {number}"
                parts = [value if name.lower() in ("text", "content", "body") else f"{name}: {value}"
                         for name, value in values.items() if name.lower() not in ("id", "title")]  # fmt: skip
                found += list(_cut(database.name, [(where, title, "; ".join(parts))]))
    except sqlite3.Error as error:
        raise DataError(f"{database}: {error}; the query is {query!r}") from None
    if not found:
        raise DataError(f"{database}: the query gives no row: {query!r}")
    return found
