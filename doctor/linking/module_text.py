"""Reading a module's source: the names that it offers, and what importing it asks of other modules."""

import ast
import re
import sys
from dataclasses import dataclass, field

from doctor.linking.calls import Signature, keyword_calls, signatures
from doctor.linking.conditions import Guard
from doctor.linking.lazy_names import LazyNames, lazy_names

_CATCHES = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException", "AttributeError", "OSError"}
# What makes names of a module that no assignment shows.
_MADE = (
    "globals()",
    "vars()",
    "locals()",
    "sys.modules",
    "\nsetattr(",
    "\nexec(",
    "\neval(",
    "global_enum",
    "_convert_(",
)
_IMPORT = re.compile(
    r"^(?P<indent>[ \t]*)(?:from[ \t]+(?P<module>[.\w]+)[ \t]+import[ \t]*(?P<names>\([^)]*\)|[^\n;]*)"
    r"|import[ \t]+(?P<modules>[^\n;#]+))", re.MULTILINE)  # fmt: skip
# Modules of the standard library that some Pythons don't have: who imports one is parsed.
_WATCHED = {"distutils", "imp", "asyncore", "asynchat", "smtpd", "cgi", "crypt", "pipes", "telnetlib", "lib2to3",
            "formatter",
            "tomllib", "zoneinfo", "graphlib", "binhex", "imghdr", "sndhdr", "uu", "xdrlib", "nntplib"}  # fmt: skip
# Packages whose functions are compiled or made when they run: their signatures stand nowhere.
_UNREADABLE = ("numpy", "torch")
# Values that a condition may be told by.
_SIMPLE = (ast.Call, ast.Compare, ast.BoolOp, ast.Attribute, ast.Constant, ast.Tuple, ast.UnaryOp)
_GLOBALS = re.compile(r"^[ \t]+global +([\w, ]+)", re.MULTILINE)


@dataclass(frozen=True)
class Use:
    """What a module asks of another one while it is imported.

    Args:
        module: the other module, with leading dots where it is relative.
        names: the names asked for; empty for `import module`.
        line: where.
        guards: the conditions around it.
        how: "import", "from" or "attribute".
    """

    module: str
    names: tuple[str, ...]
    line: int
    guards: tuple[Guard, ...] = ()
    how: str = "from"


@dataclass(frozen=True)
class KeywordCall:
    """A call with keywords, anywhere in a module: the callee as it stands there, and where."""

    callee: str
    keywords: tuple[str, ...]
    line: int
    function: str = ""


@dataclass(frozen=True)
class ModuleText:
    """What the source of a module says.

    Args:
        names: names that it binds, on whatever branch.
        stars: modules of which it takes all names.
        offered: its __all__, None where there is none or it can't be read.
        open: whether it may offer names that its text doesn't show.
        lazy: names that it offers when they are asked for; None where it has no table of them.
        refused: names that its __getattr__ knows only to refuse them.
        uses: what importing it asks for, where no handler catches that it isn't there.
        assigned: sources of short values bound to its names, for the conditions.
        bindings: what names stand for that were imported: "torch.nn", or "torch.nn:Module" for a name of a module.
        signatures: functions and classes of it that take a fixed set of keywords, or whose bases say.
        calls: calls with keywords of what was imported or derives from it.
        package: whether it is a package's __init__.
    """

    names: frozenset[str] = frozenset()
    stars: tuple[str, ...] = ()
    offered: tuple[str, ...] | None = None
    open: bool = False
    lazy: LazyNames | None = None
    refused: frozenset[str] = frozenset()
    uses: tuple[Use, ...] = ()
    assigned: dict[str, str] = field(default_factory=dict)
    bindings: dict[str, str] = field(default_factory=dict)
    signatures: dict[str, Signature] = field(default_factory=dict)
    calls: tuple[KeywordCall, ...] = ()
    package: bool = False


