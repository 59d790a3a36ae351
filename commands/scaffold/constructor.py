"""What the scaffolder reads off a model's constructor: the keys of the trainer's config."""

import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

import torch
from torch import nn

from commands.scaffold.layout import literal_text
from config import BaseTrainerConfig
from config.config_values import BadValue, write_value
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
class Holder:
    """A config object that the model's constructor takes.

    Attributes:
        parameter: name of the constructor's parameter.
        kind: class of the config object.
    """

    parameter: str
    kind: type


@dataclass(frozen=True)
class Field:
    """A parameter of the model's constructor that is a key of the trainer's config.

    Attributes:
        name: name of the key: the parameter's, with `model_` or the config object's name before it where that key is
            taken.
        parameter: name of the constructor's parameter, or of the config object's field.
        hint: type that the config reads the key as.
        source: type of the key as Python text.
        doc: description of the key.
        default: default of the parameter, MISSING where it has none.
        value: the default, or a value to begin with.
        holder: config object that the parameter is a field of; None where the constructor takes the parameter itself.
    """

    name: str
    parameter: str
    hint: Any
    source: str
    doc: str
    default: Any
    value: Any
    holder: Holder | None = None


def constructor_fields(model_class: type[nn.Module], given: Mapping[str, tuple[int, ...]]) -> list[Field]:
    """List what a config can hold of the constructor's parameters; fields of a config object are listed by themselves.

    A parameter that a config can't hold is left to its default.

    Args:
        model_class: class of the model.
        given: known shapes of a sample by input; sizes without a default begin with them.

    Raises:
        ScaffoldError: parameters that have neither a default nor a type that a config can hold; names all.
    """
    name = model_class.__name__
    hints, docs = _hints(model_class.__init__, f"{name}.__init__"), _parameter_docs(model_class)
    taken = {field.name for field in fields(BaseTrainerConfig)}
    found: list[Field] = []
    bad: list[str] = []
    for parameter in list(inspect.signature(model_class.__init__).parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = MISSING if parameter.default is parameter.empty else parameter.default
        hint, by_name = hints.get(parameter.name), parameter.kind is not parameter.POSITIONAL_ONLY
        doc = docs.get(parameter.name) or f"Parameter `{parameter.name}` of {name}."
        own, lacking = [], str(parameter).replace("collections.abc.", "")
        if by_name and (field := _field(parameter.name, hint, default, doc, given)):
            own, lacking = [field], ""
        elif by_name and _is_config_object(hint) and default is not None:
            own, lacking = _object_fields(parameter.name, hint, default, given)
        if lacking:
            bad += [lacking] if default is MISSING else []
            continue
        for field in own:
            prefix = field.holder.parameter if field.holder else "model"
            key = f"{prefix}_{field.parameter}" if field.parameter in taken else field.parameter
            taken.add(key)
            found.append(replace(field, name=key))
    if bad:
        raise ScaffoldError(_cannot_hold(name, bad))
    return found


def build_model(
    model_class: type[nn.Module], own: Sequence[Field], changes: Mapping[str, Any] = MappingProxyType({})
) -> nn.Module:
    """Build a model from the values of its keys.

    Args:
        model_class: class of the model.
        own: keys of the trainer's config that the model is built from.
        changes: other values, by key.

    Raises:
        ScaffoldError: it can't be built so.
    """
    torch.manual_seed(0)
    values: dict[str, Any] = {}
    held: dict[Holder, dict[str, Any]] = {}
    for field in own:
        place = held.setdefault(field.holder, {}) if field.holder else values
        place[field.parameter] = changes.get(field.name, field.value)
    try:
        values |= {holder.parameter: holder.kind(**inner) for holder, inner in held.items()}
        return model_class(**values)
    except (Exception, SystemExit) as error:  # whatever a user's constructor raises
        shown = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise ScaffoldError(
            f"{model_class.__name__}({shown}) fails: {type(error).__name__}: {error}\n"
            "Give the parameters defaults with which a model can be built; those without one got a guess."
        ) from error


def _hints(of: Any, shown: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(of, include_extras=True)
    except Exception as error:
        raise ScaffoldError(f"{shown} has a type hint that can't be read: {type(error).__name__}: {error}") from error


def _field(
    name: str, hint: Any, default: Any, doc: str, given: Mapping[str, tuple[int, ...]], holder: Holder | None = None
) -> Field | None:
    """The key for a parameter; None where a config can't hold it."""
    hint, source = _config_type(hint or (type(default) if type(default) in _PLAIN else None))
    if source is None or not _fits(hint, default):
        return None
    kind = get_origin(hint) or hint
    default = kind(default) if kind in (list, tuple, float) and default is not MISSING else default
    value = _beginning(name, hint, given) if default is MISSING else default
    return Field(name, name, hint, _bounded(name, source, value, doc), doc, default, value, holder)


def _is_config_object(hint: Any) -> bool:
    """Whether a type bundles settings: a dataclass or a named tuple."""
    return isinstance(hint, type) and (is_dataclass(hint) or (issubclass(hint, tuple) and hasattr(hint, "_fields")))


def _object_fields(
    parameter: str, kind: Any, default: Any, given: Mapping[str, tuple[int, ...]]
) -> tuple[list[Field], str]:
    """The keys for the fields of a config object, and what of it a config can't hold; empty where it can hold all."""
    defaults = _object_defaults(kind, default)
    hints, docs, holder = _hints(kind, kind.__name__), _parameter_docs(kind), Holder(parameter, kind)
    names = [each.name for each in fields(kind) if each.init] if is_dataclass(kind) else kind._fields
    found, lacking = [], []
    for name in names:
        doc = docs.get(name) or f"Field `{name}` of {kind.__name__}."
        field = _field(name, hints.get(name), defaults.get(name, MISSING), doc, given, holder)
        if field:
            found.append(field)
        elif name not in defaults:
            lacking.append(name)
    return found, f"{parameter}: {kind.__name__}, for its {', '.join(lacking)}" if lacking else ""


def _object_defaults(kind: Any, default: Any) -> dict[str, Any]:
    """The defaults of a config object's fields: what the constructor's default has, else what the class declares."""
    if isinstance(default, kind):
        names = [each.name for each in fields(kind)] if is_dataclass(kind) else kind._fields
        return {name: getattr(default, name) for name in names}
    if not is_dataclass(kind):
        return dict(kind._field_defaults)
    made = {each.name: each.default_factory() for each in fields(kind) if each.default_factory is not MISSING}
    return made | {each.name: each.default for each in fields(kind) if each.default is not MISSING}


def _cannot_hold(name: str, bad: Sequence[str]) -> str:
    given = [f"{each.partition(':')[0]}=..." for each in bad]
    return (
        f"{name}.__init__({', '.join(bad)}): no default, and no type that a config can hold, which are int, float, "
        "bool, str, Literal, Optional, list or tuple of these, and a dataclass with fields of these. Annotate it so, "
        "give it a default, or name a class that takes settings and makes the rest of them:\n"
        f"  class Configured{name}({name}):\n"
        "      def __init__(self, width: int = 32) -> None:\n"
        f"          super().__init__({', '.join(given)})"
    )


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
        texts = [source for _, source in kinds if source is not None]
        if len(texts) < len(kinds):
            return hint, None
        texts += ["None"] if type(None) in parts else []
        return hint, " | ".join(dict.fromkeys(texts))
    if origin in (list, tuple, Sequence):
        kinds = [_config_type(part) for part in parts if part is not Ellipsis]
        items = [source for _, source in kinds if source is not None]
        if items and len(items) == len(kinds):
            if origin is Sequence:
                return types.GenericAlias(tuple, (parts[0], ...)), f"tuple[{items[0]}, ...]"
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


def _bounded(name: str, source: str, value: Any, doc: str) -> str:
    """Add the bounds that a parameter of that name surely has."""
    if source == "int" and _SIZE_NAME.search(name) and value > 0:
        return "Annotated[int, Ge(0)]" if re.search(r"\b(0|zero|none)\b", doc.lower()) else "Annotated[int, Gt(0)]"
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


def _parameter_docs(model_class: type[Any]) -> dict[str, str]:
    """What the docstrings' Args say of each parameter: its first sentence."""
    found: dict[str, str] = {}
    for text in (model_class.__doc__, model_class.__init__.__doc__):
        section = re.search(
            r"^(?:Args|Attributes):\n((?:[ ]+.*\n?|\n)*)", inspect.cleandoc(text or ""), flags=re.MULTILINE
        )
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
