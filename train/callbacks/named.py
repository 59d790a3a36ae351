"""The callbacks that config.ini names: `callbacks = package.module:Class, package.module:Class(name=value)`."""

import ast
import importlib
import re
from typing import Any

from config import ConfigError
from train.callbacks.callback import Callback
from train.error_advice import explained

_ONE = re.compile(r"([\w.]+):(\w+)\s*(\(.*\))?", re.DOTALL)
_FORM = "package.module:Class, or package.module:Class(name=value, ...) with plain values, several with commas between"


def callbacks_named(text: str) -> list[Callback]:
    """Make callbacks.

    Args:
        text: value of the config's `callbacks`; empty names none.

    Raises:
        ConfigError: the text is no list of callbacks, or one can't be imported or made.
    """
    made: list[Callback] = []
    for item in _items(text):
        found = _ONE.fullmatch(item)
        if found is None:
            raise ConfigError(f"callbacks = {text}: '{item}' must be {_FORM}.")
        made.append(_made(found[1], found[2], found[3] or "()"))
    return made


def _items(text: str) -> list[str]:
    """Split a list at its commas, but for those inside of brackets and quotes."""
    items, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        depth += 0 if quote else (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth and not quote:
            items.append("")
        else:
            items[-1] += letter
    stripped = [item.strip() for item in items]
    return stripped if any(stripped) else []


def _made(module: str, name: str, arguments: str) -> Callback:
    target = f"{module}:{name}"
    try:
        imported = importlib.import_module(module)
    except (ImportError, SyntaxError) as error:  # which say themselves where
        raise ConfigError(f"callbacks: {target} can't be imported: {error}.") from error
    except Exception as error:  # whatever a module of anybody's raises
        raise ConfigError(f"callbacks: {target} can't be imported: {explained(error)}") from error
    kind = getattr(imported, name, None)
    if kind is None:
        raise ConfigError(f"callbacks: module {module} has no {name}.")
    if not (isinstance(kind, type) and issubclass(kind, Callback)):
        raise ConfigError(f"callbacks: {target} is no callback: it must derive from train.callbacks.Callback.")
    positional, named = _arguments(target, arguments)
    try:
        return kind(*positional, **named)
    except ConfigError:
        raise
    except Exception as error:  # whatever a constructor of anybody's raises
        raise ConfigError(f"callbacks: {target}{arguments} can't be made: {type(error).__name__}: {error}") from error


def _arguments(target: str, text: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        call = ast.parse(f"f{text}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):  # such as (1)(2)
            raise ValueError("it is no list of arguments")
        if any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("it is no list of arguments")
        positional = [ast.literal_eval(argument) for argument in call.args]
        return positional, {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"callbacks: the arguments of {target}{text} must be plain values: {error}.") from error
