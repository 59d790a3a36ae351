"""HTML as nested calls: `tag("p", text)`. What is not `Markup` is text from somewhere and is escaped."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

_VOID = ("meta", "img")
# A page may not hold control characters, which a log may, except tabs and line ends; nor halves of characters, which
# names of files that are no UTF-8 have.
_UNFIT = [number for number in range(32) if number not in (9, 10)] + [*range(127, 160), *range(0xD800, 0xE000)]
_REPLACED = dict.fromkeys(_UNFIT, "\N{REPLACEMENT CHARACTER}")


class Markup(str):
    """Text that is HTML already."""


def escaped(text: Any) -> Markup:
    """Make text harmless inside an element or a quoted attribute."""
    return text if isinstance(text, Markup) else Markup(html.escape(str(text).translate(_REPLACED)))


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """Make an element.

    Args:
        name: name of the element, such as `td`.
        children: content of the element: `Markup`, or anything else as text; None is left out.
        attributes: attributes of the element: `class_` for class, `aria_label` for aria-label; True for one without a
            value, None leaves it out.
    """
    words = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is not None:
            words.append(key if value is True else f'{key}="{escaped(value)}"')
    start = f"<{' '.join(words)}>"
    return Markup(start if name in _VOID else f"{start}{joined(children)}</{name}>")


def joined(parts: Iterable[Any], between: str = "") -> Markup:
    """Put parts one after another; None is left out."""
    return Markup(between.join(escaped(part) for part in parts if part is not None))


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], caption: str, marked: Iterable[int] = ()) -> Markup:
    """Make a table that scrolls by itself where it is wider than the page; each row's first cell is its heading.

    Args:
        head: a heading for each column.
        rows: cells of each row; those of a column of numbers stand to the right.
        caption: text that says what the table holds, for those who can't see the page.
        marked: numbers of rows to stand out.
    """
    marked, rows = set(marked), [list(row) for row in rows]
    numeric = [bool(rows) and all(is_number(row[place]) for row in rows) for place in range(len(head))]
    kinds = ["number" if place and numbers else None for place, numbers in enumerate(numeric)]
    body = [
        tag("tr", tag("th", row[0], scope="row"),
            *(tag("td", cell, class_=kind) for cell, kind in zip(row[1:], kinds[1:], strict=True)),
            class_="marked" if number in marked else None)
        for number, row in enumerate(rows)
    ]  # fmt: skip
    titles = [tag("th", title, scope="col", class_=kind) for title, kind in zip(head, kinds, strict=True)]
    whole = tag("table", tag("caption", caption), tag("thead", tag("tr", *titles)), tag("tbody", *body))
    return tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)


def details(summary: str, *children: Any) -> Markup:
    """Make a part that is shown when it is asked for."""
    return tag("details", tag("summary", summary), *children)


def is_number(cell: Any) -> bool:
    """Say whether a cell's text is a number, or stands for one that there is not."""
    try:
        float(str(cell).replace(",", "") if cell not in ("", "-") else 0)
    except ValueError:
        return False
    return True
