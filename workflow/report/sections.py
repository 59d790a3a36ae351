"""The sections of a report that a workflow declares: tables, bars and curves of the files that its steps make."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from workflow.checks.result import UnusableError
from workflow.checks.tables import Row, field_of, numbers_of, read_rows
from workflow.definition.expression import filled
from workflow.definition.numbers import number_of
from workflow.definition.report_facts import Section
from workflow.estimates.spending import money

_BRACES = re.compile(r"\{([\w.]+)\}")
_LETTERS = 600  # of a text in a table
_SHARE, _MONEY = " %", " $"


@dataclass(frozen=True)
class Curve:
    """A curve of a file of metrics: its values, in order."""

    file: str
    field: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Bar:
    """A bar: what it is of, its length, and between which numbers that may lie; None where nobody has said."""

    name: str
    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class SectionContent:
    """What a section shows.

    Attributes:
        title: its heading.
        text: what is said first, or why there is nothing to show.
        heads: heads of its table; empty for a table of two columns without.
        rows: its table.
        bars: its bars.
        curves: its curves.
        more: rows that there are beyond those that are shown.
    """

    title: str
    text: str = ""
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    bars: tuple[Bar, ...] = ()
    curves: tuple[Curve, ...] = ()
    more: int = 0


def content_of_section(section: Section, settings: Mapping[str, object], folder: Path) -> SectionContent:
    """Read what a section shows.

    Args:
        section: the section.
        settings: settings of the preset.
        folder: the project's folder.
    """
    name, text = (str(filled(one, settings)) for one in (section.file, section.text))
    path = folder / name
    if not path.is_file():
        return SectionContent(section.title, f"{name} is not there yet.")
    try:
        return _SHOWN[section.kind](replace(section, file=name, text=text), settings, folder)
    except UnusableError as error:
        return SectionContent(section.title, str(error))


def _facts(section: Section, settings: Mapping[str, object], folder: Path) -> SectionContent:
    content = _json(folder / section.file)
    wanted = dict(section.fields) or {name: name for name in content} if isinstance(content, dict) else {}
    rows = [(name, shown) for name, field in wanted.items() if (shown := _shown(content, field))]
    return SectionContent(section.title, section.text, (), tuple(rows))


def _rows(section: Section, settings: Mapping[str, object], folder: Path) -> SectionContent:
    others = {}
    if section.beside:
        beside = folder / str(filled(section.beside, settings))
        others = {json.dumps(field_of(row, section.by)): row for row in read_rows(beside)} if beside.is_file() else {}
    found: list[tuple[str, ...]] = []
    more = 0
    heads: tuple[str, ...] = ()
    for name, row in _rows_at(section, folder / section.file):
        if any(field_of(row, key) != value for key, value in section.where.items()):
            continue
        if len(found) == section.most:
            more += 1
            continue
        whole = {**others.get(json.dumps(field_of(row, section.by)), {}), **row} if section.by else row
        fields = section.fields or {key: key for key in whole}
        found.append((*([name] if section.at else []), *(_shown(whole, field) for field in fields.values())))
        heads = (*([""] if section.at else []), *fields)
    return SectionContent(section.title, section.text, heads, tuple(found), more=more)


def _bars(section: Section, settings: Mapping[str, object], folder: Path) -> SectionContent:
    bars = []
    for name, row in _rows_at(section, folder / section.file):
        value = number_of(field_of(row, section.value))
        between = field_of(row, section.interval) if section.interval else None
        ends = [number_of(one) for one in between] if isinstance(between, list) and len(between) == 2 else []
        if value is not None and math.isfinite(value):
            low, high = ends if len(ends) == 2 else (None, None)
            bars.append(Bar(name, value, (low, high) if low is not None and high is not None else None))
    table = _rows(section, settings, folder) if section.fields else SectionContent(section.title, section.text)
    return SectionContent(section.title, section.text, table.heads, table.rows, tuple(bars), more=table.more)


def _curves(section: Section, settings: Mapping[str, object], folder: Path) -> SectionContent:
    name = section.file
    curves = [Curve(name, field, tuple(values)) for field in (section.fields or {"loss": "loss"}).values()
              if len(values := numbers_of(folder / name, field)) > 1]  # fmt: skip
    return SectionContent(section.title, section.text, curves=tuple(curves))


_SHOWN = {"facts": _facts, "rows": _rows, "bars": _bars, "curves": _curves}


def _rows_at(section: Section, path: Path) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a file with what each is called; in braces stand fields of it."""
    if not section.at:
        yield from (("", row) for row in read_rows(path))
        return
    content = _json(path)
    for name, place in section.at.items():
        there = field_of(content, place)
        for row in there if isinstance(there, list) else [there]:
            if isinstance(row, dict):
                yield _named(name, row), row


def _named(name: str, row: Row) -> str:
    return _BRACES.sub(lambda found: _text(field_of(row, found[1])), name)


def _json(path: Path) -> object:
    try:
        content: object = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UnusableError(f"{path.name} can't be read: {error}") from None
    return content


def _shown(content: object, field: str) -> str:
    """Return a field as people read it: `near %` as a share, `spent $` as money; "" where there is none."""
    if field.endswith((_SHARE, _MONEY)):
        value = field_of(content, field[:-2])
        numbers = [number_of(one) for one in (value if isinstance(value, list) else [value])]
        known = [number for number in numbers if number is not None]
        told = [f"{number:.1%}" if field.endswith(_SHARE) else money(number) for number in known]
        return " to ".join(told) if len(told) == len(numbers) else ""
    return _text(field_of(content, field))


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, list):
        numbers = [one for one in value if isinstance(one, int | float) and not isinstance(one, bool)]
        if len(value) == len(numbers) == 2:
            return f"{_text(value[0])} to {_text(value[1])}"
        return "; ".join(map(_text, value))[:_LETTERS]
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())[:_LETTERS]
    text = str(value)
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]} ..."
