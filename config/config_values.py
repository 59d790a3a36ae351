"""From a value's text to its type and back. The bounds are pydantic's business, the grammar is ours.

Importing this file does not import pydantic (about 100 ms): the first value that is read does.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from config.config_wording import (
    bound_text,
    bounded,
    container,
    is_union,
    members_of,
    must_be,
    split_hint,
    type_name,
    word,
)
from config.ini_reader import parse_ini, quote, shorten, split_items, unquote
from constants.nearest import nearest

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}
_NONE = {"none", ""}
# What may stand unquoted in a list: nothing that is punctuation there.
_WORD_CHARACTERS = set("_./+-: ")


class BadValue(ValueError):
    """A value that its type does not allow. The message says what is allowed: `must be an integer greater than 0`."""


# ---- reading -------------------------------------------------------------------------------------------------------


def read_value(hint: Any, text: str, folder: Path) -> Any:
    """Read a value from its text.

    Args:
        hint: the type, such as `Annotated[int, Gt(0)]`.
        text: text of the value as in the file, quotes included.
        folder: folder that relative paths are relative to.

    Returns:
        The value, of the hint's type and within its bounds.

    Raises:
        BadValue: the text is no such value.
    """
    base, metadata = split_hint(hint)
    if is_union(base):
        return _read_union(base, metadata, text, folder)
    if container(base):
        return _read_items(base, metadata, text, folder)
    if get_origin(base) is Literal:
        return _read_literal(hint, base, text)
    if base is str:
        return validate(hint, _plain(text))
    if not text.strip() or base is type(None):
        raise BadValue(must_be(hint))
    if base is bool:
        switch = _plain(text).lower()
        if switch not in _TRUE | _FALSE:
            raise BadValue(must_be(hint))
        return validate(hint, switch in _TRUE)
    if base is Path:
        return validate(hint, _read_path(_plain(text), folder))
    return validate(hint, _plain(text))


def _plain(text: str) -> str:
    """The text with the quotes taken off each line that is wholly in quotes."""
    return "\n".join(line if (inner := unquote(line)) is None else inner for line in text.split("\n"))


def _read_union(base: Any, metadata: tuple[Any, ...], text: str, folder: Path) -> Any:
    members, has_none = members_of(base, metadata)
    if has_none and text.strip().lower() in _NONE:
        return None
    if unquote(text) is not None:
        # Quotes say "text", so that `int | str` can hold the text "5".
        texts = [member for member in members if split_hint(member)[0] in (str, Path) or _is_text_choice(member)]
        members = texts or members
    problems = []
    for member in members:
        try:
            return read_value(member, text, folder)
        except BadValue as error:
            problems.append(error)
    if len(problems) == 1 and container(split_hint(members[0])[0]):
        raise problems[0]  # names the item
    raise BadValue(must_be(bounded(base, metadata)))


def _is_text_choice(hint: Any) -> bool:
    base, _ = split_hint(hint)
    return get_origin(base) is Literal and any(isinstance(choice, str) for choice in get_args(base))


def _read_literal(hint: Any, base: Any, text: str) -> Any:
    quoted = unquote(text)
    for choice in get_args(base):
        if isinstance(choice, str):
            matches = choice == (text if quoted is None else quoted)
        else:
            matches = quoted is None and _matches(choice, text)
        if matches:
            return choice
    near = nearest(text, (choice for choice in get_args(base) if isinstance(choice, str)))
    raise BadValue(must_be(hint) + (f"; did you mean {near}?" if near else ""))


def _matches(choice: Any, text: str) -> bool:
    """Whether a text stands for a choice that is no string."""
    if isinstance(choice, bool):
        return text.lower() in (_TRUE if choice else _FALSE)
    return text.lower() in _NONE if choice is None else text == str(choice)


def _read_path(text: str, folder: Path) -> Path:
    if not text:
        raise BadValue("must be a path; it is empty")
    if "\n" in text:  # an indented line below that was meant as something else
        raise BadValue("must be a path on one line")
    try:
        return absolute(Path(text), folder)
    except RuntimeError as error:
        raise BadValue(f"must be a path; the home folder in {shorten(text)} is not known") from error


def absolute(value: Any, folder: Path) -> Any:
    """A path, or every path in a list or tuple, with `~` expanded and relative to a folder; other values as they are.

    Raises:
        RuntimeError: `~name` of a user that there is not.
    """
    if type(value) in (list, tuple):
        return type(value)(absolute(item, folder) for item in value)
    # Not resolved, and `..` not collapsed: on a symbolic link `..` means the link's target's parent.
    return folder / value.expanduser() if isinstance(value, Path) else value


def _read_items(base: Any, metadata: tuple[Any, ...], text: str, folder: Path) -> Any:
    if not text.strip():
        raise BadValue(f"{must_be(bounded(base, metadata))}; write [] for none")
    try:
        items = split_items(text)
    except ValueError as error:
        raise BadValue(f"{error}; it {must_be(bounded(base, metadata))}") from error
    hints = _item_hints(base, len(items))
    if len(hints) != len(items):
        raise BadValue(must_be(bounded(base, metadata)))
    values = []
    for number, (item_hint, item) in enumerate(zip(hints, items, strict=True), start=1):
        try:
            values.append(read_value(item_hint, item, folder))
        except BadValue as error:
            raise BadValue(f"item {number} ({shorten(item)}) {error}") from error
    # The items have been checked one by one; what remains are the bounds on their number.
    kind = container(base) or list
    return validate(bounded(kind, metadata), kind(values), must_be(bounded(base, metadata)))


def _item_hints(base: Any, count: int) -> list[Any]:
    args = get_args(base)
    if not args:
        return [str] * count
    if get_origin(base) is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        return list(args) if args != ((),) else []
    return [args[0]] * count


# ---- bounds --------------------------------------------------------------------------------------------------------


def validate(hint: Any, value: Any, allowed: str = "") -> Any:
    """Check a value (or a number's text) against a hint by pydantic.

    Args:
        hint: type of the value, bounds included.
        value: value to check, such as a default or `"3e-4"`.
        allowed: text of the error, in place of `must_be(hint)`.

    Returns:
        The value as the hint's type.

    Raises:
        BadValue: it does not fit.
    """
    base, metadata = split_hint(hint)
    if is_union(base) and metadata:
        # Bounds on the whole of `int | None` mean the int: pydantic would compare None with a number.
        members, has_none = members_of(base, metadata)
        if value is None and has_none:
            return None
        hint = Union[tuple(members)]  # noqa: UP007 - built at run time
    from pydantic import PydanticUserError, ValidationError

    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as error:
        ours = [bound for bound in metadata if bound_text(bound) is None]
        reason = f" ({error.errors()[0]['msg']})" if ours else ""
        raise BadValue((allowed or must_be(hint)) + reason) from error
    except (PydanticUserError, TypeError) as error:
        raise BadValue(f"has a type that settings cannot have, {type_name(base)}: {error}") from error


def _adapter(hint: Any) -> Any:
    try:
        return _cached_adapter(hint)
    except TypeError:  # bounds that cannot be hashed
        return _cached_adapter.__wrapped__(hint)


@lru_cache(maxsize=1024)
def _cached_adapter(hint: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True))


# ---- writing -------------------------------------------------------------------------------------------------------


def value_text(value: Any) -> str:
    """A value as ini text that is easy to read: strings are quoted only where they need it."""
    if type(value) in (list, tuple):
        return ", ".join(map(_item_text, value)) or "[]"
    if isinstance(value, str | Path) and (not str(value) or not _survives(str(value))):
        return _quoted(value)
    return repr(value) if isinstance(value, float) else word(value)


def _quoted(value: str | Path) -> str:
    return "\n    ".join(map(quote, str(value).split("\n")))


def _item_text(value: Any) -> str:
    if not isinstance(value, str | Path):
        return value_text(value)
    text = str(value)
    plain = text == text.strip() and all(c.isalnum() or c in _WORD_CHARACTERS for c in text)
    # A text that reads like a number or like none is quoted, in case the list could hold those as well.
    plain = plain and text.lower() not in _TRUE | _FALSE | _NONE and (text[0].isalpha() or text[0] in "/_")
    return text if plain else quote(text)


def _survives(text: str) -> bool:
    """Whether a file that holds this text as a value gives it back."""
    try:
        ini = parse_ini(f"[S]\nkey = {text}\n".encode())
    except UnicodeEncodeError:
        return False
    return not ini.problems and [entry.text for entry in ini.entries] == [_without_indent(text)]


def _without_indent(text: str) -> str:
    return text.replace("\n    ", "\n")


def write_value(hint: Any, value: Any) -> str:
    """A value as ini text that reads back as an equal value.

    Args:
        hint: type of the value, such as `Annotated[int, Gt(0)]`.
        value: value to write.

    Returns:
        What stands after `key = `; further lines are indented.

    Raises:
        BadValue: nothing that can be written reads back as this value.
    """
    candidates = [value_text(value)]
    if isinstance(value, str | Path):
        candidates.append(_quoted(value))  # where plain text would read as none, a number or another choice
    reason = BadValue(must_be(hint))
    for text in candidates:
        try:
            back = read_value(hint, _without_indent(text), Path.cwd())
        except BadValue as error:
            reason = error
            continue
        if back == value and isinstance(back, bool) == isinstance(value, bool):
            if _survives(text):
                return text
            reason = BadValue("holds characters that an ini file cannot")
    raise reason
