"""What the conditions around imports come to in an environment: versions, platform, Python."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from packaging.version import InvalidVersion, Version

_SYSTEMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}
_PARSERS = ("parse", "Version", "parse_version", "LooseVersion", "StrictVersion")
# Names of what asks for a version by its project: packaging's and importlib's, and the field's own.
_ASKS = ("version", "get_version", "_get_version", "package_version")
_COMPARED = re.compile(r"^is_(\w+?)_version$")
_AVAILABLE = re.compile(r"^_?is_(\w+?)_available$")


@dataclass(frozen=True)
class Surroundings:
    """What conditions ask for.

    Args:
        python: version of the interpreter, such as (3, 11, 7).
        sys_platform: "linux", "darwin" or "win32".
        versions: versions of installed distributions, by the names of their modules and by their own.
    """

    python: tuple[int, ...]
    sys_platform: str = "linux"
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Guard:
    """A condition that stands around a statement.

    Args:
        test: its source.
        holds: whether the statement runs where the condition holds, or where it doesn't.
    """

    test: str
    holds: bool


def runs(guards: tuple[Guard, ...], names: Mapping[str, str], around: Surroundings) -> str:
    """Return whether a statement runs under its guards.

    Args:
        guards: the conditions around it.
        names: what simple names of the module are bound to, as source.
        around: what conditions ask for.

    Returns:
        "yes", "no", "likely" (it asks whether an installed library is available), or "unknown".
    """
    answer = "yes"
    for guard in guards:
        try:
            tree = ast.parse(guard.test, mode="eval").body
        except (SyntaxError, ValueError, RecursionError):
            return "unknown"
        value = _Reader(names, around).truth(tree)
        if value is None:
            return "unknown"
        if value == "likely":
            answer = "likely" if guard.holds else "no"
            if not guard.holds:
                return "no"
        elif bool(value) != guard.holds:
            return "no"
    return answer


class _Reader:
    def __init__(self, names: Mapping[str, str], around: Surroundings, depth: int = 0) -> None:
        self.names = names
        self.around = around
        self.depth = depth

    def truth(self, node: ast.expr) -> bool | str | None:
        """Return what a condition comes to: a bool, "likely", or None where it can't be told."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            value = self.truth(node.operand)
            return None if value is None else False if value == "likely" else not value
        if isinstance(node, ast.BoolOp):
            return self._joined([self.truth(one) for one in node.values], isinstance(node.op, ast.And))
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return _compared(self.value(node.left), node.ops[0], self.value(node.comparators[0]))
        if isinstance(node, ast.Call):
            return self._asked(node)
        told = self.value(node)
        return told if isinstance(told, bool) else None

    @staticmethod
    def _joined(values: list[bool | str | None], all_of: bool) -> bool | str | None:
        if any(value is (not all_of) for value in values):
            return not all_of
        if None in values:
            return None
        return "likely" if "likely" in values else all_of

    def _asked(self, node: ast.Call) -> bool | str | None:
        name = _last(node.func)
        if isinstance(node.func, ast.Attribute) and name in ("startswith", "endswith") and len(node.args) == 1:
            left, right = self.value(node.func.value), self.value(node.args[0])
            return getattr(left, name)(right) if isinstance(left, str) and isinstance(right, str) else None
        found = _COMPARED.match(name)
        if found and len(node.args) == 2 and all(isinstance(one, ast.Constant) for one in node.args):
            operator, wanted = (one.value for one in node.args if isinstance(one, ast.Constant))
            here = self._version(found[1])
            return _compare_text(here, str(operator), _as_version(str(wanted)))
        found = _AVAILABLE.match(name)
        if found and not node.args and not node.keywords:
            return "likely" if found[1] in self.around.versions else None
        return None

    def value(self, node: ast.expr) -> object:
        """Return a constant, a version or a tuple that an expression stands for, None where it can't be told."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Tuple):
            return tuple(self.value(one) for one in node.elts)
        text = ast.unparse(node)
        if text in ("sys.version_info", "version_info", "sys.version_info[:]"):
            return (*self.around.python, "final", 0)[:5]
        if text in ("sys.version_info[:2]", "version_info[:2]"):
            return self.around.python[:2]
        if text in ("sys.version_info.major", "sys.version_info[0]"):
            return self.around.python[0]
        if text in ("sys.version_info.minor", "sys.version_info[1]"):
            return self.around.python[1]
        if text == "sys.platform":
            return self.around.sys_platform
        if text == "os.name":
            return "nt" if self.around.sys_platform == "win32" else "posix"
        if text == "platform.system()":
            return _SYSTEMS.get(self.around.sys_platform)
        if text == "platform.python_implementation()" or text == "sys.implementation.name":
            return "CPython" if "(" in text else "cpython"
        return self._of_names(node)

    def _of_names(self, node: ast.expr) -> object:
        if isinstance(node, ast.Name) and node.id in self.names and self.depth < 4:
            try:
                source = ast.parse(self.names[node.id], mode="eval").body
            except SyntaxError:
                return None
            deeper = _Reader(self.names, self.around, self.depth + 1)
            found = deeper.value(source)
            return found if found is not None else deeper.truth(source)
        if isinstance(node, ast.Attribute) and node.attr in ("__version__", "VERSION", "version_info"):
            return self._text(ast.unparse(node.value)) if node.attr != "version_info" else None
        if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
            name = _last(node.func)
            inner = node.args[0]
            if name in _PARSERS:
                value = self.value(inner)
                return _as_version(value) if isinstance(value, str) else value
            if name in _ASKS and isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                return self._text(inner.value)
        return None

    def _text(self, name: str) -> str | None:
        return self.around.versions.get(name) or self.around.versions.get(name.replace("_", "-").lower())

    def _version(self, name: str) -> Version | None:
        here = self._text(name)
        return _as_version(here) if here else None


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _as_version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _compared(left: object, operator: ast.cmpop, right: object) -> bool | None:
    signs = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
    sign = signs.get(type(operator))
    if isinstance(operator, ast.In | ast.NotIn) and isinstance(right, tuple) and left is not None and None not in right:
        return (left in right) == isinstance(operator, ast.In)
    if sign is None or left is None or right is None:
        return None
    return _compare_text(left, sign, right)


def _compare_text(left: object, sign: str, right: object) -> bool | None:
    if isinstance(left, tuple) and isinstance(right, tuple) and None not in right:
        return _ordered(left, sign, right)
    if isinstance(left, Version) and isinstance(right, Version):
        return _ordered(left, sign, right)
    if type(left) is type(right) and isinstance(left, str | int):
        return _ordered(left, sign, right)
    return None


def _ordered(left, sign: str, right) -> bool | None:  # type: ignore[no-untyped-def]  # two of one kind
    try:
        return {
            "<": lambda: left < right, "<=": lambda: left <= right, ">": lambda: left > right,
            ">=": lambda: left >= right, "==": lambda: left == right, "!=": lambda: left != right,
        }[sign]()  # fmt: skip
    except (TypeError, KeyError):
        return None
