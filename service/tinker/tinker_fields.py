"""Fields of a JSON object that a client sent: each taken with its type and range, or refused by its name."""

import json
import math
from collections.abc import Mapping
from typing import Any

from service.web.tinker_error import TinkerError

Json = dict[str, Any]
MOST_WHOLE = 2**63 - 1


def read_json(body: bytes) -> Json:
    """Return the object that a body is.

    Raises:
        TinkerError: it is none.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise TinkerError(f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise TinkerError(f"the body is {_shown(found)}; it must be an object")
    return found


class Fields:
    """The fields of one object. What is not asked for is ignored: newer clients send more.

    Args:
        given: the object.
        place: what its fields are told after, such as `sampling_params.`.
    """

    def __init__(self, given: Mapping[str, Any], place: str = "") -> None:
        self._given, self.place = given, place

    def has(self, name: str) -> bool:
        """Return whether a field is there and not null."""
        return self._given.get(name) is not None

    def raw(self, name: str) -> Any:
        """Return a field as it is; None where there is none."""
        return self._given.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string.

        Raises:
            TinkerError: it is something else, or missing where there is no default.
        """
        value = self._value(name, default, "a string")
        if not isinstance(value, str):
            raise self.wrong(name, value, "it must be a string")
        return value

    def whole(self, name: str, default: int | None = None, least: int = 0, most: int = MOST_WHOLE) -> int:
        """Return an integer of a range.

        Raises:
            TinkerError: it is something else, or missing where there is no default.
        """
        value = self._value(name, default, f"an integer from {least} to {most}")
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(name, value, f"it must be an integer from {least} to {most}")
        return value

    def number(self, name: str, default: float | None = None, least: float = 0.0, most: float = math.inf) -> float:
        """Return a finite number of a range.

        Raises:
            TinkerError: it is something else, or missing where there is no default.
        """
        allowed = (
            f"a finite number of {least:g} or more" if most == math.inf else f"a number from {least:g} to {most:g}"
        )
        value = self._value(name, default, allowed)
        fine = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
        if not fine or not least <= value <= most:
            raise self.wrong(name, value, f"it must be {allowed}")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return true or false.

        Raises:
            TinkerError: it is something else.
        """
        value = self._value(name, default, "true or false")
        if not isinstance(value, bool):
            raise self.wrong(name, value, "it must be true or false")
        return value

    def listed(self, name: str) -> list[Any]:
        """Return a list; an empty one where there is none.

        Raises:
            TinkerError: it is something else.
        """
        value = self._value(name, [], "a list")
        if not isinstance(value, list):
            raise self.wrong(name, value, "it must be a list")
        return value

    def inside(self, name: str, required: bool = True) -> "Fields":
        """Return the fields of an object inside.

        Raises:
            TinkerError: it is something else, or missing where it is required.
        """
        return Fields(self.mapping(name, required), f"{self.place}{name}.")

    def mapping(self, name: str, required: bool = False) -> Json:
        """Return an object as it is; an empty one where there is none and none is required.

        Raises:
            TinkerError: it is something else.
        """
        value = self._value(name, None if required else {}, "an object")
        if not isinstance(value, dict):
            raise self.wrong(name, value, "it must be an object")
        return value

    def metadata(self, name: str) -> Json | None:
        """Return plain data of the user's own, to be given back later.

        Raises:
            TinkerError: it is no object of strings: clients read no others.
        """
        if not self.has(name):
            return None
        value = self.mapping(name)
        for key, each in value.items():
            if not isinstance(each, str) or not _is_text(key) or not _is_text(each):
                raise self.wrong(name, value, "it must be an object of strings, of whole characters")
        return value

    def wrong(self, name: str, value: object, allowed: str) -> TinkerError:
        """Return the error by which a field is refused."""
        return TinkerError(f"{self.place}{name} is {_shown(value)}; {allowed}")

    def _value(self, name: str, default: Any, allowed: str) -> Any:
        value = self._given.get(name)
        if value is None:
            if default is None:
                raise TinkerError(f"{self.place}{name} is missing; it must be {allowed}")
            return default
        return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_text(text: str) -> bool:
    """Return whether a string has whole characters only, so that JSON can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
