"""Lays source text out as the project's formatter does it."""

from collections.abc import Sequence
from typing import Any

WIDTH = 120


def literal_text(value: Any) -> str:
    """Python text of a plain value: double quotes."""
    if isinstance(value, str) and '"' not in value:
        return '"' + repr(f"'{value}")[2:]
    if type(value) is tuple:
        return f"({', '.join(map(literal_text, value))}{',' if len(value) == 1 else ''})"
    return f"[{', '.join(map(literal_text, value))}]" if type(value) is list else repr(value)


def call(before: str, arguments: Sequence[str], indent: int = 8) -> list[str]:
    """A call on one line, or its arguments on a line of their own, or each on its own.

    Args:
        before: text before the opening bracket, such as `self.train_loader = TensorLoader`.
        arguments: text of each argument.
        indent: spaces before the first line.
    """
    space, joined = " " * indent, ", ".join(arguments)
    if len(f"{space}{before}({joined})") <= WIDTH:
        return [f"{space}{before}({joined})"]
    if len(f"{space}    {joined}") <= WIDTH:
        return [f"{space}{before}(", f"{space}    {joined}", f"{space})"]
    return [f"{space}{before}(", *(f"{space}    {argument}," for argument in arguments), f"{space})"]


def title(text: str, more: str) -> str:
    """A module's docstring; what is less needed goes where the names are long.

    Args:
        text: text of the docstring, without the full stop.
        more: further text, left out where the line would be too long.
    """
    return f'"""{text}{more}."""' if len(f"{text}{more}") <= WIDTH - 7 else f'"""{text}."""'


def import_line(module: str, *names: str) -> str:
    """An import on one line, or one name a line."""
    names = tuple(sorted(set(names)))
    line = f"from {module} import {', '.join(names)}"
    return (
        line if len(line) <= WIDTH else "\n".join([f"from {module} import (", *(f"    {name}," for name in names), ")"])
    )


def sorted_imports(imports: Sequence[str]) -> list[str]:
    """Put imports into the order of their modules."""
    return sorted(imports, key=lambda line: line.split()[1].lower())
