"""matplotlib figures as SVG inside a page: text stays text, and black follows the page's colour."""

import io
import re
from typing import Any
from xml.etree import ElementTree

from evaluation.report.markup import Markup

_INK = "#111213"  # stands for the page's own colour of text; nothing else is drawn in it
_FAINT = "#222222"  # of marks that are drawn in near black
SVG_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "menagerie", "svg.image_inline": True, "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"], "figure.facecolor": "none", "axes.facecolor": "none",
    "savefig.facecolor": "none", "text.color": _INK, "axes.labelcolor": _INK, "axes.titlecolor": _INK,
    "axes.edgecolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "grid.color": _INK, "grid.alpha": 0.15,
}  # fmt: skip


def inline_svg(figure: Any, prefix: str, label: str) -> Markup:
    """Draw a figure as an svg element.

    The element has neither style attributes nor a style sheet, which the page's security policy would refuse.

    Args:
        figure: figure that was made with `SVG_STYLE` in force.
        prefix: prefix of all ids, so that those of several figures in a page differ.
        label: text that says what the picture shows, for those who can't see it.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(stream.getvalue())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        element.attrib |= _declarations(element.attrib.pop("style", ""))
        element.attrib = {name: _changed(name, value, prefix) for name, value in element.attrib.items()}
    for parent in root.iter():
        for child in [child for child in parent if child.tag in ("metadata", "style")]:
            parent.remove(child)
    box = root.attrib["viewBox"]
    root.attrib = {"viewBox": box, "role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _declarations(style: str) -> dict[str, str]:
    """Turn the declarations of a style attribute into attributes of the same names."""
    pairs = (part.partition(":") for part in style.split(";") if part.strip())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _changed(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href" and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    if name == "font-family":
        return "system-ui, sans-serif"
    value = re.sub(r"url\(#", f"url(#{prefix}-", value)
    return "currentColor" if value in (_INK, _FAINT) else value
