"""What a workflow's report shows beside its steps: sections of files that steps make, and how the result is used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from workflow.definition.nodes import Node

KINDS = ("facts", "rows", "bars", "curves")
_KEYS = ("title", "text", *KINDS, "fields", "at", "value", "interval", "where", "beside", "most", "optional")
_MOST = 20


@dataclass(frozen=True)
class Section:
    """A section of a report.

    Attributes:
        title: its heading.
        kind: one of KINDS: fields of one JSON object; a table of rows; bars of rows with intervals; curves of rows.
        file: the file that it is of.
        text: what is said first.
        fields: what is shown, by what it is called: `chrf`, `teacher.0`, `near %`, `dollars $`. Empty for all.
        at: of bars and rows of a JSON file, where the rows are, by what each is called: {"step {step}": "students"}.
        value: of bars, the field that they are as long as.
        interval: of bars, the field of two numbers that they may lie between.
        where: values that a row must have to be shown.
        beside: another file whose row of the same key stands beside a row; "" for none.
        by: that key.
        most: rows that are shown.
        optional: whether it is left out where its file isn't there.
        line: where it stands in workflow.yaml.
    """

    title: str
    kind: str
    file: str
    text: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    at: Mapping[str, str] = field(default_factory=dict)
    value: str = ""
    interval: str = ""
    where: Mapping[str, object] = field(default_factory=dict)
    beside: str = ""
    by: str = ""
    most: int = _MOST
    optional: bool = False
    line: int = 0


@dataclass(frozen=True)
class Deployment:
    """How the result is used.

    Attributes:
        name: what clients call it.
        adapter: folder of an adapter in PEFT's form.
        base: the model that it is of.
    """

    name: str
    adapter: str
    base: str


def read_sections(node: Node | None) -> tuple[Section, ...]:
    """Read the value of the key `report`."""
    return tuple(one for each in (node.items("section") if node is not None else [])
                 if (one := _section(each)) is not None)  # fmt: skip


def read_deployment(node: Node | None) -> Deployment | None:
    """Read the value of the key `deployment`."""
    found = node.mapping(("name", "adapter", "base"), needed=("name", "adapter", "base")) if node is not None else None
    texts = {key: each.text() or "" for key, each in (found or {}).items()}
    return Deployment(**texts) if len(texts) == 3 else None


def texts_of(sections: Sequence[Section], deployment: Deployment | None) -> list[str]:
    """Return the texts in which settings may stand in braces."""
    own = [deployment.name, deployment.adapter, deployment.base] if deployment is not None else []
    return [*own, *(text for one in sections for text in (one.file, one.beside, one.text))]


def _section(node: Node) -> Section | None:
    found = node.mapping(_KEYS, needed=("title",))
    if found is None:
        return None
    kinds = [kind for kind in KINDS if kind in found]
    if len(kinds) != 1:
        shown = " and ".join(kinds) or "nothing to show"
        node.problem(f"has {shown}; needed is one of {', '.join(KINDS)}, with its file")
        return None
    kind = kinds[0]
    if kind == "bars" and ("value" not in found or "at" not in found):
        node.problem("lacks the key value or at: which field bars are as long as, and which rows they are of")
        return None
    beside = found["beside"].mapping(("file", "by"), needed=("file", "by")) if "beside" in found else None
    most = found["most"].whole() if "most" in found else None
    names = ("title", kind, "text", "value", "interval")
    text = {key: (found[key].text() or "") if key in found else "" for key in names}
    other = {key: each.text() or "" for key, each in (beside or {}).items()}
    where = (found["where"].mapping() or {}) if "where" in found else {}
    return Section(
        text["title"], kind, text[kind], text["text"], _named(found.get("fields")), _named(found.get("at")),
        text["value"], text["interval"], {key: each.plain() for key, each in where.items()}, other.get("file", ""),
        other.get("by", ""), most or _MOST, bool(found["optional"].flag()) if "optional" in found else False, node.line,
    )  # fmt: skip


def _named(node: Node | None) -> dict[str, str]:
    """Read names with what they stand for, or a list of what is called as it is."""
    if node is None:
        return {}
    if node.is_list():
        return {text: text for text in node.texts()}
    return {name: each.text() or "" for name, each in (node.mapping() or {}).items()}
