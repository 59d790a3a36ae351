"""Small readings of a syntax tree: names, strings and tables, as a source file writes them."""

import ast
from collections.abc import Iterator


def parameters_of(node: ast.FunctionDef | ast.AsyncFunctionDef, method: bool) -> Iterator[str]:
    """Yield the keywords that a function takes, "**" where it takes all."""
    named = node.args.args
    if method:
        named = named[1:] if not node.args.posonlyargs else named
    for one in [*named, *node.args.kwonlyargs]:
        yield one.arg
    if node.args.kwarg:
        yield "**"
    for decorator in node.decorator_list:
        # A decorator that still takes a keyword's old name.
        if isinstance(decorator, ast.Call) and "deprecate_kwarg" in (last_word(decorator.func) or ""):
            old = [part for part in decorator.args[:1] if isinstance(part, ast.Constant)]
            old += [part.value for part in decorator.keywords
                    if part.arg in ("old_name", "old_kwarg") and isinstance(part.value, ast.Constant)]  # fmt: skip
            yield from (part.value for part in old if isinstance(part.value, str))


def dotted_name(node: ast.AST) -> str | None:
    """Return "a.b.c" of names and attributes, None of anything else."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Subscript):  # Generic[T]
        return dotted_name(node.value) if not parts else None
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])


def last_word(node: ast.AST | None) -> str | None:
    """Return the last word of a dotted name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def called_name(node: ast.AST) -> str | None:
    """Return the last word of what is called, or of a name that stands alone."""
    return last_word(node.func if isinstance(node, ast.Call) else node)


def root_name(node: ast.AST) -> str | None:
    """Return the variable that a subscript or an attribute belongs to."""
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def alternatives(node: ast.expr | None) -> list[ast.expr | None]:
    return list(node.elts) if isinstance(node, ast.Tuple) else [node]


def strings_in(node: ast.AST) -> Iterator[str]:
    """Yield the strings of a list, tuple or set, also of several that are added."""
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        for part in node.elts:
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value
            elif isinstance(part, ast.Starred):
                yield from strings_in(part.value)
    elif isinstance(node, ast.BinOp):
        yield from strings_in(node.left)
        yield from strings_in(node.right)


def offered_names(node: ast.AST, below: bool) -> Iterator[str]:
    """Yield the names that a table offers: {"module": ["Name"]}, {"Name": "module"} or a list of names.

    Args:
        node: the table.
        below: whether it is put into another table, where a string alone is a name.
    """
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(value, (ast.List, ast.Set)) or (isinstance(value, ast.Tuple) and _is_names(value)):
                yield from strings_in(value)
            elif isinstance(key, ast.Constant) and isinstance(key.value, str) and not isinstance(value, ast.Dict):
                yield key.value
            elif isinstance(value, ast.Dict):
                yield from offered_names(value, below)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and below:
        yield node.value
    else:
        yield from strings_in(node)


def _is_names(node: ast.Tuple) -> bool:
    """Whether a tuple holds names rather than a place: ("module", "attribute")."""
    return len(node.elts) > 2 and all(isinstance(one, ast.Constant) for one in node.elts)


def keys_of(node: ast.AST) -> Iterator[str]:
    """Yield the keys of a dictionary, or of the pairs that make one."""
    if isinstance(node, ast.Dict):
        yield from (key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str))
    elif isinstance(node, ast.Call):
        for part in node.args:
            yield from keys_of(part)
    elif isinstance(node, ast.List):
        for pair in node.elts:
            if isinstance(pair, ast.Tuple) and pair.elts and isinstance(pair.elts[0], ast.Constant):
                yield str(pair.elts[0].value)
