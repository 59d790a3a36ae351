"""Config classes as documentation: what each key means, read from the source; and instances as ini text."""

import ast
import inspect
import io
import textwrap
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.config_classes import (
    MISSING,
    class_problems,
    declares,
    key_types,
    lineage,
    own_default,
    section_name,
)
from config.config_error import ConfigError
from config.config_values import BadValue, absolute, value_text, write_value
from config.config_wording import type_text
from config.ini_reader import shorten
from constants import PACKAGE_ROOT, PROJECT_ROOT


@dataclass(frozen=True)
class FieldDoc:
    """One key of a config class, for tables and help."""

    name: str
    type: str
    """Such as `float > 0`."""
    default: str
    """As ini text; `required` where there is none. Paths in the project, or the program, are relative to its root."""
    doc: str
    """The docstring under the field, else the comment behind it, else empty; one line."""
    declared_in: str
    """Name of the class whose declaration holds."""


def describe(config_class: type) -> list[FieldDoc]:
    """Document a config class's keys from its source.

    Args:
        config_class: a config dataclass.

    Returns:
        One FieldDoc a key, in the order of the fields, inherited ones first.

    Raises:
        ConfigError: it is no proper config dataclass.
    """
    if problems := class_problems(config_class):
        raise ConfigError(problems)
    family = lineage(config_class)
    docs = {base: _field_docs(base) for base in family}
    rows = []
    for key, hint in key_types(config_class).items():
        declaring = [base for base in family if declares(base, key)]
        default = next((value for base in declaring if (value := own_default(base, key)) is not MISSING), MISSING)
        doc = next((docs[base][key] for base in declaring if docs[base].get(key)), "")
        rows.append(FieldDoc(key, type_text(hint), shown_value(default), doc, declaring[0].__name__))
    return rows


def shown_value(default: Any) -> str:
    """Write a value, or a default, as ini text; paths in the project, or the program, relative to its root."""
    if default is MISSING:
        return "required"
    for root in (PROJECT_ROOT, PACKAGE_ROOT):
        if isinstance(default, Path) and default.is_relative_to(root):
            return str(default.relative_to(root))
    return value_text(default)


def _field_docs(config_class: type) -> dict[str, str]:
    """What the class's source says about each field that it declares; empty where the source is not to be had."""
    try:
        source = textwrap.dedent(inspect.getsource(config_class))
        node = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return {}
    if not isinstance(node, ast.ClassDef):
        return {}
    comments = {
        token.start[0]: token.string.lstrip("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    docs = {}
    for part, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not (isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)):
            continue
        constant = after.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
        text = constant.value if constant is not None and isinstance(constant.value, str) else None
        docs[part.target.id] = " ".join((text or comments.get(part.end_lineno or 0, "")).split())
    return docs


def dump(instance: Any) -> str:
    """A config instance as ini text: one section with all keys, which reads back as an equal instance.

    Args:
        instance: instance of a config dataclass.

    Returns:
        The text, ending in a newline. Paths are absolute.

    Raises:
        ConfigError: values that no ini text can give back, such as one that its type does not allow.
    """
    config_class: type = type(instance)
    if problems := class_problems(config_class):
        raise ConfigError(problems)
    section = section_name(config_class)
    lines, problems = [f"[{section}]"], []
    for key, hint in key_types(config_class).items():
        value = absolute(getattr(instance, key), Path.cwd())
        try:
            lines.append(f"{key} = {write_value(hint, value)}")
        except BadValue as error:
            problems.append(f"[{section}] {key} = {shorten(str(value))} cannot be written: {error}")
    if problems:
        raise ConfigError(problems)
    return "\n".join(lines) + "\n"
