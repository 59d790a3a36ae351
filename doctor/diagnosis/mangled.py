"""C++ names as linkers print them, read as far as a verdict needs: the qualified name and the ABI of its strings."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Name:
    """A C++ name.

    Args:
        parts: the qualified name, ("c10", "Error", "Error").
        new_strings: True where its types hold strings of the C++11 ABI, False where of the old one, None without any.
    """

    parts: tuple[str, ...]
    new_strings: bool | None = None

    @property
    def text(self) -> str:
        """The name as C++ writes it, without arguments."""
        return "::".join(self.parts)


def read_name(symbol: str) -> Name | None:
    """Return a C++ name.

    Args:
        symbol: a mangled name (Itanium), or one that is written out, such as "c10::Error::Error(...)".

    Returns:
        The name; None where the text is neither.
    """
    if not symbol.startswith("_Z"):
        parts = re.sub(r"\(.*|<.*", "", symbol).split("::")
        if len(parts) < 2 or not all(re.fullmatch(r"~?\w+", part) for part in parts):
            return None
        new = True if "__cxx11" in symbol else None
        return Name(tuple(parts), new)
    rest = re.sub(r"^_Z(T[VISTtc]|GV)?", "", symbol)
    parts = _qualified(rest)
    if not parts:
        return None
    new_strings: bool | None = None
    if "__cxx11" in symbol or "B5cxx11" in symbol:
        new_strings = True
    elif "Ss" in _without_names(rest):  # Ss is std::string of the old ABI
        new_strings = False
    return Name(tuple(parts), new_strings)


def _without_names(text: str) -> str:
    """Return a mangled name without the names that it is made of, which are counted: "6Tensor"."""
    left = []
    place = 0
    while place < len(text):
        found = re.match(r"\d+", text[place:])
        if found and text[place - 1 : place] not in ("S", "T", "L", "i", "j"):
            place += len(found[0]) + int(found[0])
        else:
            left.append(text[place])
            place += 1
    return "".join(left)


def _qualified(text: str) -> list[str]:
    """Return the parts of a nested or plain name at the start of a text."""
    nested = text.startswith("N")
    place = 1 if nested else 0
    parts: list[str] = []
    while place < len(text):
        found = re.match(r"\d+", text[place:])
        if found:
            begin = place + len(found[0])
            size = int(found[0])
            if begin + size > len(text):  # cut off: what is left of the name
                parts.append(text[begin:])
                break
            parts.append(text[begin : begin + size])
            place = begin + size
            if not nested:
                break
        elif text[place] in "KVrRO" and not parts:
            place += 1
        elif text[place : place + 2] == "St":
            parts.append("std")
            place += 2
        elif text[place] == "I":
            place = _after_template(text, place)
        elif re.match(r"[CD][0-5]", text[place:]) and parts:
            parts.append(("~" if text[place] == "D" else "") + parts[-1])
            break
        elif text[place] == "B":  # an ABI tag: B5cxx11
            tag = re.match(r"B(\d+)", text[place:])
            place += len(tag[0]) + int(tag[1]) if tag else 1
        else:
            break
    return parts


def _after_template(text: str, place: int) -> int:
    """Return the place behind a list of template arguments, as far as its brackets tell."""
    depth = 0
    while place < len(text):
        found = re.match(r"\d+", text[place:])
        if found:
            place += len(found[0]) + int(found[0])
            continue
        if text[place] in "INXJ":
            depth += 1
        elif text[place] == "E":
            depth -= 1
            if depth == 0:
                return place + 1
        place += 2 if text[place] in "SLC" and place + 1 < len(text) and not text[place + 1].isdigit() else 1
    return place
