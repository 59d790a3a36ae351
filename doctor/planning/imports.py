"""What a script imports that is neither of the standard library nor beside it."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from doctor.errors import InputError

_ABSENT = ("ImportError", "ModuleNotFoundError", "Exception")


@dataclass(frozen=True)
class Imported:
    """An import of a script.

    Args:
        module: as it stands: "google.protobuf.message".
        line: number of its line.
        optional: whether the script goes on without it: in `try` with `except ImportError`, or for types alone.
    """

    module: str
    line: int
    optional: bool = False

    @property
    def top(self) -> str:
        """The top-level module."""
        return self.module.partition(".")[0]


def imports_of(text: str, path: Path) -> tuple[Imported, ...]:
    """Return a script's imports of others' modules, each top-level module and namespace once, in their order.

    Args:
        text: the script.
        path: where it lies: modules beside it are its own.

    Raises:
        InputError: it is no Python.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise InputError(f"{path}:{error.lineno or 1}: no Python: {error.msg}") from None
    except ValueError as error:
        raise InputError(f"{path}: no Python: {error}") from None
    found: dict[str, Imported] = {}
    for one in _walk(tree, False):
        if one.top in sys.stdlib_module_names or one.top == "__future__" or _is_own(one.top, path.parent):
            continue
        known = found.get(one.module)
        if known is None or (known.optional and not one.optional):
            found[one.module] = one if known is None else Imported(one.module, known.line)
    # `import torch.nn` says no more than `import torch`.
    return tuple(one for one in found.values() if one.module == one.top or one.top not in found)


def _is_own(name: str, folder: Path) -> bool:
    return (
        (folder / f"{name}.py").is_file()
        or (folder / name / "__init__.py").is_file()
        or any((folder / name).glob("*.py"))
    )


def _walk(node: ast.AST, optional: bool) -> Iterator[Imported]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Imported(alias.name, child.lineno, optional) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            if child.module and not child.level:
                yield Imported(child.module, child.lineno, optional)
        elif isinstance(child, ast.Call) and ast.unparse(child.func) in (
            "importlib.import_module",
            "import_module",
            "__import__",
        ):
            first = child.args[0] if child.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and not first.value.startswith("."):
                yield Imported(first.value, child.lineno, optional)
        elif isinstance(child, ast.Try):
            caught = any(
                handler.type is None or any(name in ast.unparse(handler.type) for name in _ABSENT)
                for handler in child.handlers
            )
            for part in child.body:
                yield from _walk(ast.Module([part], []), optional or caught)
            for handler in child.handlers:
                yield from _walk(handler, optional)
            for part in (*child.orelse, *child.finalbody):
                yield from _walk(ast.Module([part], []), optional)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for part in child.body:
                yield from _walk(ast.Module([part], []), True)
            for part in child.orelse:
                yield from _walk(ast.Module([part], []), optional)
        else:
            yield from _walk(child, optional)
