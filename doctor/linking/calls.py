"""Keywords: which ones functions and classes take, and with which ones they are called."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# A call under such a condition, or in a function that asks so, knows what it calls.
_KNOWS = re.compile(r"version|signature|parameters|hasattr|inspect|is_\w+_|PY3|_fields__", re.IGNORECASE)
_PLAIN_DECORATORS = {"staticmethod", "classmethod", "final", "override", "abstractmethod"}
# Nodes that no call lies in.
_LEAVES = {ast.Name, ast.Constant, ast.Load, ast.Store, ast.Del, ast.alias, ast.Import, ast.ImportFrom, ast.Pass, str,
           ast.Add, ast.Sub, ast.And, ast.Or, ast.Eq, ast.In, ast.Is, ast.IsNot, ast.NotIn, ast.NotEq, ast.Not,
           type(None), ast.arguments}  # fmt: skip


@dataclass(frozen=True)
class Signature:
    """Which keywords a function or class takes.

    Args:
        keywords: names that it takes; None where it takes any, or nobody can say.
        bases: for a class without __init__, or whose __init__ hands all on: the classes that say, as they stand there.
        also: keywords that it takes out before it hands the rest on.
    """

    keywords: tuple[str, ...] | None
    bases: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


def signatures(tree: ast.Module) -> dict[str, Signature]:
    """Return the signatures of a module's functions and classes by name; of one defined twice, that nobody can say.

    Args:
        tree: the module.
    """
    found: dict[str, Signature] = {}
    for node in _statements(tree.body):
        name = getattr(node, "name", "")
        one: Signature | None = None
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            one = Signature(_taken(node, skip=0)) if not node.decorator_list else Signature(None)
        elif isinstance(node, ast.ClassDef):
            one = _of_class(node)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            value = ast.unparse(node.value) if isinstance(node.value, ast.Name | ast.Attribute) else ""
            one = Signature(None, (value,)) if value else Signature(None)
        if one and name:
            found[name] = one if name not in found else Signature(None)
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from _statements(node.body)
            yield from _statements(node.orelse)
        elif isinstance(node, ast.Try):
            yield from _statements([*node.body, *node.orelse])
            for handler in node.handlers:
                yield from _statements(handler.body)
        else:
            yield node


def _of_class(node: ast.ClassDef) -> Signature:
    if node.keywords or node.decorator_list:
        return Signature(None)
    inits = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name in ("__init__", "__new__")]
    bases = tuple(ast.unparse(one) for one in node.bases if isinstance(one, ast.Name | ast.Attribute))
    if not inits:
        return Signature(None, bases if len(bases) == len(node.bases) == 1 else ())
    if len(inits) > 1 or inits[0].name == "__new__":
        return Signature(None)
    init = inits[0]
    taken = _taken(init, skip=1)
    if taken is not None or init.args.kwarg is None or len(bases) != 1 or len(node.bases) != 1:
        return Signature(taken)
    return Signature(None, bases, _own(init)) if _hands_on(init, init.args.kwarg.arg) else Signature(None)


def _taken(node: ast.FunctionDef | ast.AsyncFunctionDef, skip: int) -> tuple[str, ...] | None:
    if node.args.kwarg is not None or any(_last(one) not in _PLAIN_DECORATORS for one in node.decorator_list):
        return None
    return tuple(one.arg for one in [*node.args.args[skip:], *node.args.kwonlyargs])


def _own(node: ast.FunctionDef) -> tuple[str, ...]:
    return tuple(one.arg for one in [*node.args.args[1:], *node.args.kwonlyargs])


def _hands_on(init: ast.FunctionDef, rest: str) -> bool:
    """Return whether an __init__ does no more with its further keywords than add some and hand all on."""
    handed = False
    for node in ast.walk(init):
        if isinstance(node, ast.Name) and node.id == rest:
            continue
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__":
            handed = handed or any(one.arg is None and ast.unparse(one.value) == rest for one in node.keywords)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (f"{rest}.pop", f"{rest}.get", "dict", "filter"):
            return False
        if isinstance(node, ast.Delete | ast.DictComp):
            return False
    return handed


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _last(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def keyword_calls(tree: ast.Module, bindings: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...], int, str]]:
    """Yield calls with keywords that no condition or handler looks after.

    Args:
        tree: the module.
        bindings: the names that stand for what was imported; classes of the module itself count too.

    Yields:
        The callee ("httpx.Client", "Name", or "super:Name" for super().__init__ in the class Name), the keywords, the
        line, and the function or class around it.
    """
    local = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.bases}
    foreign = {name for name, place in bindings.items() if not place.startswith(".")}
    if not foreign and not local:
        return
    known = set(bindings) | local
    stack: list[tuple[ast.AST, str, str]] = [(tree, "", "")]
    while stack:
        node, owner, function = stack.pop()
        if isinstance(node, ast.Try) and node.handlers:
            continue
        if isinstance(node, ast.If | ast.IfExp) and _KNOWS.search(ast.unparse(node.test)):
            continue
        if isinstance(node, ast.ClassDef):
            owner = node.name if not function else ""
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = f"{owner}.{node.name}" if owner else node.name
        elif isinstance(node, ast.Call) and node.keywords:
            names = tuple(one.arg for one in node.keywords if one.arg)
            callee = ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""
            if names and callee == "super().__init__" and owner and function == f"{owner}.__init__":
                yield f"super:{owner}", names, node.lineno, function
            elif names and re.fullmatch(r"[\w.]+", callee) and callee.split(".")[0] in known:
                yield callee, names, node.lineno, function
        for name in node._fields:
            part = getattr(node, name, None)
            if part.__class__ is list:
                for one in part:
                    if one.__class__ not in _LEAVES:
                        stack.append((one, owner, function))
                    if one.__class__ is ast.If and _leaves_knowing(one):
                        break
            elif isinstance(part, ast.AST) and part.__class__ not in _LEAVES:
                stack.append((part, owner, function))


def _leaves_knowing(node: ast.If) -> bool:
    """Return whether a condition that asks for a version ends the function: what follows is for the others."""
    return isinstance(node.body[-1], ast.Return | ast.Raise) and bool(_KNOWS.search(ast.unparse(node.test)))
