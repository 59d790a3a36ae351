"""Names that a module offers only when they are asked for: tables of lazy modules, and what __getattr__ knows."""

import ast
import re
from dataclasses import dataclass

_TABLE = re.compile(r"^_*(?:import_structure|submod_attrs|lazy_imports|import_map|lookup|dynamic_imports|module_lookup"
                    r"|lazy_modules|lazy_attrs|lazy_imports_dict|import_structure_\w+)$", re.IGNORECASE)  # fmt: skip
_LAZY_CALLS = (
    "_LazyModule",
    "LazyModule",
    "_attach",
    "attach",
    "attach_stub",
    "_LazyConfigModule",
    "OptionalDependencyNotAvailable",
)


@dataclass(frozen=True)
class LazyNames:
    """What a module offers when it is asked.

    Args:
        names: each name with the submodule that has it, relative to the module; "" where that is not told.
        closed: whether it offers no more than these and what its text binds.
        folders: submodules whose own __all__ add to the names ("models").
        refused: names that it knows only to refuse them.
        stub: whether the names are those of the .pyi file beside it.
    """

    names: tuple[tuple[str, str], ...] = ()
    closed: bool = False
    folders: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    stub: bool = False


def lazy_names(tree: ast.Module, source: str) -> LazyNames | None:
    """Return what a module offers when asked, None where nothing of the kind stands in it.

    Args:
        tree: the module.
        source: its source.
    """
    has_getattr = "def __getattr__" in source
    called = [name for name in _LAZY_CALLS if f"{name}(" in source]
    if not has_getattr and not called:
        return None
    tables = _Tables()
    tables.block(tree.body)
    folders = tuple(tables.folders)
    if called and tables.names:
        return LazyNames(tuple(tables.names.items()), True, folders, stub="attach_stub" in called)
    if called and ("attach_stub" in called or folders):
        return LazyNames((), True, folders, stub="attach_stub" in called)
    asked = next((node for node in _functions(tree.body) if node.name == "__getattr__"), None)
    if asked is None:
        return LazyNames(closed=False)
    known = _Getattr(asked, tables.literals)
    return LazyNames(tuple((name, "") for name in known.offered), known.closed, (), tuple(sorted(known.refused)))


def _functions(body: list[ast.stmt]) -> list[ast.FunctionDef]:
    found = []
    for node in body:
        if isinstance(node, ast.FunctionDef):
            found.append(node)
        elif isinstance(node, ast.If | ast.Try):
            found += _functions(node.body) + _functions(node.orelse)
    return found


