"""What the scaffolder learns of a model: which settings its constructor takes, and which samples its forward takes."""

import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import traceback
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from torch import nn

from config import BaseTrainerConfig
from config.config_values import BadValue, write_value
from constants import PROJECT_ROOT
from train.errors import ScaffoldError

_PLAIN = (int, float, bool, str)
_INPUT_NAME = re.compile(
    r"(n_)?(in|input|inputs|feature|token|data)_?(dim|dims|features|channels|size|width)?s?|dim_in"
)
# Values to begin with for whole numbers without a default, by what the name contains; the first that fits.
_BEGINNINGS = {
    "block_size": 32, "position": 32, "class": 4, "label": 4, "head": 2, "layer": 2, "block": 2, "depth": 2,
    "in_channel": 3, "out_channel": 3, "channel": 8, "kernel": 3, "stride": 1, "padding": 1, "groups": 1, "dilation": 1,
    "patch": 4, "image": 32, "vocab": 32, "len": 32, "context": 32, "seed": 0,
}  # fmt: skip
_SIZE_NAME = re.compile(r"dim|width|hidden|head|channel|feature|size|class|layer|depth|kernel|vocab")


@dataclass(frozen=True)
class Field:
    """A parameter of the model's constructor that is a key of the trainer's config.

    Attributes:
        name: the key; the parameter's name, with `model_` before it where every trainer has a key of that name.
        parameter: the constructor's parameter.
        hint: type that the config reads.
        source: the same as Python text.
        doc: its meaning.
        default: MISSING where it has none.
        value: the default, or a value to begin with.
    """

    name: str
    parameter: str
    hint: Any
    source: str
    doc: str
    default: Any
    value: Any


def load_model_class(target: str) -> type[nn.Module]:
    """Import a model.

    Args:
        target: `package.module:ClassName`.

    Raises:
        ScaffoldError: it can't be imported, or is no nn.Module; the text says why.
    """
    module_name, _, attribute = target.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", module_name) or not attribute.isidentifier():
        raise ScaffoldError(f"--model {target}: must be package.module:ClassName, such as model.my_model:MyModel.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ScaffoldError(
                f"--model {target}: there is no module {error.name}{_near_modules(error.name)}"
            ) from None
        raise _import_failed(target, module_name, error) from error
    except (Exception, SystemExit) as error:  # whatever a user's module does
        raise _import_failed(target, module_name, error) from error
    found = getattr(module, attribute, None)
    if found is None:
        known = [name for name, thing in vars(module).items() if isinstance(thing, type)]
        own = [name for name in known if vars(module)[name].__module__ == module_name]
        near = get_close_matches(attribute, known, n=3, cutoff=0.5) or own[:5]
        hint = f"; did you mean {' or '.join(near)}?" if near else "; it has no class."
        raise ScaffoldError(f"--model {target}: module {module_name} has no {attribute}{hint}")
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ScaffoldError(f"--model {target}: {attribute} is not a subclass of torch.nn.Module.")
    return found


def _near_modules(name: str) -> str:
    package, _, last = name.rpartition(".")
    folders = list(importlib.import_module(package).__path__) if package in sys.modules else [str(PROJECT_ROOT)]
    known = [module.name for module in pkgutil.iter_modules(folders)]
    near = get_close_matches(last, known, n=3, cutoff=0.5)
    dotted = [f"{package}.{each}" if package else each for each in near]
    return f"; did you mean {' or '.join(dotted)}?" if dotted else f" (looked in {', '.join(folders)})."


def _import_failed(target: str, module_name: str, error: BaseException) -> ScaffoldError:
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{_shown(error.filename)}:{error.lineno}"
    else:
        spec = importlib.util.find_spec(module_name.partition(".")[0])
        own = str(Path(spec.origin).parent) if spec and spec.origin else str(PROJECT_ROOT)
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(own)]
        frames = [frame for frame in frames if frame.filename != __file__]
        place = f"{_shown(frames[-1].filename)}:{frames[-1].lineno}" if frames else module_name
    return ScaffoldError(f"--model {target}: its import fails at {place}: {type(error).__name__}: {error}")


def _shown(path: str) -> str:
    return path.removeprefix(f"{PROJECT_ROOT}/")


