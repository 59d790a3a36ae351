"""What a source file binds, imports, calls and offers, told by its text alone: it is never run.

A summary says nothing of where the file lies, so that a file which many releases share is read once.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from doctor.knowledge.syntax import (
    alternatives,
    called_name,
    dotted_name,
    keys_of,
    last_word,
    offered_names,
    parameters_of,
    root_name,
)

# How surely a statement runs when its module is imported.
ALWAYS, GUARDED, LATER = 0, 1, 2
_CATCHES_IMPORTS = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException", "AttributeError"}
_FIELDS_BY_DECORATOR = {"dataclass", "define", "attrs", "frozen", "mutable", "s"}
_FIELDS_BY_BASE = {"BaseModel", "BaseSettings", "NamedTuple", "TypedDict", "RootModel"}
_LAZY_VARIABLE = "_import_structure"
_MODEL_TYPES = "CONFIG_MAPPING_NAMES"
# A summary made by other rules is no longer right: raise this when they change.
FORMAT = 1


def summarise(source: bytes, bodies: bool = True) -> dict[str, Any] | None:
    """Return the summary of a source file; None where it is no Python that this interpreter can read.

    Args:
        source: its contents.
        bodies: whether what functions import, read and call is wanted; without it reading takes half the time.

    Returns:
        names: names that definitions and assignments bind; deleted: names that are deleted again.
        imports: [level, module, name, bound as, how surely] of `from ... import name`, wherever it stands.
        modules: [module, bound as, how surely] of `import module`.
        stars: [level, module] of `from ... import *`.
        typing: names that are imported for type checkers only.
        uses: [dotted name beginning with a module of others, how surely] of attributes.
        functions: parameters by qualified name, "**" where it takes all keywords, "*self" where the class is no
            dataclass and its constructor is not written there.
        classes: [bases, names of fields or None where it isn't a dataclass or the like] by name.
        aliases: what else the module calls a class.
        calls: keywords by the last word of what is called, of a base's constructor its class.
        lazy: names that the module offers when asked; structure: folders below it whose modules' `__all__` it offers.
        all: names of `__all__`.
        unlisted: whether it makes names in ways that cannot be followed.
        model_types: keys of the table of model types.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    reader = _Reader(bodies)
    try:
        reader.block(tree.body, ALWAYS, None)
    except RecursionError:
        return None
    return reader.summary(tree)


class _Reader:
    """Reads one module."""

    def __init__(self, bodies: bool) -> None:
        self.bodies = bodies
        self.names: set[str] = set()
        self.deleted: set[str] = set()
        self.imports: set[tuple[int, str, str, str, int]] = set()
        self.modules: set[tuple[str, str, int]] = set()
        self.stars: set[tuple[int, str]] = set()
        self.typing: set[str] = set()
        self.chains: set[tuple[str, int]] = set()
        self.functions: dict[str, set[str]] = {}
        self.classes: dict[str, tuple[list[str], list[str] | None]] = {}
        self.aliases: dict[str, set[str]] = {}
        self.calls: dict[str, set[str]] = {}
        self.texts: dict[str, set[str]] = {}  # strings in what is assigned to a name of the module
        self.lazy_variables = {_LAZY_VARIABLE}
        self.structure: set[str] = set()
        self.getattr: ast.FunctionDef | None = None
        self.unlisted = False
        self.model_types: set[str] = set()
        self.later_annotations = False

    def block(self, body: Iterable[ast.stmt], sure: int, inside: str | None) -> None:
        """Read statements of a module, or of a class in it."""
        for node in body:
            self._statement(node, sure, inside)

    def _statement(self, node: ast.stmt, sure: int, inside: str | None) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._function(node, sure, inside)
        elif isinstance(node, ast.ClassDef):
            self._class(node, sure, inside)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            self._import(node, sure, inside is None)
        elif isinstance(node, ast.If):
            self._expression(node.test, sure)
            if last_word(node.test) == "TYPE_CHECKING":
                self.typing |= {alias.asname or alias.name for part in node.body for one in ast.walk(part)
                                if isinstance(one, ast.ImportFrom) for alias in one.names}  # fmt: skip
                self.block(node.orelse, sure, inside)
                return
            self.block(node.body, max(sure, GUARDED), inside)
            self.block(node.orelse, max(sure, GUARDED), inside)
        elif isinstance(node, (ast.Try, ast.TryStar)):
            caught = {last_word(one) for handler in node.handlers for one in alternatives(handler.type)}
            guard = max(sure, GUARDED) if caught & _CATCHES_IMPORTS or None in caught else sure
            self.block(node.body, guard, inside)
            for handler in node.handlers:
                self.block(handler.body, max(sure, GUARDED), inside)
            self.block(node.orelse, max(sure, guard), inside)
            self.block(node.finalbody, sure, inside)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            suppress = any(called_name(one.context_expr) == "suppress" for one in node.items)
            for item in node.items:
                self._expression(item.context_expr, sure)
                self._bind(item.optional_vars, inside)
            self.block(node.body, max(sure, GUARDED) if suppress else sure, inside)
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
            if isinstance(node, (ast.For, ast.AsyncFor)):
                self._bind(node.target, inside)
                self._expression(node.iter, sure)
            self.block(node.body, sure, inside)
            self.block(node.orelse, sure, inside)
        elif isinstance(node, ast.Delete):
            if inside is None:
                self.deleted |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        else:
            self._plain(node, sure, inside)

    def _plain(self, node: ast.stmt, sure: int, inside: str | None) -> None:
        """Read an assignment, or an expression that stands alone."""
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
            targets = [node.target]
        value = getattr(node, "value", None)
        for target in targets:
            self._bind(target, inside)
            if inside is None and value is not None:
                root = root_name(target)
                if root:
                    self.texts.setdefault(root, set()).update(offered_names(value, isinstance(target, ast.Subscript)))
                same = dotted_name(value) if isinstance(target, ast.Name) else None
                if same and isinstance(target, ast.Name) and target.id[:1].isupper():
                    self.aliases.setdefault(target.id, set()).add(same)
                if isinstance(target, ast.Name) and target.id == _MODEL_TYPES:
                    self.model_types |= set(keys_of(value))
        if inside is None and isinstance(value, ast.Call):
            self._module_call(value)
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.expr):
                self._expression(part, sure)

    def _module_call(self, node: ast.Call) -> None:
        """Read a call at the module's level for names that it makes."""
        called = last_word(node.func) or ""
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        if called in ("append", "extend", "update", "add") and isinstance(node.func, ast.Attribute):
            root = root_name(node.func.value)
            if root:
                for part in node.args:
                    self.texts.setdefault(root, set()).update(offered_names(part, True))
            if isinstance(node.func.value, ast.Call) and last_word(node.func.value.func) in ("globals", "vars"):
                self.unlisted = True
        if "lazy" in called.lower() or "attach" in called.lower():
            self.lazy_variables |= {one.id for part in given for one in ast.walk(part) if isinstance(one, ast.Name)}
            for part in given:
                if isinstance(part, ast.Dict):
                    self.texts.setdefault(_LAZY_VARIABLE, set()).update(offered_names(part, False))
        for one in ast.walk(node):
            if isinstance(one, ast.Call) and last_word(one.func) == "define_import_structure":
                below = [part.value for argument in one.args for part in ast.walk(argument)
                         if isinstance(part, ast.Constant) and isinstance(part.value, str)]  # fmt: skip
                self.structure.add("/".join(below))
        if called in ("exec", "eval"):
            self.unlisted = True
        if called == "setattr" and "__name__" in {last_word(one) for one in ast.walk(node)}:
            self.unlisted = True

    def _bind(self, target: ast.expr | None, inside: str | None) -> None:
        """Note the names that a target binds."""
        if target is None or inside is not None:
            return
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.names.add(node.id)
            elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Call):
                self.unlisted |= last_word(node.value.func) in ("globals", "vars")

    def _import(self, node: ast.Import | ast.ImportFrom, sure: int, bind: bool) -> None:
        """Note what is imported; `bind` says whether the module gets the name."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                self.modules.add((alias.name, alias.asname or "", sure))
                if bind and sure != LATER:
                    self.names.add(alias.asname or alias.name.split(".")[0])
            return
        if node.module == "__future__":
            self.later_annotations |= any(alias.name == "annotations" for alias in node.names)
            return
        for alias in node.names:
            if alias.name == "*":
                if sure != LATER:
                    self.stars.add((node.level, node.module or ""))
                continue
            self.imports.add((node.level, node.module or "", alias.name, alias.asname or alias.name, sure))

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, sure: int, inside: str | None) -> None:
        """Read a function of a module or of a class in it."""
        if inside is None:
            self.names.add(node.name)
            if node.name == "__getattr__" and isinstance(node, ast.FunctionDef):
                self.getattr = node
        decorators = {called_name(one) for one in node.decorator_list}
        if "property" not in decorators:
            name = f"{inside}.{node.name}" if inside else node.name
            taken = parameters_of(node, method=inside is not None and "staticmethod" not in decorators)
            self.functions.setdefault(name, set()).update(taken)
        for part in [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]:
            self._expression(part, sure)
        if not self.later_annotations:
            for one in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
                if one.annotation is not None:
                    self._expression(one.annotation, sure)
            if node.returns is not None:
                self._expression(node.returns, sure)
        for statement in node.body if self.bodies else ():
            self._walk(statement, LATER, inside)

    def _class(self, node: ast.ClassDef, sure: int, inside: str | None) -> None:
        """Read a class: a nested one is read as its own."""
        if inside is None:
            self.names.add(node.name)
        bases = [dotted for dotted in map(dotted_name, node.bases) if dotted]
        decorators = {called_name(one) for one in node.decorator_list}
        fields: list[str] | None = None
        if decorators & _FIELDS_BY_DECORATOR or {base.split(".")[-1] for base in bases} & _FIELDS_BY_BASE:
            fields = [part.target.id for part in node.body
                      if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)]  # fmt: skip
        self.classes[node.name] = (bases, fields)
        for part in [*node.bases, *(keyword.value for keyword in node.keywords), *node.decorator_list]:
            self._expression(part, sure)
        self.block(node.body, sure, node.name)

    def _expression(self, node: ast.expr, sure: int) -> None:
        self._walk(node, sure, None)

    def _walk(self, tree: ast.AST, sure: int, inside: str | None) -> None:
        """Note attributes, calls and imports anywhere in a tree."""
        stack: list[ast.AST] = [tree]
        while stack:
            node = stack.pop()
            if isinstance(node, ast.Attribute):
                dotted = dotted_name(node)
                if dotted:
                    self.chains.add((dotted, sure))
                    continue
            elif isinstance(node, ast.Call):
                if node.keywords:
                    self._call(node, inside)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                self._import(node, LATER, False)
                continue
            elif isinstance(node, ast.Constant):
                continue
            elif isinstance(node, ast.Lambda):
                self._walk(node.body, LATER, inside)
                continue
            stack.extend(ast.iter_child_nodes(node))

    def _call(self, node: ast.Call, inside: str | None) -> None:
        """Note the keywords of a call by what is called."""
        keywords = {keyword.arg for keyword in node.keywords if keyword.arg}
        called = [last_word(node.func)]
        if called == ["__init__"] and isinstance(node.func, ast.Attribute):
            of = node.func.value
            if isinstance(of, ast.Call) and last_word(of.func) == "super":
                called = [base.split(".")[-1] for base in self.classes.get(inside or "", ([], None))[0]]
            else:
                called = [last_word(of)]
        elif called == ["partial"] and node.args:
            called = [last_word(node.args[0])]
        for name in called:
            if name and keywords:
                self.calls.setdefault(name, set()).update(keywords)

    def summary(self, tree: ast.Module) -> dict[str, Any]:
        """Return what was read."""
        lazy: set[str] = set()
        if self.getattr is not None:
            inside = {one.id for one in ast.walk(self.getattr) if isinstance(one, ast.Name)}
            self.lazy_variables |= inside & self.texts.keys()
        for variable in self.lazy_variables:
            lazy |= self.texts.get(variable, set())
        if self.getattr is not None and not lazy and not self.structure:
            self.unlisted |= any(isinstance(one, ast.Return) for one in ast.walk(self.getattr))
        elif "__getattr__" in self.names and not lazy and not self.structure:
            self.unlisted = True  # made by a function elsewhere
        is_lazy = bool(lazy or self.structure or self.getattr)
        found: dict[str, Any] = {
            "names": sorted(self.names),
            "deleted": sorted(self.deleted),
            "imports": sorted(self.imports),
            "modules": sorted(self.modules),
            "stars": sorted(self.stars),
            "typing": sorted(self.typing) if is_lazy else [],
            "uses": sorted(self._uses()),
            "functions": {name: sorted(taken) for name, taken in self.functions.items()},
            "classes": self.classes,
            "aliases": {name: sorted(same) for name, same in self.aliases.items()},
            "calls": {name: sorted(taken) for name, taken in self.calls.items()},
            "lazy": sorted(name for name in lazy if name.isidentifier()),
            "structure": sorted(self.structure),
            "all": sorted(name for name in self.texts.get("__all__", ()) if name.isidentifier()),
            "unlisted": self.unlisted,
            "model_types": sorted(self.model_types),
        }
        return {key: value for key, value in found.items() if value}

    def _uses(self) -> Iterator[tuple[str, int]]:
        """Yield the attributes of others' modules, by the module's own name."""
        aliases: dict[str, str] = {}
        for module, bound, _ in self.modules:
            aliases[bound or module.split(".")[0]] = module if bound else module.split(".")[0]
        for level, module, name, bound, _ in self.imports:
            if not level:
                aliases.setdefault(bound, f"{module}.{name}")
        made: dict[str, int] = {}
        for chain, sure in self.chains:
            root, _, rest = chain.partition(".")
            target = aliases.get(root)
            if target and target.split(".")[0] not in sys.stdlib_module_names:
                dotted = f"{target}.{rest}"
                made[dotted] = min(sure, made.get(dotted, LATER))
        yield from made.items()
