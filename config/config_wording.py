"""Takes type hints apart and says in words what they allow. Imports nothing heavy: tables and `--help` use it."""

import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types

_NOUNS = {int: "an integer", float: "a finite number", bool: "true or false", str: "text", Path: "a path"}
_PLURALS = {int: "integers", float: "finite numbers", bool: "true or false", str: "texts", Path: "paths"}


def split_hint(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A hint's bare type and its bounds, one by one: `Annotated[int, Gt(0)]` gives `int, (Gt(0),)`."""
    hint = getattr(hint, "__value__", hint)  # `type Rate = ...`, python 3.12
    if get_origin(hint) is not Annotated:
        return hint, ()
    base, *metadata = get_args(hint)
    base, inner = split_hint(base)
    return base, (*inner, *_flat(metadata))


def _flat(metadata: Iterable[Any]) -> Iterable[Any]:
    for bound in metadata:
        if isinstance(bound, annotated_types.GroupedMetadata):  # Interval, Len
            yield from _flat(bound)
        else:
            yield bound


def is_union(base: Any) -> bool:
    """Whether a bare type is `A | B`."""
    return get_origin(base) in (Union, types.UnionType)


def container(base: Any) -> type | None:
    """`list` or `tuple` where the bare type is one of them, else None."""
    kind = get_origin(base) or base
    return kind if kind in (list, tuple) else None


def members_of(base: Any, metadata: tuple[Any, ...]) -> tuple[list[Any], bool]:
    """A union's members, each with the union's own bounds, `str` last as it takes anything; and whether None is one."""
    given = get_args(base)
    members = [bounded(member, metadata) for member in given if member is not type(None)]
    return sorted(members, key=lambda member: split_hint(member)[0] is str), type(None) in given


def bounded(base: Any, metadata: tuple[Any, ...]) -> Any:
    """The opposite of `split_hint`."""
    return Annotated[base, *metadata] if metadata else base


def word(value: Any) -> str:
    """A value as ini text, strings without quotes."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- wording -------------------------------------------------------------------------------------------------------


def must_be(hint: Any) -> str:
    """What a value must be, in words: `must be an integer greater than 0`."""
    return f"must be {_allowed(hint)}"


def _allowed(hint: Any) -> str:
    base, metadata = split_hint(hint)
    if is_union(base):
        members, has_none = members_of(base, metadata)
        return " or ".join([*map(_allowed, members), *(["none"] if has_none else [])])
    if get_origin(base) is Literal:
        return "one of " + ", ".join(map(word, get_args(base)))
    kind = container(base)
    if kind is None:
        return " ".join(filter(None, [_NOUNS.get(base, type_name(base)), _bounds_text(metadata)]))
    args = get_args(base)
    if kind is tuple and args and args[-1] is not Ellipsis:
        return f"{len(args)} values separated by commas ({', '.join(map(_allowed, args))})"
    item, item_bounds = split_hint(args[0] if args else str)
    plural = _PLURALS.get(item)
    each = " ".join(filter(None, [plural, _bounds_text(item_bounds)])) if plural else f"values, each {_allowed(item)}"
    length = _bounds_text(metadata, of="at {} {} items")
    return f"{each} separated by commas" + (f", {length}" if length else "")


def _bounds_text(metadata: tuple[Any, ...], of: str = "of at {} {} characters") -> str:
    return " and ".join(filter(None, (bound_text(bound, of) for bound in metadata)))


def bound_text(bound: Any, of: str = "of at {} {} characters") -> str | None:
    """A bound in words, or None for one that only pydantic understands."""
    match bound:
        case annotated_types.Gt(limit):
            return f"greater than {limit}"
        case annotated_types.Ge(limit):
            return f"greater than or equal to {limit}"
        case annotated_types.Lt(limit):
            return f"less than {limit}"
        case annotated_types.Le(limit):
            return f"less than or equal to {limit}"
        case annotated_types.MinLen(limit):
            return of.format("least", limit)
        case annotated_types.MaxLen(limit):
            return of.format("most", limit)
        case annotated_types.MultipleOf(limit):
            return f"divisible by {limit}"
    return None


def type_text(hint: Any) -> str:
    """A type for tables and help: `int > 0`, `one of auto, fp32`, `list of float >= 0`, `path or none`."""
    base, metadata = split_hint(hint)
    if is_union(base):
        members, has_none = members_of(base, metadata)
        return " or ".join([*map(type_text, members), *(["none"] if has_none else [])])
    if get_origin(base) is Literal:
        return "one of " + ", ".join(map(word, get_args(base)))
    bounds = " and ".join(filter(None, map(_symbol, metadata)))
    kind = container(base)
    if kind is None:
        name = "path" if base is Path else type_name(base)
    else:
        args = [arg for arg in get_args(base) if arg is not Ellipsis] or [str]
        name = f"{kind.__name__} of {', '.join(map(type_text, args))}"
        bounds = bounds and f"({bounds})"
    return f"{name} {bounds}".strip()


def _symbol(bound: Any) -> str | None:
    match bound:
        case annotated_types.Gt(limit):
            return f"> {limit}"
        case annotated_types.Ge(limit):
            return f">= {limit}"
        case annotated_types.Lt(limit):
            return f"< {limit}"
        case annotated_types.Le(limit):
            return f"<= {limit}"
        case annotated_types.MinLen(limit):
            return f"length >= {limit}"
        case annotated_types.MaxLen(limit):
            return f"length <= {limit}"
        case annotated_types.MultipleOf(limit):
            return f"multiple of {limit}"
    return None


def type_name(hint: Any) -> str:
    """A type's name as one writes it."""
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