def constructor_fields(model_class: type[nn.Module], given: Mapping[str, tuple[int, ...]]) -> list[Field]:
    """List the constructor's parameters that a config can hold.

    One that it can't hold is left to its default.

    Args:
        model_class: the model.
        given: shapes of a sample by input, as far as they are known; sizes without a default begin with them.

    Raises:
        ScaffoldError: parameters that have neither a default nor a type that a config can hold; names all.
    """
    name = model_class.__name__
    try:
        hints = typing.get_type_hints(model_class.__init__, include_extras=True)
    except Exception as error:
        raise ScaffoldError(
            f"{name}.__init__ has a type hint that can't be read: {type(error).__name__}: {error}"
        ) from error
    docs = _parameter_docs(model_class)
    taken = {field.name for field in fields(BaseTrainerConfig)}
    found, bad = [], []
    for parameter in list(inspect.signature(model_class.__init__).parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = MISSING if parameter.default is parameter.empty else parameter.default
        hint = hints.get(parameter.name, type(default) if type(default) in _PLAIN else None)
        hint, source = _config_type(hint)
        if source is None or parameter.kind is parameter.POSITIONAL_ONLY or not _fits(hint, default):
            if default is MISSING:
                bad.append(str(parameter))
            continue
        kind = get_origin(hint) or hint
        default = kind(default) if kind in (list, tuple, float) and default is not MISSING else default
        value = _beginning(parameter.name, hint, given) if default is MISSING else default
        key = f"model_{parameter.name}" if parameter.name in taken else parameter.name
        doc = docs.get(parameter.name) or f"Parameter `{parameter.name}` of {name}."
        found.append(Field(key, parameter.name, hint, _bounded(parameter.name, source, value), doc, default, value))
    if bad:
        raise ScaffoldError(
            f"{name}.__init__({', '.join(bad)}): no default, and no type that a config can hold, which are int, float, "
            "bool, str, Literal, Optional, and list or tuple of these. Annotate it so, give it a default, or let the "
            "model take numbers and build the object itself."
        )
    return found


def _config_type(hint: Any) -> tuple[Any, str | None]:
    """The type that a config reads for a hint, and its source text; None where there is none."""
    if get_origin(hint) is typing.Annotated:
        return _config_type(get_args(hint)[0])
    if hint in _PLAIN:
        return hint, hint.__name__
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal and all(type(part) in (str, int, bool) for part in parts):
        return hint, f"Literal[{', '.join(map(literal_text, parts))}]"
    if origin in (typing.Union, types.UnionType):
        kinds = [_config_type(part) for part in parts if part is not type(None)]
        if any(source is None for _, source in kinds):
            return hint, None
        texts = [source for _, source in kinds] + (["None"] if type(None) in parts else [])
        return hint, " | ".join(dict.fromkeys(texts))
    if origin in (list, tuple, Sequence):
        items = [_config_type(part)[1] for part in parts if part is not Ellipsis]
        if items and None not in items:
            if origin is Sequence:
                return tuple[parts[0], ...], f"tuple[{items[0]}, ...]"
            dots = ", ..." if Ellipsis in parts else ""
            return hint, f"{origin.__name__}[{', '.join(items)}{dots}]"
    return hint, None


def _fits(hint: Any, default: Any) -> bool:
    if default is MISSING or default is None:
        return default is MISSING or type(None) in get_args(hint)
    try:
        write_value(hint, tuple(default) if get_origin(hint) is tuple else default)
    except (BadValue, TypeError):
        return False
    return True


def _bounded(name: str, source: str, value: Any) -> str:
    """Add the bounds that a parameter of that name surely has."""
    if source == "int" and _SIZE_NAME.search(name) and value > 0:
        return "Annotated[int, Gt(0)]"
    if source == "float" and "dropout" in name and 0 <= value < 1:
        return "Annotated[float, Interval(ge=0, lt=1)]"
    return source


def _beginning(name: str, hint: Any, given: Mapping[str, tuple[int, ...]]) -> Any:
    """A value that a parameter without a default can begin with."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return parts[0]
    if origin in (typing.Union, types.UnionType):
        return None if type(None) in parts else _beginning(name, parts[0], given)
    if origin in (list, tuple):
        kinds = parts if origin is tuple and Ellipsis not in parts else parts[:1]
        return origin(_beginning(name, part, given) for part in kinds)
    if hint is int:
        return _given_size(name, given) or next((value for part, value in _BEGINNINGS.items() if part in name), 16)
    return {float: 0.1, bool: False, str: ""}[hint]


def _given_size(name: str, given: Mapping[str, tuple[int, ...]]) -> int | None:
    """The size that a parameter of that name has where samples have these shapes: `dataset_dim` of `dataset_tokens`."""
    word, _, rest = name.partition("_")
    own = [shape for each, shape in given.items() if rest and each.split("_")[0] == word]
    if not own and is_input_name(name):
        own = list(given.values())
    if not own and name in ("d_model", "dim"):
        own = [shape for shape in given.values() if len(shape) == 2]
    return (own[0][0] if "channel" in name else own[0][-1]) if own else None


def is_input_name(name: str) -> bool:
    """Whether a constructor's parameter of that name says how wide the input is."""
    return _INPUT_NAME.fullmatch(name) is not None


def literal_text(value: Any) -> str:
    """Python text of a plain value, as the formatter likes it: double quotes."""
    if isinstance(value, str) and '"' not in value:
        return '"' + repr(f"'{value}")[2:]
    if type(value) is tuple:
        return f"({', '.join(map(literal_text, value))}{',' if len(value) == 1 else ''})"
    return f"[{', '.join(map(literal_text, value))}]" if type(value) is list else repr(value)


def _parameter_docs(model_class: type) -> dict[str, str]:
    """What the docstrings' Args say of each parameter: its first sentence."""
    found: dict[str, str] = {}
    for text in (model_class.__doc__, model_class.__init__.__doc__):
        section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", inspect.cleandoc(text or ""), flags=re.MULTILINE)
        for name, doc in re.findall(
            r"^ {4}(\w+)[^:\n]*: ((?:.*\n?)(?: {5,}.*\n?)*)", section[1] if section else "", re.M
        ):
            found[name] = _sentence(doc)
    return found


def _sentence(doc: str) -> str:
    text = " ".join(doc.split()).replace("\\", "/").replace('"', "'")
    text = re.split(r"(?<=\.) ", text)[0].rstrip(".")
    text = text if len(text) <= 100 else text[:100].rsplit(" ", 1)[0] + " ..."
    return f"{text[:1].upper()}{text[1:]}." if text and text[-1] not in ".?!" else text
