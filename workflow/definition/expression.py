"""Settings in {braces}, and arithmetic over them."""

import ast
import operator
import re
from collections.abc import Callable, Mapping

_BRACES = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip


class ExpressionError(ValueError):
    """A setting that is not there, or no arithmetic; the text says which."""


def settings_named(text: str) -> tuple[str, ...]:
    """Return the settings that a text names in braces."""
    return tuple(dict.fromkeys(_BRACES.findall(text)))


def filled(value: object, settings: Mapping[str, object]) -> object:
    """Put settings in place of their names in braces, in texts of lists and mappings too.

    Args:
        value: a text, number, list or mapping. A text that is one name in braces becomes that setting itself.
        settings: the settings.

    Raises:
        ExpressionError: a setting is not there.
    """
    if isinstance(value, Mapping):
        return {key: filled(one, settings) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [filled(one, settings) for one in value]
    if not isinstance(value, str):
        return value
    if (whole := _BRACES.fullmatch(value)) is not None:
        return _setting(whole[1], settings)
    return _BRACES.sub(lambda match: str(_setting(match[1], settings)), value)


def calculated(text: str, settings: Mapping[str, object]) -> float:
    """Work out arithmetic such as "{examples} * 1.5 / 60": + - * / and parentheses.

    Args:
        text: the arithmetic.
        settings: settings that it may name.

    Raises:
        ExpressionError: a setting is not there or no number, or it is no such arithmetic.
    """
    words = str(filled(str(text), settings))
    try:
        return _value(ast.parse(words.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError):
        raise ExpressionError(
            f"{text!r} is no arithmetic of numbers and settings in braces (+ - * / and parentheses)"
        ) from None
    except ZeroDivisionError:
        raise ExpressionError(f"{text!r} divides by 0") from None


def _setting(name: str, settings: Mapping[str, object]) -> object:
    if name not in settings:
        raise ExpressionError(f"there is no setting {name}; there are {', '.join(sorted(settings)) or 'none'}")
    return settings[name]


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    raise ValueError("no arithmetic")