class _Tables:
    """Reads tables of lazy modules, on whatever branch their entries are made."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.folders: list[str] = []
        self.literals: dict[str, set[str]] = {}

    def block(self, body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.Assign):
                self.assigned(node)
            elif isinstance(node, ast.AnnAssign | ast.AugAssign):
                self.value(node.target, node.value or node.target)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                self.called(node.value)
            elif isinstance(node, ast.If | ast.Try | ast.With | ast.For):
                self.block(node.body)
                self.block(getattr(node, "orelse", []))
                for handler in getattr(node, "handlers", []):
                    self.block(handler.body)

    def assigned(self, node: ast.Assign) -> None:
        for target in node.targets:
            self.value(target, node.value)
        call = node.value if isinstance(node.value, ast.Call) else None
        for part in call.args + [one.value for one in call.keywords] if call else ():
            if ast.unparse(call.func).split(".")[-1] in _LAZY_CALLS if call else False:
                self.table(part)

    def value(self, target: ast.expr, value: ast.expr) -> None:
        """Read `table = {...}` and `table["x"] = [...]`."""
        if isinstance(target, ast.Name):
            if isinstance(value, ast.Dict | ast.Set | ast.List | ast.Tuple):
                parts = value.keys if isinstance(value, ast.Dict) else value.elts
                texts = {one.value for one in parts if isinstance(one, ast.Constant) and isinstance(one.value, str)}
                self.literals[target.id] = texts
            if _TABLE.match(target.id):
                self.table(value)
        elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and _TABLE.match(target.value.id):
            key = target.slice.value if isinstance(target.slice, ast.Constant) else ""
            self.entry(str(key), value)

    def called(self, call: ast.Call) -> None:
        """Read `table["x"].append("Y")`, `.extend([...])` and `table.update({...})`."""
        if not isinstance(call.func, ast.Attribute) or not call.args:
            return
        owner = call.func.value
        if isinstance(owner, ast.Subscript) and isinstance(owner.value, ast.Name) and _TABLE.match(owner.value.id):
            key = owner.slice.value if isinstance(owner.slice, ast.Constant) else ""
            self.entry(str(key), call.args[0])
        elif isinstance(owner, ast.Name) and _TABLE.match(owner.id) and call.func.attr == "update":
            self.table(call.args[0])

    def table(self, value: ast.expr) -> None:
        if isinstance(value, ast.Call) and "import_structure" in ast.unparse(value.func):
            found = [
                one.value for one in ast.walk(value) if isinstance(one, ast.Constant) and isinstance(one.value, str)
            ]
            self.folders.append(found[-1] if found else "")
        if not isinstance(value, ast.Dict):
            return
        for key, names in zip(value.keys, value.values, strict=True):
            if key is None:
                self.table(names)
            elif isinstance(key, ast.Constant) and isinstance(key.value, str):
                self.entry(key.value, names)

    def entry(self, key: str, value: ast.expr) -> None:
        """Take up {"submodule": ["Name", ...]} or {"Name": "submodule"}."""
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            if (
                value.value
                and not value.value.startswith(".")
                and key
                and key[:1].islower()
                and value.value[:1].isupper()
            ):
                self.names.setdefault(value.value, key)  # table["x"].append("Name")
            else:
                self.names.setdefault(key, value.value)
                self.names.setdefault(value.value, key)
            return
        self.names.setdefault(key.split(".")[0], "")
        for one in ast.walk(value):
            if isinstance(one, ast.Constant) and isinstance(one.value, str):
                self.names.setdefault(one.value, key)


class _Getattr:
    """What a module's __getattr__ does with a name, as far as its tests say."""

    def __init__(self, function: ast.FunctionDef, literals: dict[str, set[str]]) -> None:
        self.offered: set[str] = set()
        self.refused: set[str] = set()
        self.literals = literals
        self.parameter = function.args.args[0].arg if function.args.args else "name"
        self.closed = bool(function.body) and self.reads(function.body)

    def reads(self, body: list[ast.stmt]) -> bool:
        """Return whether statements offer only names that their tests show, and end by refusing."""
        for node in body:
            if isinstance(node, ast.Raise):
                return True
            if isinstance(node, ast.Import | ast.ImportFrom):
                continue
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue
            if isinstance(node, ast.Expr) and "warn" in ast.unparse(node.value):
                continue
            if not isinstance(node, ast.If):
                return False
            asked = self.asked(node.test)
            if asked is None:
                return False
            only_raises = all(isinstance(one, ast.Raise | ast.Import | ast.ImportFrom) for one in node.body)
            (self.refused if only_raises else self.offered).update(asked - self.offered)
            if node.orelse:
                return self.reads(node.orelse)
        return False

    def asked(self, test: ast.expr) -> set[str] | None:
        """Return the names for which a test holds, None where it isn't one of names."""
        if isinstance(test, ast.BoolOp):
            found = [self.asked(one) for one in test.values]
            if isinstance(test.op, ast.Or):
                return None if None in found else set().union(*(one for one in found if one is not None))
            return next((one for one in found if one is not None), None)
        if not isinstance(test, ast.Compare) or len(test.ops) != 1 or ast.unparse(test.left) != self.parameter:
            return None
        right = test.comparators[0]
        if isinstance(test.ops[0], ast.Eq) and isinstance(right, ast.Constant):
            return {str(right.value)}
        if isinstance(test.ops[0], ast.In):
            if isinstance(right, ast.Name):
                return self.literals.get(right.id)
            if isinstance(right, ast.Dict | ast.Set | ast.List | ast.Tuple):
                parts = right.keys if isinstance(right, ast.Dict) else right.elts
                return {str(one.value) for one in parts if isinstance(one, ast.Constant)}
        return None