def quick_uses(source: str, top: str) -> tuple[Use, ...] | None:
    """Return what a module imports where that is only its own package and the standard library, without parsing it.

    Args:
        source: its source.
        top: the top-level name of its package.

    Returns:
        The imports of its first level, of which a line of a docstring may look like one; None where it imports what
        others have, so that it must be parsed.
    """
    uses = []
    for found in _IMPORT.finditer(source):
        module, names = found["module"], found["names"]
        modules = [module] if module else [part.split()[0] for part in found["modules"].split(",") if part.split()]
        for one in modules:
            first = one.split(".")[0]
            if first and first != top and (first not in sys.stdlib_module_names or first in _WATCHED):
                return None
        if not found["indent"]:
            asked = [part.split()[0] for part in re.sub(r"#.*|[()\\]", "", names or "").split(",") if part.split()]
            uses += [Use(one, tuple(asked), 0, how="from" if module else "import") for one in modules]
    return tuple(uses)


def read_module(source: str, package: bool = False, top: str = "") -> ModuleText | None:
    """Return what a module's source says, None where it can't be parsed.

    Args:
        source: its source.
        package: whether it is a package's __init__.
        top: the top-level name of its package.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    reading = _Reading("annotations" in source and _future_annotations(tree))
    reading.block(tree.body, ())
    names = reading.names
    for found in _GLOBALS.finditer(source) if " global " in source else ():
        names.update(name.strip() for name in found[1].split(","))
    lazy = lazy_names(tree, source)
    bindings = reading.single_bindings()
    begun = f"\n{source}"
    made = any(one in begun for one in _MADE)
    return ModuleText(
        names=frozenset(names), stars=tuple(reading.stars), offered=reading.offered(),
        open=(made and not (lazy and lazy.closed)) or (lazy is not None and not lazy.closed),
        lazy=lazy, refused=frozenset(lazy.refused) if lazy else frozenset(), uses=tuple(reading.uses),
        assigned=reading.assigned, bindings=bindings, signatures=signatures(tree),
        calls=tuple(KeywordCall(*one) for one in keyword_calls(tree, _foreign(bindings, top))), package=package,
    )  # fmt: skip


def _foreign(bindings: dict[str, str], top: str) -> dict[str, str]:
    """Return the names that may stand for what other distributions have, whose signatures can be read."""
    known = {*sys.stdlib_module_names, *_UNREADABLE, top}
    return {name: place for name, place in bindings.items()
            if place.startswith(".") or re.split(r"[.:]", place)[0] not in known}  # fmt: skip


def _future_annotations(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)


class _Reading:
    """Reads the statements that run while a module is imported."""

    def __init__(self, lazy_annotations: bool) -> None:
        self.names: set[str] = set()
        self.stars: list[str] = []
        self.uses: list[Use] = []
        self.assigned: dict[str, str] = {}
        self.all: list[str] | None = []
        self.has_all = False
        self.bound: dict[str, list[str]] = {}
        self.lazy_annotations = lazy_annotations

    def offered(self) -> tuple[str, ...] | None:
        return tuple(self.all) if self.has_all and self.all is not None else None

    def single_bindings(self) -> dict[str, str]:
        """Return what names stand for that are bound once, by an import."""
        return {name: places[0] for name, places in self.bound.items() if len(set(places)) == 1 and places[0]}

    def bind(self, name: str, place: str = "") -> None:
        self.names.add(name)
        self.bound.setdefault(name, []).append(place)

    def block(self, body: list[ast.stmt], guards: tuple[Guard, ...], silent: bool = False, inner: bool = False) -> None:
        """Read statements.

        Args:
            body: the statements.
            guards: the conditions around them.
            silent: whether nothing that they ask for counts, as something catches that it isn't there.
            inner: whether they stand in a class, whose names are not the module's.
        """
        for node in body:
            self.statement(node, guards, silent, inner)
            if isinstance(node, ast.Raise) and not guards and not silent and not inner:
                return

    def statement(self, node: ast.stmt, guards: tuple[Guard, ...], silent: bool, inner: bool) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self.imported(node, guards, silent, inner)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self.define(node.name, inner)
            self.function(node, guards, silent)
        elif isinstance(node, ast.ClassDef):
            self.define(node.name, inner)
            for part in (*node.bases, *(one.value for one in node.keywords), *node.decorator_list):
                self.expression(part, guards, silent)
            self.block(node.body, guards, silent, inner=True)
        elif isinstance(node, ast.If):
            self.conditional(node, guards, silent, inner)
        elif isinstance(node, ast.Try | ast.TryStar):
            self.trial(node, guards, silent, inner)
        elif isinstance(node, ast.With | ast.AsyncWith):
            quiet = silent
            for item in node.items:
                self.expression(item.context_expr, guards, silent)
                self.target(item.optional_vars, inner)
                quiet = (
                    quiet or "suppress" in ast.unparse(item.context_expr) or "raises" in ast.unparse(item.context_expr)
                )
            self.block(node.body, guards, quiet, inner)
        elif isinstance(node, ast.For | ast.AsyncFor | ast.While):
            if not isinstance(node, ast.While):
                self.target(node.target, inner)
                self.expression(node.iter, guards, silent)
            self.block([*node.body, *node.orelse], guards, True, inner)
        elif isinstance(node, ast.Match):
            for case in node.cases:
                self.block(case.body, guards, True, inner)
        else:
            self.simple(node, guards, silent, inner)

    def simple(self, node: ast.stmt, guards: tuple[Guard, ...], silent: bool, inner: bool) -> None:
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                self.target(target, inner)
                if isinstance(target, ast.Name) and not inner:
                    self.remember(target.id, node)
            if node.value is not None:
                self.expression(node.value, guards, silent)
            if isinstance(node, ast.AnnAssign) and not self.lazy_annotations:
                self.expression(node.annotation, guards, silent)
        elif isinstance(node, ast.Expr):
            if isinstance(node.value, ast.Call):
                self.call_on_all(node.value)
            self.expression(node.value, guards, silent)
        elif isinstance(node, ast.Assert):
            self.expression(node.test, guards, silent)
        elif node.__class__.__name__ == "TypeAlias":
            self.target(node.name, inner)  # type: ignore[attr-defined]  # of Python 3.12

    def define(self, name: str, inner: bool) -> None:
        if not inner:
            self.bind(name)

    def remember(self, name: str, node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> None:
        if name == "__all__":
            self.has_all = True
            value = node.value
            found = _strings(value) if value is not None else []
            self.all = None if found is None or self.all is None else [*self.all, *found]
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            simple = isinstance(node.value, _SIMPLE)
            if simple and node.end_lineno is not None and node.end_lineno - node.lineno < 3:
                text = ast.unparse(node.value)
                # One that is bound twice is not told by its last value.
                self.assigned[name] = text if name not in self.assigned and len(text) < 200 else ""

    def call_on_all(self, call: ast.Call) -> None:
        if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "__all__":
            found = _strings(call.args[0]) if call.func.attr == "extend" and call.args else None
            if call.func.attr == "append" and call.args and isinstance(call.args[0], ast.Constant):
                found = [str(call.args[0].value)]
            self.all = None if found is None or self.all is None else [*self.all, *found]

    def target(self, node: ast.expr | None, inner: bool) -> None:
        if node is None or inner:
            return
        for one in ast.walk(node):
            if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
                self.bind(one.id)

    def imported(self, node: ast.Import | ast.ImportFrom, guards: tuple[Guard, ...], silent: bool, inner: bool) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if not inner:
                    place = alias.name if alias.asname else alias.name.split(".")[0]
                    self.bind(alias.asname or alias.name.split(".")[0], place)
                if not silent:
                    self.uses.append(Use(alias.name, (), node.lineno, guards, "import"))
            return
        module = "." * node.level + (node.module or "")
        if module == "__future__":
            return
        names = []
        for alias in node.names:
            if alias.name == "*":
                self.stars.append(module)
                continue
            names.append(alias.name)
            if not inner:
                self.bind(alias.asname or alias.name, f"{module}:{alias.name}")
        if not silent:
            self.uses.append(Use(module, tuple(names), node.lineno, guards, "from"))

    def conditional(self, node: ast.If, guards: tuple[Guard, ...], silent: bool, inner: bool) -> None:
        test = ast.unparse(node.test)
        checking = test.split(".")[-1] == "TYPE_CHECKING"
        main = "__name__" in test and "__main__" in test
        if not checking:
            self.expression(node.test, guards, silent)
            self.block(node.body, (*guards, Guard(test, True)), silent or main, inner)
        self.block(node.orelse, guards if checking else (*guards, Guard(test, False)), silent, inner)

    def trial(self, node: ast.Try | ast.TryStar, guards: tuple[Guard, ...], silent: bool, inner: bool) -> None:
        caught = silent or any(_catches(handler) and not _raises(handler) for handler in node.handlers)
        self.block(node.body, guards, caught, inner)
        for handler in node.handlers:
            if handler.name:
                self.define(handler.name, inner)
            self.block(handler.body, guards, True, inner)
        self.block(node.orelse, guards, caught, inner)
        self.block(node.finalbody, guards, silent, inner)

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, guards: tuple[Guard, ...], silent: bool) -> None:
        parts: list[ast.expr | None] = [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]
        if not self.lazy_annotations:
            all_arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg,
                             node.args.kwarg]  # fmt: skip
            parts += [one.annotation for one in all_arguments if one] + [node.returns]
        for part in parts:
            if part is not None:
                self.expression(part, guards, silent)

    def expression(self, node: ast.expr, guards: tuple[Guard, ...], silent: bool) -> None:
        """Take up the attributes of imported modules that evaluating an expression asks for."""
        if isinstance(node, ast.Attribute):
            chain = _chain(node)
            if chain:
                if not silent:
                    self.uses.append(Use(chain[0], tuple(chain[1:]), node.lineno, guards, "attribute"))
                return
            self.expression(node.value, guards, silent)
        elif isinstance(node, ast.IfExp):
            self.expression(node.test, guards, silent)
        elif isinstance(node, ast.BoolOp):
            self.expression(node.values[0], guards, silent)
        elif isinstance(node, ast.NamedExpr):
            self.target(node.target, False)
            self.expression(node.value, guards, silent)
        elif isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Constant):
            return
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    self.expression(child, guards, silent)
                elif isinstance(child, ast.keyword):
                    self.expression(child.value, guards, silent)


def _chain(node: ast.Attribute) -> list[str]:
    """Return the names of `a.b.c`, nothing where it doesn't begin with a name."""
    names = [node.attr]
    inner = node.value
    while isinstance(inner, ast.Attribute):
        names.append(inner.attr)
        inner = inner.value
    return [inner.id, *reversed(names)] if isinstance(inner, ast.Name) else []


def _strings(node: ast.expr) -> list[str] | None:
    """Return a list of strings as it stands in a source, None where it is made otherwise."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _strings(node.left), _strings(node.right)
        return None if left is None or right is None else left + right
    if not isinstance(node, ast.List | ast.Tuple | ast.Set):
        return None
    texts = [one.value for one in node.elts if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return texts if len(texts) == len(node.elts) else None


def _catches(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    parts = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(ast.unparse(one).split(".")[-1] in _CATCHES or not _is_builtin_error(one) for one in parts)


def _is_builtin_error(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id.endswith(("Error", "Exception", "Interrupt", "Exit"))


def _raises(handler: ast.ExceptHandler) -> bool:
    """Return whether a handler ends by raising, whatever happens."""
    return bool(handler.body) and isinstance(handler.body[-1], ast.Raise)
